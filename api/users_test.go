package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	created := b.want(201, RoleAdmin, "POST", "/users", object{"username": "ann", "email": "ann@example.com", "unknown": 1})
	path := fmt.Sprintf("/users/%d", created.id())
	if got := created.header.Get("Location"); got != path {
		t.Errorf("Location is %q, want %q", got, path)
	}
	got := b.want(200, RoleReader, "GET", path, nil)
	if string(got.raw) != string(created.raw) || got.body["username"] != "ann" || got.body["email"] != "ann@example.com" {
		t.Errorf("read %s, created %s", got.raw, created.raw)
	}
	b.want(200, RoleAdmin, "PATCH", path, object{"email": "ann@example.org"})
	put := b.want(200, RoleAdmin, "PUT", path, object{"username": "Anna"})
	if put.body["username"] != "Anna" || put.body["email"] != "ann@example.org" {
		t.Errorf("after two partial updates: %s", put.raw)
	}
	b.want(200, RoleAdmin, "PATCH", path, object{})
	b.want(200, RoleAdmin, "PATCH", path, object{"username": "Anna"})
	updates := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?user_id=%d", created.id()), nil).rows()
	details := updates[0]["details"].(map[string]any)
	if got := fmt.Sprint(details["changes"]); got != "map[username:map[new:Anna old:ann]]" {
		t.Errorf("changes are %s", got)
	}
	b.want(204, RoleAdmin, "DELETE", path, nil)
	for _, method := range []string{"GET", "DELETE"} {
		b.want(404, RoleAdmin, method, path, nil)
	}
	b.want(404, RoleAdmin, "PATCH", path, object{"username": "x"})

	events := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?user_id=%d", created.id()), nil).rows()
	wantTypes := []string{"deleted", "updated", "updated", "created"}
	if len(events) != len(wantTypes) {
		t.Fatalf("got %d events, want %v: %v", len(events), wantTypes, events)
	}
	for i, want := range wantTypes {
		if events[i]["event_type"] != want {
			t.Errorf("event %d is %v, want %s", i, events[i]["event_type"], want)
		}
	}
	// The event says that the user changed, but not who the user was.
	details = events[1]["details"].(map[string]any)
	if got := fmt.Sprint(details["changes"]); got != "map[username:map[new:<nil> old:<nil>]]" {
		t.Errorf("changes are %s", got)
	}
	b.wantCount(0, "SELECT count(*) FROM events WHERE details::text ~* 'anna?[^a-z]'")
	if by := details["by"].(map[string]any); by["name"] != "admin of the test" || by["token_id"] == nil {
		t.Errorf("the event was made by %v", by)
	}
}

func TestSearchUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO users (username, email) VALUES
		('Ann Smith', 'ann@example.com'), ('BOB', 'bob.smithson@example.org'), ('100% carla', 'carla_x@example.org'), ('100 dora', 'carlaxx@example.org'), ('Zoë', 'zoe@example.net')`)
	for search, want := range map[string][]any{
		"smith": {"Ann Smith", "BOB"}, "SMITH": {"Ann Smith", "BOB"}, "bob": {"BOB"}, "n smi": {"Ann Smith"}, "ann@example.com": {"Ann Smith"}, "zoË": {"Zoë"},
		"100%": {"100% carla"}, "rla_x": {"100% carla"}, "carla": {"100% carla", "100 dora"}, "example.org": {"BOB", "100% carla", "100 dora"}, "nobody": nil, "Ann Smithann": nil,
	} {
		got := []any(nil)
		for _, row := range b.want(200, RoleReader, "GET", "/users?search="+url.QueryEscape(search), nil).rows() {
			got = append(got, row["username"])
		}
		assert.Equal(t, want, got, search)
	}
	for search, says := range map[string]string{
		"ab": "must have at least three letters or digits in a row", "%%%": "must have at least three letters or digits in a row",
		strings.Repeat("x", service.MaxSearch+1): "must be at most 2048 characters", "abc\x00": "must be text in UTF-8 without NUL",
	} {
		for _, format := range []string{"", "&format=csv"} {
			a := b.want(400, RoleReader, "GET", "/users?search="+url.QueryEscape(search)+format, nil)
			assert.Equal(t, says, a.fields()["search"])
		}
	}
}

// However little of the list one query reads, and whether the index is used or not, a walk
// and a file have every user with a text once.
func TestSearchesOfUsersAreComplete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO users (username, email) SELECT CASE WHEN n IN (7, 8, 9, 41, 80) OR n > 90 THEN 'found' ELSE 'other' END || n, n || '@example.com' FROM generate_series(1, 100) n`)
	want := []int64{7, 8, 9, 41, 80}
	for id := int64(91); id <= 100; id++ {
		want = append(want, id)
	}
	usual := service.UsualReach()
	for name, reach := range map[string]service.Reach{
		"usual": usual,
		"found": {First: 1, Long: 10, Matches: 15, Timeout: time.Minute},
		"many":  {First: 1, Long: 10, Matches: 14, Timeout: time.Minute},
		"short": {First: 2, Long: 3, Matches: 1, Timeout: time.Minute},
	} {
		b.api.service.Reach = reach
		for _, limit := range []int{1, 4, len(want), 100} {
			assert.Equal(t, want, b.walk("/users?search=FOUND", limit), "%s, %d", name, limit)
		}
		assert.Empty(t, b.walk("/users?search=nobody", 10), name)
		assert.Len(t, b.walk("/users?search=example", 10), 100, name)
		file := b.want(200, RoleReader, "GET", "/users?search=found&format=csv", nil)
		assert.Equal(t, len(want)+1, lines(file.raw), "%s: %s", name, file.raw)
		page, err := b.try(RoleReader, "GET", "/users?search=found&page=3&per_page=5", nil)
		require.NoError(t, err)
		switch name {
		case "usual", "found":
			assert.Len(t, page.rows(), 5, name)
			assert.Nil(t, page.body["next_cursor"], name)
		default:
			assert.Equal(t, 400, page.status, name)
			assert.Contains(t, page.fields()["page"], "follow next_cursor", name)
		}
	}
	b.api.service.Reach = usual
	assert.Empty(t, b.want(200, RoleReader, "GET", "/users?search=found%0Afound", nil).rows(), "no text has a line end")
	assert.Contains(t, b.want(400, RoleReader, "GET", "/users?search=found&page=102&per_page=100", nil).fields()["page"], "follow next_cursor")
}

