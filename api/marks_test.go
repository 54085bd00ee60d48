package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMarks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct {
		body    object
		network any
		agent   any
	}{
		{object{"network": "192.0.2.77/24", "kind": "monitor"}, "192.0.2.0/24", nil},
		{object{"network": "2001:DB8::1", "kind": "person"}, "2001:db8::1/128", nil},
		{object{"network": "::ffff:198.51.100.7", "user_agent": nil, "kind": "tool"}, "198.51.100.7/32", nil},
		{object{"user_agent": "AcmeWatch/*", "kind": "bot"}, nil, "AcmeWatch/*"},
	} {
		made := b.want(201, RoleAdmin, "POST", "/marks", test.body)
		assert.Equal(t, test.network, made.body["network"])
		assert.Equal(t, test.agent, made.body["user_agent"])
		assert.Equal(t, test.body["kind"], made.body["kind"])
		assert.Regexp(t, "^/marks/[0-9]+$", made.header.Get("Location"))
	}
	assert.Len(t, b.want(200, RoleAdmin, "GET", "/marks", nil).rows(), 4)
	for _, test := range []struct {
		body   object
		status int
		field  string
	}{
		{object{"kind": "bot"}, 400, "network"},
		{object{"network": nil, "kind": "bot"}, 400, "network"},
		{object{"network": "192.0.2.0/24"}, 400, "kind"},
		{object{"network": "192.0.2.0/24", "kind": "alien"}, 400, "kind"},
		{object{"network": "192.0.2.0/24", "kind": "prefetch"}, 400, "kind"},
		{object{"network": "192.0.2.0/24", "kind": "empty"}, 400, "kind"},
		{object{"network": "192.0.2.0/33", "kind": "bot"}, 400, "network"},
		{object{"network": "", "kind": "bot"}, 400, "network"},
		{object{"network": "fe80::1%eth0", "kind": "bot"}, 400, "network"},
		{object{"network": "example.com", "kind": "bot"}, 400, "network"},
		{object{"network": 7, "kind": "bot"}, 400, "network"},
		{object{"network": "198.51.100.0/24", "user_agent": "x", "kind": "bot"}, 400, "user_agent"},
		{object{"user_agent": "", "kind": "bot"}, 400, "user_agent"},
		{object{"user_agent": "***", "kind": "bot"}, 400, "user_agent"},
		{object{"user_agent": "a\nb", "kind": "bot"}, 400, "user_agent"},
		{object{"user_agent": strings.Repeat("a", 513), "kind": "bot"}, 400, "user_agent"},
		{object{"network": "192.0.2.0/24", "kind": "bot"}, 409, "network"},
		{object{"user_agent": "AcmeWatch/*", "kind": "monitor"}, 409, "user_agent"},
	} {
		refused := b.want(test.status, RoleAdmin, "POST", "/marks", test.body)
		assert.Contains(t, string(refused.raw), `"`+test.field+`"`, "%v", test.body)
	}
	b.want(204, RoleAdmin, "DELETE", "/marks/1", nil)
	b.want(404, RoleAdmin, "DELETE", "/marks/1", nil)
	b.want(201, RoleAdmin, "POST", "/marks", object{"network": "192.0.2.0/24", "kind": "bot"})
	b.want(403, RoleEditor, "POST", "/marks", object{"network": "203.0.113.0/24", "kind": "bot"})
	events := b.want(200, RoleReader, "GET", "/events?event_type=deleted", nil).rows()
	if assert.Len(t, events, 1) {
		details := events[0]["details"].(map[string]any)
		assert.Equal(t, []any{"mark", "192.0.2.0/24", "monitor"}, []any{details["entity"], details["network"], details["kind"]})
	}
}

func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("INSERT INTO marks (network, kind) SELECT ('2001:db8:' || to_hex(n) || '::/48')::cidr, 'bot' FROM generate_series(1, 500) n")
	b.want(409, RoleAdmin, "POST", "/marks", object{"network": "192.0.2.0/24", "kind": "bot"})
}
