package api

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// newLink makes a link and returns it.
func (b *bundle) newLink(user int64, target string, more object) answer {
	b.t.Helper()
	body := object{"user_id": user, "original_url": target}
	for name, value := range more {
		body[name] = value
	}
	return b.want(201, RoleEditor, "POST", "/urls", body)
}

func TestURLs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	created := b.newLink(ann, "https://example.com/a?b=c#d", object{
		"short_code": "Spring", "title": " Spring\nsale ", "tags": []string{"b", "a", "b"}, "expires_at": "2090-01-31T13:00:00+01:00",
		"redirect_status": 307, "forward_query": true, "clicks": 99, "unknown": object{},
	})
	path := fmt.Sprintf("/urls/%d", created.id())
	if got := created.header.Get("Location"); got != path {
		t.Errorf("Location is %q, want %q", got, path)
	}
	for field, want := range map[string]any{
		"user_id": float64(ann), "domain": "sign.example", "short_code": "Spring", "short_url": "https://sign.example/Spring",
		"original_url": "https://example.com/a?b=c#d", "title": "Spring sale", "tags": []any{"b", "a"}, "is_active": true,
		"expires_at": "2090-01-31T12:00:00Z", "redirect_status": 307.0, "forward_query": true, "clicks": 0.0, "people": 0.0, "last_clicked_at": nil, "imported_clicks": 0.0,
	} {
		if got := created.body[field]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if len(created.body) != 18 {
		t.Errorf("a link has %d fields: %s", len(created.body), created.raw)
	}
	if got := b.want(200, RoleReader, "GET", path, nil); string(got.raw) != string(created.raw) {
		t.Errorf("read %s, created %s", got.raw, created.raw)
	}

	var clicks rollup.Changes
	for i, kind := range []string{rollup.Person, "bot", rollup.Person} {
		clicks.Add(rollup.Event{URLID: created.id(), UserID: ann, At: time.Date(2026, 1, 1+i, 12, 0, 0, 0, time.UTC), Kind: kind})
		clicks.Add(rollup.Event{URLID: created.id() + 100, At: time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)})
	}
	require.NoError(t, clicks.Apply(t.Context(), queries.New(b.pool)))
	require.NoError(t, rollup.Fold(t.Context(), b.pool))
	clicked := b.want(200, RoleReader, "GET", path, nil)
	for field, want := range map[string]any{"clicks": 3.0, "people": 2.0, "last_clicked_at": "2026-01-03T12:00:00Z"} {
		if got := clicked.body[field]; got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	b.want(204, RoleEditor, "DELETE", path, nil)
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		b.want(404, RoleEditor, method, path, object{"title": "x"})
	}
	again := b.newLink(ann, "https://example.com", object{"short_code": "Spring"})
	if again.id() == created.id() || again.body["clicks"] != 0.0 {
		t.Errorf("the code was used again by %s", again.raw)
	}
}

