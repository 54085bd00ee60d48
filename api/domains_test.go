package api

import (
	"fmt"
	"slices"
	"testing"
)

func (b *bundle) domain(host string) answer {
	b.t.Helper()
	return b.want(201, RoleAdmin, "POST", "/domains", object{"host": host})
}

func TestDomains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	created := b.want(201, RoleAdmin, "POST", "/domains", object{
		"host": "Bücher.Example.", "root_url": " https://example.com ", "not_found_url": "https://example.com/lost", "expired_url": nil,
	})
	path := created.header.Get("Location")
	if path != "/domains/2" {
		t.Errorf("Location is %q", path)
	}
	for field, want := range map[string]any{
		"id": 2.0, "host": "xn--bcher-kva.example", "root_url": "https://example.com", "not_found_url": "https://example.com/lost",
		"expired_url": nil, "is_main": false,
	} {
		if got := created.body[field]; got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if got := b.want(200, RoleAdmin, "GET", path, nil); string(got.raw) != string(created.raw) {
		t.Errorf("read %s, created %s", got.raw, created.raw)
	}
	changed := b.want(200, RoleAdmin, "PATCH", path, object{"host": "go.example", "root_url": nil, "expired_url": "https://example.com/over"})
	if changed.body["host"] != "go.example" || changed.body["root_url"] != nil || changed.body["not_found_url"] != "https://example.com/lost" ||
		changed.body["expired_url"] != "https://example.com/over" {
		t.Errorf("changed to %s", changed.raw)
	}
	b.want(200, RoleAdmin, "PATCH", path, object{"host": "GO.example"}) // nothing changes
	main := b.want(200, RoleAdmin, "PATCH", "/domains/1", object{"host": "sign.example", "not_found_url": "https://example.com/lost"})
	if main.body["host"] != "sign.example" || main.body["is_main"] != true || main.body["not_found_url"] == nil {
		t.Errorf("the main domain is %s", main.raw)
	}
	if list := b.want(200, RoleAdmin, "GET", "/domains?limit=1", nil); list.body["count"] != 1.0 || list.body["next_cursor"] == nil {
		t.Errorf("the list is %s", list.raw)
	}
	b.want(204, RoleAdmin, "DELETE", path, nil)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		b.want(404, RoleAdmin, method, path, object{})
	}
	var got []string
	for _, e := range b.want(200, RoleReader, "GET", "/events?order=oldest", nil).body["data"].([]any) {
		e := e.(map[string]any)
		details := e["details"].(map[string]any)
		got = append(got, fmt.Sprint(e["event_type"], " ", details["entity"], " ", details["domain"], " ", len(fmt.Sprint(details["changes"])) > 10))
		if e["url_id"] != nil || e["user_id"] != nil || details["by"] == nil {
			t.Errorf("an event of a domain: %v", e)
		}
	}
	if want := []string{
		"created domain xn--bcher-kva.example false", "updated domain go.example true", "updated domain sign.example true",
		"deleted domain go.example false",
	}; !slices.Equal(got, want) {
		t.Errorf("events are %q, want %q", got, want)
	}
}

func TestDomainFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.domain("go.example")
	b.exec("INSERT INTO domains (host) VALUES ('other.example')")
	for _, tt := range []struct {
		method, path string
		body         object
		status       int
		field        string
	}{
		{"POST", "/domains", object{}, 400, "host"},
		{"POST", "/domains", object{"host": nil}, 400, "host"},
		{"POST", "/domains", object{"host": 7}, 400, "host"},
		{"POST", "/domains", object{"host": "https://a.example"}, 400, "host"},
		{"POST", "/domains", object{"host": "192.0.2.1"}, 400, "host"},
		{"POST", "/domains", object{"host": "SIGN.example"}, 400, "host"},
		{"POST", "/domains", object{"host": "go.sign.example"}, 400, "host"}, // one of PUBLIC_HOSTS, on another port
		{"POST", "/domains", object{"host": "GO.example"}, 409, "host"},
		{"PATCH", "/domains/2", object{"host": "other.example"}, 409, "host"},
		{"PATCH", "/domains/1", object{"host": "new.example"}, 400, "host"},
		{"PATCH", "/domains/1", object{"root_url": "https://sign.example/x"}, 400, "root_url"},
		{"PATCH", "/domains/2", object{"host": nil}, 400, "host"},
		{"PATCH", "/domains/2", object{"root_url": "ftp://a.example"}, 400, "root_url"},
		{"POST", "/domains", object{"host": "a.example", "expired_url": "https://a.example/x"}, 400, "expired_url"},
		{"POST", "/domains", object{"host": "a.example", "not_found_url": "https://sign.example/x"}, 400, "not_found_url"},
	} {
		a := b.want(tt.status, RoleAdmin, tt.method, tt.path, tt.body)
		if fields, _ := a.body["fields"].([]any); len(fields) != 1 || fields[0].(map[string]any)["field"] != tt.field {
			t.Errorf("%s %s %v: %s", tt.method, tt.path, tt.body, a.raw)
		}
	}
	b.want(200, RoleAdmin, "PATCH", "/domains/2", object{"root_url": "https://later.example/"})
	b.want(400, RoleAdmin, "PATCH", "/domains/2", object{"host": "later.example"}) // its root would lead to itself
	b.want(409, RoleAdmin, "DELETE", "/domains/1", nil)
	for _, role := range []Role{RoleReader, RoleEditor} {
		b.want(403, role, "GET", "/domains", nil)
		b.want(403, role, "POST", "/domains", object{"host": "b.example"})
		b.want(403, role, "PATCH", "/domains/2", object{})
		b.want(403, role, "DELETE", "/domains/2", nil)
	}
}