func TestUserConflicts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.user("ann"), b.user("bob")
	tests := []struct {
		method, path string
		body         object
		field        string
	}{
		{"POST", "/users", object{"username": "ANN", "email": "x@example.com"}, "username"},
		{"POST", "/users", object{"username": "x", "email": "Ann@Example.com"}, "email"},
		{"PATCH", fmt.Sprintf("/users/%d", bob), object{"username": "Ann"}, "username"},
		{"PUT", fmt.Sprintf("/users/%d", bob), object{"email": "ann@example.com"}, "email"},
	}
	for _, test := range tests {
		a := b.want(409, RoleAdmin, test.method, test.path, test.body)
		if got := a.fields(); len(got) != 1 || got[test.field] != "is taken" {
			t.Errorf("%s %s %v: fields %v", test.method, test.path, test.body, got)
		}
	}
	b.want(201, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com"})
	b.want(409, RoleAdmin, "DELETE", fmt.Sprintf("/users/%d", ann), nil)
	b.want(200, RoleReader, "GET", fmt.Sprintf("/users/%d", ann), nil)
}

func TestUserFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tests := []struct {
		body any
		want map[string]string
	}{
		{object{}, map[string]string{"username": "is required", "email": "is required"}},
		{object{"username": 1, "email": true}, map[string]string{"username": "must be a string", "email": "must be a string"}},
		{object{"username": nil, "email": "a@example.com"}, map[string]string{"username": "must not be null"}},
		{object{"username": " x", "email": "nonsense"}, map[string]string{
			"username": "must be 1 to 64 printable characters without spaces around them",
			"email":    "must be an e-mail address of at most 254 bytes, such as ann@example.com",
		}},
		{object{"username": "a\x00b", "email": 3}, map[string]string{
			"username": "must be 1 to 64 printable characters without spaces around them",
			"email":    "must be a string",
		}},
		{object{"username": []string{}}, map[string]string{"username": "must be a string", "email": "is required"}},
		{`[]`, map[string]string{}},
		{`null`, map[string]string{}},
		{`"x"`, map[string]string{}},
		{`{"username":`, map[string]string{}},
		{"{\"username\":\"\xff\"}", map[string]string{}},
		{``, map[string]string{}},
	}
	for _, test := range tests {
		a := b.want(400, RoleAdmin, "POST", "/users", test.body)
		if got := a.fields(); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%v: fields %v, want %v (%s)", test.body, got, test.want, a.raw)
		}
	}
}

// A user whose links were clicked millions of times is deleted as fast as any other:
// the worker does the events before the newest ones.
func TestDeletedUserWithManyClicks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user("owner")
	const click = "INSERT INTO events (occurred_at, event_type, url_id, user_id) SELECT now(), 'clicked', 7, $1 FROM generate_series(1, $2::int)"
	b.exec(click, id, 1000-1)
	b.want(204, RoleAdmin, "DELETE", fmt.Sprintf("/users/%d", id), nil)
	b.wantCount(1, "SELECT count(*) FROM events WHERE details ? 'email'")
	if n, err := queries.New(b.pool).ForgetDeletedUsers(t.Context(), 10); n != 1 || err != nil {
		t.Errorf("the worker changes %d events, %v", n, err)
	}
	b.wantCount(0, "SELECT count(*) FROM events WHERE details ? 'email'")
}

// Ids of imports beyond 2^51 do not move the sequences (csvimport.MaxSequenceID). When
// a sequence comes to them it passes them, whether holes between them are used or not.
func TestIDsThatImportsTookArePassed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.user("owner")
	const first, taken = csvimport.MaxSequenceID, 600
	for _, statement := range []string{
		`INSERT INTO users (id, username, email) SELECT $1::bigint + n, 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, $2::bigint + 1) n WHERE n <> $2`,
		`INSERT INTO urls (id, user_id, short_code, original_url)
		SELECT $1::bigint + n, (SELECT min(id) FROM users), 'code' || n, 'https://example.com' FROM generate_series(1, $2::bigint + 1) n WHERE n <> $2`,
	} {
		b.exec(statement, int64(first), int64(taken))
	}
	b.exec(`SELECT setval('users_id_seq', $1), setval('urls_id_seq', $1)`, int64(first))
	for i := range 40 {
		name := fmt.Sprintf("ann%d", i)
		user := b.want(201, RoleAdmin, "POST", "/users", object{"username": name, "email": name + "@example.com"})
		link := b.newLink(owner, "https://example.com", nil)
		for what, a := range map[string]answer{"user": user, "link": link} {
			want := float64(first + taken + i)
			if i > 0 {
				want++ // the one after the hole is taken
			}
			if a.body["id"] != want {
				t.Errorf("%s %d has the id %.0f, want %.0f", what, i, a.body["id"], want)
			}
		}
	}
}