func TestURLDefaults(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.newLink(b.user("ann"), "https://example.com", object{"short_code": nil, "title": "", "expires_at": nil})
	code, _ := a.body["short_code"].(string)
	if !regexp.MustCompile(`^[A-Za-z0-9]{7}$`).MatchString(code) {
		t.Errorf("the code that was drawn is %q", code)
	}
	for field, want := range map[string]any{
		"title": nil, "is_active": true, "expires_at": nil, "redirect_status": 302.0, "forward_query": false,
	} {
		if got, ok := a.body[field]; !ok || got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if tags, ok := a.body["tags"].([]any); !ok || len(tags) != 0 {
		t.Errorf("tags are %v, want []", a.body["tags"])
	}
}

func TestPartialUpdates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.user("ann"), b.user("bob")
	full := object{
		"short_code": "spring", "title": "Spring", "tags": []string{"a", "b"}, "expires_at": "2090-01-01T00:00:00Z",
		"redirect_status": 301, "forward_query": true,
	}
	link := b.newLink(ann, "https://example.com", full)
	path := fmt.Sprintf("/urls/%d", link.id())
	tests := []struct {
		name    string
		body    any
		changes string // the changes in the event, "" if there is no event
	}{
		{"nothing", object{}, ""},
		{"only unknown fields", object{"color": "red"}, ""},
		{"what it is already", object{"title": "Spring", "tags": []string{"a", "b", "a"}, "expires_at": "2090-01-01T01:00:00+01:00", "redirect_status": 301}, ""},
		{"title", object{"title": "Summer"}, "title:map[new:Summer old:Spring]"},
		{"null title", object{"title": nil}, "title:map[new:<nil> old:Summer]"},
		{"null title again", object{"title": ""}, ""},
		{"no tags", object{"tags": []string{}}, "tags:map[new:[] old:[a b]]"},
		{"deactivated", object{"is_active": false}, "is_active:map[new:false old:true]"},
		{"activated", object{"is_active": true}, "is_active:map[new:true old:false]"},
		{"in the past", object{"expires_at": "2020-01-01T00:00:00Z"}, "expires_at:map[new:2020-01-01T00:00:00Z old:2090-01-01T00:00:00Z]"},
		{"never", object{"expires_at": nil}, "expires_at:map[new:<nil> old:2020-01-01T00:00:00Z]"},
		{"status", object{"redirect_status": 308}, "redirect_status:map[new:308 old:301]"},
		{"query", object{"forward_query": false}, "forward_query:map[new:false old:true]"},
		{"owner", object{"user_id": bob}, fmt.Sprintf("user_id:map[new:%d old:%d]", bob, ann)},
		{
			"code and target",
			object{"short_code": "Fall", "original_url": "https://example.org/"},
			"original_url:map[new:https://example.org/ old:https://example.com] short_code:map[new:Fall old:spring]",
		},
	}
	events := fmt.Sprintf("/events?url_id=%d", link.id())
	want := 1
	for i, test := range tests {
		method := []string{"PATCH", "PUT"}[i%2]
		before := b.want(200, RoleReader, "GET", path, nil)
		after := b.want(200, RoleEditor, method, path, test.body)
		rows := b.want(200, RoleReader, "GET", events, nil).rows()
		if test.changes == "" {
			if len(rows) != want || string(before.raw) != string(after.raw) {
				t.Errorf("%s: %d events, want %d; %s became %s", test.name, len(rows), want, before.raw, after.raw)
			}
			continue
		}
		want++
		if len(rows) != want || rows[0]["event_type"] != "updated" {
			t.Fatalf("%s: events %v", test.name, rows)
		}
		details := rows[0]["details"].(map[string]any)
		if got := fmt.Sprint(details["changes"]); got != "map["+test.changes+"]" {
			t.Errorf("%s: changes %s, want %s", test.name, got, test.changes)
		}
		if details["short_code"] != after.body["short_code"] || details["entity"] != "url" || details["original_url"] != after.body["original_url"] {
			t.Errorf("%s: details %v", test.name, details)
		}
		for field := range before.body {
			changed := fmt.Sprint(before.body[field]) != fmt.Sprint(after.body[field])
			meant := strings.Contains(test.changes, field+":") || field == "updated_at" || field == "short_url"
			if changed && !meant {
				t.Errorf("%s: %s changed too, from %v to %v", test.name, field, before.body[field], after.body[field])
			}
		}
	}
}

func TestURLFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	path := fmt.Sprintf("/urls/%d", b.newLink(ann, "https://example.com", nil).id())
	target := "https://example.com"
	tests := []struct {
		name    string
		body    object
		want    []string // fields of POST
		updates bool     // PATCH accepts it
	}{
		{"all missing", object{}, []string{"user_id", "original_url"}, true},
		{
			"all wrong",
			object{
				"user_id": "x", "original_url": 1, "short_code": []int{}, "title": 1, "tags": "a", "is_active": "true",
				"expires_at": 1, "redirect_status": "302", "forward_query": 0,
			},
			[]string{"user_id", "original_url", "short_code", "title", "tags", "is_active", "expires_at", "redirect_status", "forward_query"},
			false,
		},
		{
			"all against a rule",
			object{
				"user_id": 0, "original_url": "ftp://example.com", "short_code": "a b", "title": "\u0000", "tags": []string{""},
				"expires_at": "2026-01-01", "redirect_status": 303,
			},
			[]string{"user_id", "original_url", "short_code", "title", "tags", "expires_at", "redirect_status"},
			false,
		},
		{
			"null",
			object{
				"user_id": nil, "original_url": nil, "tags": nil, "is_active": nil, "redirect_status": nil, "forward_query": nil,
			},
			[]string{"user_id", "original_url", "tags", "is_active", "redirect_status", "forward_query"},
			false,
		},
		{"unknown user", object{"user_id": 1 << 40, "original_url": target}, []string{"user_id"}, false},
		{"id beyond all", object{"user_id": 1e30, "original_url": target}, []string{"user_id"}, false},
		{"fraction", object{"user_id": 1.5, "original_url": target}, []string{"user_id"}, false},
		{"reserved code", object{"user_id": ann, "original_url": target, "short_code": "users/5"}, []string{"short_code"}, false},
		{"long code", object{"user_id": ann, "original_url": target, "short_code": strings.Repeat("é", 128)}, []string{"short_code"}, false},
		{"loose end", object{"user_id": ann, "original_url": target, "short_code": "spring."}, []string{"short_code"}, false},
		{"empty code", object{"user_id": ann, "original_url": target, "short_code": ""}, []string{"short_code"}, false},
		{"own link", object{"user_id": ann, "original_url": "https://SIGN.example/r/abc"}, []string{"original_url"}, false},
		{"script", object{"user_id": ann, "original_url": "javascript:alert(1)"}, []string{"original_url"}, false},
		{"no host", object{"user_id": ann, "original_url": "https:///x"}, []string{"original_url"}, false},
		{"credentials", object{"user_id": ann, "original_url": "https://a:b@example.com"}, []string{"original_url"}, false},
		{"long target", object{"user_id": ann, "original_url": target + "/" + strings.Repeat("a", links.MaxTarget)}, []string{"original_url"}, false},
		{"long title", object{"user_id": ann, "original_url": target, "title": strings.Repeat("ä", 256)}, []string{"title"}, false},
		{"expired at birth", object{"user_id": ann, "original_url": target, "expires_at": "2020-01-01T00:00:00Z"}, []string{"expires_at"}, true},
		{"year 10000", object{"user_id": ann, "original_url": target, "expires_at": "9999-12-31T23:59:59-23:00"}, []string{"expires_at"}, false},
		{"21 tags", object{"user_id": ann, "original_url": target, "tags": strings.Split("abcdefghijklmnopqrstu", "")}, []string{"tags"}, false},
		{"tag of a number", object{"user_id": ann, "original_url": target, "tags": []any{1}}, []string{"tags"}, false},
	}
	for _, test := range tests {
		a := b.want(400, RoleEditor, "POST", "/urls", test.body)
		got := a.fields()
		for _, field := range test.want {
			if got[field] == "" {
				t.Errorf("%s: nothing is said about %s: %s", test.name, field, a.raw)
			}
			delete(got, field)
		}
		if len(got) > 0 {
			t.Errorf("%s: also at fault is %v", test.name, got)
		}
		status := map[bool]int{true: 200, false: 400}[test.updates]
		b.want(status, RoleEditor, "PATCH", path, test.body)
	}
	long := "https://example.com/" + strings.Repeat("ä", (links.MaxTarget-20)/6)
	b.newLink(ann, long, object{"title": strings.Repeat("ä", 255), "short_code": strings.Repeat("a", links.MaxCode)})
}

func TestURLConflicts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.newLink(ann, "https://example.com", object{"short_code": "spring"})
	other := b.newLink(ann, "https://example.com", object{"short_code": "Spring"}) // codes are case-sensitive
	for _, a := range []answer{
		b.want(409, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com", "short_code": "spring"}),
		b.want(409, RoleEditor, "PATCH", fmt.Sprintf("/urls/%d", other.id()), object{"short_code": "spring"}),
	} {
		if got := a.fields(); len(got) != 1 || got["short_code"] != "is taken" {
			t.Errorf("fields are %v", got)
		}
	}
	a := b.want(400, RoleEditor, "PATCH", fmt.Sprintf("/urls/%d", other.id()), object{"user_id": 1 << 40})
	if a.fields()["user_id"] == "" {
		t.Errorf("an unknown owner: %s", a.raw)
	}
	// Requests that failed have left no event.
	if rows := b.want(200, RoleReader, "GET", "/events?event_type=updated", nil).rows(); len(rows) != 0 {
		t.Errorf("events of updates that failed: %v", rows)
	}
}

func TestSameCodeAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	const writers = 16
	statuses := make([]int, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			a, err := b.try(RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com", "short_code": "race"})
			assert.NoError(t, err)
			statuses[i] = a.status
		})
	}
	wg.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	if count[http.StatusCreated] != 1 || count[http.StatusConflict] != writers-1 {
		t.Errorf("answers by status: %v, want one 201 and %d 409", count, writers-1)
	}
	// One event for the user, one for the link.
	if rows := b.want(200, RoleReader, "GET", "/events?event_type=created", nil).rows(); len(rows) != 2 {
		t.Errorf("%d created events, want 2: %v", len(rows), rows)
	}
}