func TestLinksOfDomains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.domain("go.example")
	b.domain("bücher.example")
	on := func(domain, code string) object { return object{"domain": domain, "short_code": code} }

	b.newLink(ann, "https://example.com/main", object{"short_code": "a"})
	custom := b.newLink(ann, "https://example.com/custom", on("GO.example", "a"))
	if custom.body["domain"] != "go.example" || custom.body["short_url"] != "https://go.example/a" {
		t.Errorf("a link of a domain is %s", custom.raw)
	}
	named := b.newLink(ann, "https://example.com", on("Sign.Example", "b"))
	if named.body["domain"] != "sign.example" || named.body["short_url"] != "https://sign.example/b" {
		t.Errorf("a link of the main domain is %s", named.raw)
	}
	// No word is reserved on that domain, and the code needs no long form.
	docs := b.newLink(ann, "https://example.com/docs", on("bücher.example", "docs"))
	if docs.body["short_url"] != "https://xn--bcher-kva.example/docs" {
		t.Errorf("a link is %s", docs.raw)
	}
	drawn := b.newLink(ann, "https://example.com", object{"domain": "go.example"})
	if code, _ := drawn.body["short_code"].(string); len(code) != 7 {
		t.Errorf("a link without a code is %s", drawn.raw)
	}

	post := object{"user_id": ann, "original_url": "https://example.com"}
	with := func(more object) object {
		body := object{}
		for _, m := range []object{post, more} {
			for name, value := range m {
				body[name] = value
			}
		}
		return body
	}
	path := fmt.Sprintf("/urls/%d", custom.id())
	for _, tt := range []struct {
		method, path string
		body         object
		status       int
		field        string
	}{
		{"POST", "/urls", with(on("no.example", "x")), 400, "domain"},
		{"POST", "/urls", with(on("://", "x")), 400, "domain"},
		{"POST", "/urls", with(object{"domain": 3}), 400, "domain"},
		{"POST", "/urls", with(object{"domain": nil}), 400, "domain"},
		{"POST", "/urls", with(on("go.example", "a")), 409, "short_code"},
		{"POST", "/urls", with(on("go.example", "a.")), 400, "short_code"},
		{"POST", "/urls", with(on("sign.example", "docs")), 400, "short_code"},
		{"PATCH", path, object{"domain": "sign.example"}, 409, "short_code"},
		{"PATCH", path, object{"domain": "no.example"}, 400, "domain"},
		{"PATCH", fmt.Sprintf("/urls/%d", docs.id()), object{"domain": "sign.example"}, 400, "short_code"},
	} {
		a := b.want(tt.status, RoleEditor, tt.method, tt.path, tt.body)
		if fields, _ := a.body["fields"].([]any); len(fields) != 1 || fields[0].(map[string]any)["field"] != tt.field {
			t.Errorf("%s %s %v: %s", tt.method, tt.path, tt.body, a.raw)
		}
	}

	for query, want := range map[string]int{
		"domain=go.example": 2, "domain=sign.example": 2, "domain=B%C3%BCcher.example": 1, "domain=go.example&tag=x": 0,
		fmt.Sprintf("domain=go.example&user_id=%d", ann): 2, "domain=go.example&is_active=false": 0, "domain=go.example&search=custom": 1,
	} {
		if list := b.want(200, RoleReader, "GET", "/urls?"+query, nil); list.body["count"] != float64(want) {
			t.Errorf("%s: %s", query, list.raw)
		}
	}
	if a := b.want(400, RoleReader, "GET", "/urls?domain=no.example", nil); a.body["fields"] == nil {
		t.Errorf("a list of an unknown domain: %s", a.raw)
	}
	b.want(400, RoleReader, "GET", "/urls?format=csv&domain=no.example", nil)

	moved := b.want(200, RoleEditor, "PATCH", path, object{"domain": "bücher.example"})
	if moved.body["short_url"] != "https://xn--bcher-kva.example/a" {
		t.Errorf("moved to %s", moved.raw)
	}
	event := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?url_id=%d", custom.id()), nil).body["data"].([]any)[0].(map[string]any)
	details := event["details"].(map[string]any)
	change, _ := details["changes"].(map[string]any)["domain"].(map[string]any)
	if event["event_type"] != "updated" || details["domain"] != "xn--bcher-kva.example" || change["old"] != "go.example" || change["new"] != "xn--bcher-kva.example" {
		t.Errorf("the event of a move is %v", event)
	}
	a := b.want(409, RoleAdmin, "DELETE", "/domains/3", nil)
	if a.body["error"] != "the domain still has links" {
		t.Errorf("a domain with links: %s", a.raw)
	}
	b.want(204, RoleEditor, "DELETE", fmt.Sprintf("/urls/%d", drawn.id()), nil)
	b.want(204, RoleAdmin, "DELETE", "/domains/2", nil)
}