// Concurrent updates and a deletion of one link end in one order: every answer has its
// event.
func TestUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := b.newLink(b.user("ann"), "https://example.com", object{"title": "0"})
	path := fmt.Sprintf("/urls/%d", link.id())
	var mu sync.Mutex
	count := map[string]int{}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			method, body := "PATCH", any(object{"title": fmt.Sprint(i + 1)})
			if i%8 == 7 {
				method, body = "DELETE", nil
			}
			a, err := b.try(RoleEditor, method, path, body)
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			count[fmt.Sprint(method, a.status)]++
		})
	}
	wg.Wait()
	if count["DELETE204"] != 1 || count["DELETE204"]+count["DELETE404"]+count["PATCH200"]+count["PATCH404"] != 24 {
		t.Errorf("answers: %v", count)
	}
	rows := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?limit=100&url_id=%d", link.id()), nil).rows()
	if len(rows) != 2+count["PATCH200"] || rows[0]["event_type"] != "deleted" {
		t.Fatalf("answers %v, events %v", count, rows)
	}
	// Each update starts from the state that the one before it left.
	last := "0"
	for i := len(rows) - 2; i > 0; i-- {
		change := rows[i]["details"].(map[string]any)["changes"].(map[string]any)["title"].(map[string]any)
		if change["old"] != last {
			t.Errorf("an update changed %v, the one before it left %s", change, last)
		}
		last = change["new"].(string)
	}
}

func TestURLFilters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.user("ann"), b.user("bob")
	b.newLink(ann, "https://example.com/100%25_off", object{"short_code": "one", "title": "A 100%_sale\\", "tags": []string{"a", "b"}})
	b.newLink(ann, "https://example.com/plain", object{"short_code": "two", "title": "Fünf", "is_active": false})
	b.newLink(bob, "https://example.org/PLAIN", object{"short_code": "three", "tags": []string{"A"}})
	for query, want := range map[string]string{
		"":                                 "three two one",
		"?order=newest":                    "three two one",
		"?order=oldest":                    "one two three",
		"?user_id=" + fmt.Sprint(ann):      "two one",
		"?user_id=999":                     "",
		"?is_active=true":                  "three one",
		"?is_active=false":                 "two",
		"?is_active=0":                     "two",
		"?tag=a":                           "one",
		"?tag=A":                           "three",
		"?tag=nothing":                     "",
		"?search=plain":                    "three two",
		"?search=plain&order=oldest":       "two three",
		"?search=100%25_":                  "one",
		"?search=%25_sale%5C":              "one",
		"?search=f%C3%BCNF":                "two",
		"?search=nothing+such":             "",
		"?search=example.org&user_id=1":    "",
		"?search=plain&is_active=true":     "three",
		"?is_active=":                      "three two one",
		"?search=&tag=":                    "three two one",
		"?unknown=1":                       "three two one",
		"?tag=a&user_id=1&is_active=true":  "one",
		"?tag=a&user_id=1&is_active=false": "",
	} {
		a := b.want(200, RoleReader, "GET", "/urls"+query, nil)
		var codes []string
		for _, row := range a.rows() {
			codes = append(codes, row["short_code"].(string))
		}
		if got := strings.Join(codes, " "); got != want {
			t.Errorf("GET /urls%s: %q, want %q", query, got, want)
		}
	}
	// The index of texts does not find shorter texts, so all links would have to be
	// read.
	for _, search := range []string{"z", "qu", "~~", "%25", "_", "a-b", "C%2B%2B", "ab+cd", "%E6%9D%B1%E4%BA%AC"} {
		a := b.want(400, RoleReader, "GET", "/urls?search="+search, nil)
		if a.fields()["search"] != "must have at least three letters or digits in a row" {
			t.Errorf("search=%s: %s", search, a.raw)
		}
	}
	for _, search := range []string{"%E6%9D%B1%E4%BA%AC%E9%83%BD", "+a1b+", "cafe%CC%81"} {
		b.want(200, RoleReader, "GET", "/urls?search="+search, nil)
	}
}

func TestDrawnCodesThatAreTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	// Every code of up to 8 characters is taken: the fifth draw has 9.
	b.exec(`CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			RAISE EXCEPTION 'taken' USING ERRCODE = 'unique_violation', CONSTRAINT = 'urls_short_code_key';
		END $$;
		CREATE TRIGGER taken BEFORE INSERT ON urls FOR EACH ROW WHEN (char_length(NEW.short_code) <= 8) EXECUTE FUNCTION taken()`)
	a := b.newLink(ann, "https://example.com", nil)
	if code := a.body["short_code"].(string); len(code) != 9 {
		t.Errorf("the code is %q, want 9 characters", code)
	}
	b.exec(`DROP TRIGGER taken ON urls; CREATE TRIGGER taken BEFORE INSERT ON urls FOR EACH ROW EXECUTE FUNCTION taken()`)
	b.want(503, RoleEditor, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com"})
}

// If an import gave a link the id that the sequence would have drawn next, that only
// costs another draw.
func TestIDTakenByImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.exec(`
		INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, $1, 'imported', 'https://example.com')`, ann)
	if id := b.newLink(ann, "https://example.com", nil).id(); id != 2 {
		t.Errorf("the new link has id %d, want 2", id)
	}
}

// A change in a month whose partition no worker has made is not lost.
func TestMissingPartition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rows, err := b.pool.Query(t.Context(), `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass`)
	require.NoError(t, err)
	var names []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	if len(names) == 0 {
		t.Fatal("events has no partitions to begin with")
	}
	b.exec("DROP TABLE " + strings.Join(names, ", "))
	before := time.Now()
	id := b.user("ann")
	events := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?user_id=%d&from=%s", id, before.Add(-time.Hour).UTC().Format(time.RFC3339)), nil)
	if len(events.rows()) != 1 {
		t.Errorf("events: %s", events.raw)
	}
}

// Text that was stored before the rule existed stays, and can be changed.
func TestTextDirectionIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.user("ann")
	link := b.newLink(user, "https://example.com", nil)
	path := fmt.Sprintf("/urls/%v", link.body["id"])
	for field, value := range map[string]any{"title": "gpj\u202eexe", "tags": []string{"good", "\u2066bad"}} {
		for _, a := range []answer{
			b.want(400, RoleEditor, "PATCH", path, object{field: value}),
			b.want(400, RoleEditor, "POST", "/urls", object{"user_id": user, "original_url": "https://example.com", field: value}),
		} {
			if !strings.Contains(string(a.raw), `"field":"`+field+`"`) {
				t.Errorf("%s", a.raw)
			}
		}
	}
	b.want(400, RoleAdmin, "POST", "/users", object{"username": "a\u200enn", "email": "x@example.com"})
	b.exec("UPDATE urls SET title = $1", "gpj\u202eexe")
	if a := b.want(200, RoleEditor, "PATCH", path, object{"redirect_status": 301}); a.body["title"] != "gpj\u202eexe" {
		t.Errorf("an older title became %q", a.body["title"])
	}
}

// A link is found by its code and domain.
func TestURLOfCode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, _ := b.insertLink(testLink{code: "café", target: "https://example.com/"})
	b.insertLink(testLink{code: "other", target: "https://example.com/"})
	b.exec("INSERT INTO domains (id, host) OVERRIDING SYSTEM VALUE VALUES (5, 'go.example')")
	b.exec(`INSERT INTO urls (user_id, domain_id, short_code, original_url) SELECT user_id, 5, 'other', original_url FROM urls WHERE id = $1`, id)
	for query, want := range map[string]string{
		"short_code=caf%C3%A9": "https://sign.example/caf%C3%A9", "short_code=cafe%CC%81": "https://sign.example/caf%C3%A9",
		"short_code=other&domain=sign.example": "https://sign.example/other", "short_code=other&domain=go.example": "https://go.example/other",
		"short_code=Other": "", "short_code=caf%C3%A9&domain=go.example": "",
	} {
		a := b.want(200, RoleReader, "GET", "/urls?"+query, nil)
		got := ""
		for _, row := range a.rows() {
			got += row["short_url"].(string)
		}
		if got != want || a.body["next_cursor"] != nil {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	for _, query := range []string{"tag=x", "user_id=1", "is_active=true", "search=abc", "sort=clicks", "page=1", "format=csv"} {
		if a := b.want(400, RoleReader, "GET", "/urls?short_code=other&"+query, nil); a.fields()["short_code"] == "" {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
}
