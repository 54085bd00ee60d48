package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

// many makes links with the tags all and t1, t2 and so on, and returns the id of the first.
func (b *bundle) many(n int) int64 {
	b.t.Helper()
	ann := b.user("ann")
	b.exec(`INSERT INTO urls (user_id, short_code, original_url, tags)
		SELECT $1, 'many' || n, 'https://example.com/' || n, ARRAY['all', 't' || n] FROM generate_series(1, $2::int) n ORDER BY n`, ann, n)
	return b.count("SELECT min(id) FROM urls WHERE short_code LIKE 'many%'")
}

// bulk sends a request about many links, and returns its outcome.
func (b *bundle) bulk(method string, body object, header ...string) (out service.BulkOutcome) {
	b.t.Helper()
	require.NoError(b.t, json.Unmarshal(b.want(200, RoleEditor, method, "/urls/bulk", body, header...).raw, &out))
	return out
}

func TestChangeManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(1200)
	b.exec("UPDATE urls SET tags = tags || 'spring'::text WHERE id < $1", first+100)                                               // they have it already
	b.exec("UPDATE urls SET tags = ARRAY(SELECT 'x' || n FROM generate_series(1, 19) n) || 'all'::text WHERE id = $1", first+1000) // it can have no more
	all := object{"tag": "all"}

	dry := b.do(RoleEditor, "PATCH", "/urls/bulk?dry_run=true", object{"filter": all, "add_tags": []string{"spring"}})
	require.Equal(t, 200, dry.status, "%s", dry.raw)
	assert.Equal(t, 1200.0, dry.body["found"])
	assert.Equal(t, 1099.0, dry.body["changed"])
	assert.Equal(t, true, dry.body["dry_run"])
	assert.NotContains(t, dry.body, "undo")
	b.wantCount(100, "SELECT count(*) FROM urls WHERE tags @> '{spring}'")
	b.wantCount(0, "SELECT count(*) FROM events WHERE event_type = 'updated'")

	out := b.bulk("PATCH", object{"filter": all, "expected": 1200, "add_tags": []string{" spring ", "all"}})
	assert.Equal(t, []int{1200, 1099, 100, 1}, []int{out.Found, out.Changed, out.Unchanged, out.Failed})
	assert.Len(t, out.IDs, 1099)
	assert.Equal(t, []service.BulkFailure{{Field: "tags", Message: "must be at most 20 tags", IDs: []int64{first + 1000}}}, out.Failures)
	b.wantCount(1199, "SELECT count(*) FROM urls WHERE tags @> '{spring}'")
	b.wantCount(1099, "SELECT count(*) FROM events WHERE event_type = 'updated'")
	event := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?url_id=%d", first+500), nil).rows()[0]
	details := event["details"].(map[string]any)
	assert.Equal(t, object{"tags": object{"old": []any{"all", "t501"}, "new": []any{"all", "t501", "spring"}}}, asObject(details["changes"]))
	assert.Equal(t, "many501", details["short_code"])
	assert.Equal(t, b.count("SELECT user_id FROM urls WHERE id = $1", first), int64(event["user_id"].(float64)))

	// The change is taken back from those that were changed alone.
	require.Len(t, out.Undo, 1)
	text, err := json.Marshal(out.Undo[0])
	require.NoError(t, err)
	assert.Equal(t, 200, b.do(RoleEditor, "PATCH", "/urls/bulk", string(text)).status)
	b.wantCount(100, "SELECT count(*) FROM urls WHERE tags @> '{spring}'")
	b.wantCount(1200, "SELECT count(*) FROM urls WHERE tags @> '{all}'")

	// Two tags and a switch: each link gets back what it had.
	b.exec("UPDATE urls SET is_active = false WHERE id = $1", first+1)
	few := []int64{first, first + 1, first + 200, 1 << 40, first}
	out = b.bulk("PATCH", object{"ids": few, "add_tags": []string{"spring"}, "remove_tags": []string{"t1", "t2"}, "is_active": false})
	assert.Equal(t, []int{4, 3, 0, 1}, []int{out.Found, out.Changed, out.Unchanged, out.Failed})
	assert.Equal(t, []service.BulkFailure{{Message: "there is no such link", IDs: []int64{1 << 40}}}, out.Failures)
	assert.Len(t, out.Undo, 3)
	b.want(410, 0, "GET", "/many1", nil)
	for _, undo := range out.Undo {
		text, err := json.Marshal(undo)
		require.NoError(t, err)
		b.want(200, RoleEditor, "PATCH", "/urls/bulk", string(text))
	}
	b.want(302, 0, "GET", "/many1", nil)
	b.want(410, 0, "GET", "/many2", nil)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE id = $1 AND tags @> '{all,t1,spring}' AND is_active", first)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE id = $1 AND tags @> '{all,t2,spring}' AND NOT is_active", first+1)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE id = $1 AND tags = '{all,t201}' AND is_active", first+200)
}

func asObject(v any) object {
	m, _ := v.(map[string]any)
	out := object{}
	for name, value := range m {
		if inner, ok := value.(map[string]any); ok {
			value = object(inner)
		}
		out[name] = value
	}
	return out
}

func TestDeleteManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(600)
	b.want(302, 0, "GET", "/many7", nil) // it is in the cache
	dry := b.do(RoleEditor, "DELETE", "/urls/bulk?dry_run=true", object{"filter": object{"all": true}})
	require.Equal(t, 200, dry.status, "%s", dry.raw)
	assert.Equal(t, 600.0, dry.body["changed"])
	out := b.bulk("DELETE", object{"filter": object{"search": "example.com/7"}})
	assert.Equal(t, 11, out.Changed)
	assert.Empty(t, out.Undo)
	b.want(404, 0, "GET", "/many7", nil)
	b.wantCount(589, "SELECT count(*) FROM urls")
	b.wantCount(11, "SELECT count(*) FROM events WHERE event_type = 'deleted' AND NOT details ? 'changes'")
	out = b.bulk("DELETE", object{"ids": []int64{first + 6, first}})
	assert.Equal(t, []int{2, 1, 0, 1}, []int{out.Found, out.Changed, out.Unchanged, out.Failed})
	out = b.bulk("DELETE", object{"filter": object{"all": true}, "expected": 588})
	assert.Equal(t, 588, out.Changed)
	b.wantCount(0, "SELECT count(*) FROM urls")
	assert.Equal(t, 0, b.bulk("DELETE", object{"filter": object{"all": true}}).Found)
}

func TestFilterOfManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.many(30)
	bob := b.user("bob")
	domain := b.domain("go.example")
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": bob, "original_url": "https://example.com/x", "domain": "go.example"})
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": bob, "original_url": "https://example.com/x", "is_active": false})
	require.NotZero(t, domain.id())
	for _, c := range []struct {
		filter object
		found  int
	}{
		{object{"all": true}, 32},
		{object{"user_id": bob}, 2},
		{object{"user_id": bob, "domain": "go.example"}, 1},
		{object{"domain": "sign.example"}, 31},
		{object{"is_active": false}, 1},
		{object{"is_active": true, "tag": "all"}, 30},
		{object{"tag": "none"}, 0},
		{object{"search": "example.com/2"}, 11},
	} {
		a := b.want(200, RoleEditor, "DELETE", "/urls/bulk?dry_run=true", object{"filter": c.filter})
		assert.EqualValues(t, c.found, a.body["found"], "%v", c.filter)
	}
}

func TestBoundsOfManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(10_002)
	ids := make([]int64, 10_000)
	for i := range ids {
		ids[i] = first + int64(i)
	}
	out := b.bulk("PATCH", object{"ids": ids, "is_active": false, "add_tags": []string{"a", "b"}, "remove_tags": []string{"all"}})
	assert.Equal(t, 10_000, out.Changed)

	a := b.want(400, RoleEditor, "DELETE", "/urls/bulk", object{"filter": object{"all": true}})
	assert.Equal(t, "finds 10002 links, and a request changes at most 10000", a.fields()["filter"])
	assert.Contains(t, a.body["hint"], "narrow it")
	a = b.want(409, RoleEditor, "PATCH", "/urls/bulk", object{"filter": object{"tag": "all"}, "expected": 3, "is_active": false})
	assert.Equal(t, "is 3, and there are 2 such links now", a.fields()["expected"])

	for body, field := range map[string]string{
		`{}`:                                "ids",
		`{"ids":[]}`:                        "ids",
		`{"ids":[0]}`:                       "ids",
		`{"ids":["x"]}`:                     "ids",
		`{"ids":[1],"filter":{"all":true}}`: "ids",
		`{"filter":{}}`:                     "filter",
		`{"filter":{"all":false}}`:          "filter",
		`{"filter":{"all":true,"tag":"a"}}`: "filter.all",
		`{"filter":{"tga":"a"}}`:            "filter.tga",
		`{"filter":{"tag":"a","isactive":false}}`: "filter.isactive",
		`{"filter":{"tag":""}}`:                   "filter.tag",
		`{"filter":{"tag":"a\u0000"}}`:            "filter.tag",
		`{"filter":{"search":"ab"}}`:              "filter.search",
		`{"filter":{"user_id":0}}`:                "filter.user_id",
		`{"filter":{"domain":"x.example"}}`:       "domain",
		`{"ids":[1],"dry_run":true}`:              "dry_run",
		// null is none of the values that a filter may have, and not no filter.
		`{"filter":{"is_active":false,"user_id":null}}`: "filter.user_id",
		`{"filter":{"is_active":false,"domain":null}}`:  "filter.domain",
		`{"filter":{"is_active":false,"tag":null}}`:     "filter.tag",
		`{"filter":{"is_active":false,"search":null}}`:  "filter.search",
		`{"filter":{"user_id":1,"is_active":null}}`:     "filter.is_active",
		`{"filter":{"tag":"a","all":null}}`:             "filter.all",
		`{"filter":{"all":true},"expected":null}`:       "expected",
		`{"filter":{"all":true},"ids":null}`:            "ids",
	} {
		a := b.want(400, RoleEditor, "DELETE", "/urls/bulk", body)
		assert.Contains(t, a.fields(), field, body)
		body = strings.Replace(body, "{", `{"is_active":false,`, 1)
		a = b.want(400, RoleEditor, "PATCH", "/urls/bulk", strings.Replace(body, ",}", "}", 1))
		assert.Contains(t, a.fields(), field, body)
	}
	for body, field := range map[string]string{
		`{"ids":[1]}`:                                       "add_tags",
		`{"ids":[1],"add_tags":[]}`:                         "add_tags",
		`{"ids":[1],"add_tags":null}`:                       "add_tags",
		`{"ids":[1],"add_tags":["a,b"]}`:                    "add_tags",
		`{"ids":[1],"add_tags":"a"}`:                        "add_tags",
		`{"ids":[1],"remove_tags":["a "],"add_tags":["a"]}`: "remove_tags",
		`{"ids":[1],"is_active":"no"}`:                      "is_active",
		`{"ids":[1],"is_active":true,"title":"many"}`:       "title",
		`{"ids":[1],"is_active":true,"expected":-1}`:        "expected",
	} {
		a := b.want(400, RoleEditor, "PATCH", "/urls/bulk", body)
		assert.Contains(t, a.fields(), field, body)
	}
	assert.Contains(t, b.want(400, RoleEditor, "DELETE", "/urls/bulk?dryrun=true", object{"ids": ids[:1]}).fields(), "dryrun")
	for _, query := range []string{"dry_run=x", "dry_run", "dry_run=", "dry_run=false&dry_run=true", "dry_run=true&dry_run=true", "dry_run=t"} {
		assert.Contains(t, b.want(400, RoleEditor, "DELETE", "/urls/bulk?"+query, object{"ids": ids[:1]}).fields(), "dry_run", query)
	}
	b.wantCount(10_002, "SELECT count(*) FROM urls")
}

// Changes of others at the same time are neither lost nor overwritten.
func TestManyLinksAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.many(700)
	var together sync.WaitGroup
	for i := range 4 {
		together.Go(func() {
			// On a loaded machine one may wait too long for the others, and is sent again then.
			assert.Eventually(t, func() bool {
				a, err := b.try(RoleEditor, "PATCH", "/urls/bulk", object{"filter": object{"tag": "all"}, "add_tags": []string{fmt.Sprintf("by%d", i)}})
				assert.NoError(t, err)
				assert.Contains(t, []int{200, 503}, a.status, "%s", a.raw)
				return a.status == 200 && a.body["failed"] == 0.0
			}, time.Minute, 10*time.Millisecond)
		})
	}
	together.Wait()
	b.wantCount(700, "SELECT count(*) FROM urls WHERE tags @> '{by0,by1,by2,by3}'")
}

// A link that has left the filter when its turn comes is left alone.
func TestLinkThatLeavesTheFilter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(3)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // is over
	_, err = tx.Exec(t.Context(), "UPDATE urls SET tags = '{kept}' WHERE id = $1", first+1)
	require.NoError(t, err)
	answered := make(chan answer, 1)
	go func() {
		a, err := b.try(RoleEditor, "DELETE", "/urls/bulk", object{"filter": object{"tag": "all"}})
		assert.NoError(t, err)
		answered <- a
	}()
	b.until("the request waits", func() bool {
		return b.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
	})
	require.NoError(t, tx.Commit(t.Context()))
	a := <-answered
	require.Equal(t, 200, a.status, "%s", a.raw)
	assert.Equal(t, 2.0, a.body["changed"])
	assert.Equal(t, 2.0, a.body["found"])
	b.wantCount(1, "SELECT count(*) FROM urls WHERE id = $1", first+1)
}

// A request that runs out of time says which links it has not come to.
func TestManyLinksOutOfTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(700)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is to be kept
	_, err = tx.Exec(t.Context(), "SELECT FROM urls WHERE id = $1 FOR UPDATE", first+699)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	actor := service.Actor{Name: "test", Role: RoleEditor}
	change := service.BulkChange{IsActive: service.Optional[bool]{Sent: true}}
	all := service.Selection{Filter: &service.LinkList{}}
	once := &service.Once{OnceKey: service.OnceKey{Token: 1, Route: "PATCH /urls/bulk", Key: "in-two-parts"}}
	out, err := b.api.service.ChangeLinks(ctx, actor, all, change, false, once)
	require.NoError(t, err)
	assert.Equal(t, []int{700, 500, 0, 200}, []int{out.Found, out.Changed, out.Unchanged, out.Failed})
	require.Len(t, out.Failures, 1)
	assert.Len(t, out.Failures[0].IDs, 200)
	b.wantCount(500, "SELECT count(*) FROM urls WHERE NOT is_active")

	// The answer is not kept: the same request goes on.
	_, err = b.api.service.ChangeLinks(t.Context(), actor, all, change, false, once)
	require.ErrorContains(t, err, "another change holds")
	require.NoError(t, tx.Rollback(t.Context()))
	out, err = b.api.service.ChangeLinks(t.Context(), actor, all, change, false, once)
	require.NoError(t, err)
	assert.Equal(t, []int{700, 200, 500}, []int{out.Found, out.Changed, out.Unchanged})
	kept, err := b.api.service.Kept(t.Context(), once)
	require.NoError(t, err)
	assert.NotNil(t, kept)
}

// Requests that wait for links that somebody holds end soon, and those
// with the key of one that is under way do not do the work too.
func TestLinksThatAreHeld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(2)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is to be kept
	_, err = tx.Exec(t.Context(), "SELECT FROM urls WHERE id = $1 FOR UPDATE", first)
	require.NoError(t, err)
	var together sync.WaitGroup
	for range 3 {
		together.Go(func() {
			a, err := b.try(RoleEditor, "PATCH", "/urls/bulk", object{"ids": []int64{first, first + 1}, "is_active": false}, "Idempotency-Key", "held")
			assert.NoError(t, err)
			assert.Contains(t, []int{409, 503}, a.status, "%s", a.raw)
		})
	}
	together.Go(func() {
		a, err := b.try(RoleEditor, "DELETE", "/urls/bulk", object{"ids": []int64{first}})
		assert.NoError(t, err)
		assert.Equal(t, 503, a.status, "%s", a.raw)
	})
	b.until("a request waits", func() bool {
		return b.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
	})
	together.Wait()
	require.NoError(t, tx.Rollback(t.Context()))
	b.wantCount(0, "SELECT count(*) FROM idempotency_keys")
	assert.Equal(t, 2.0, b.want(200, RoleEditor, "PATCH", "/urls/bulk", object{"ids": []int64{first, first + 1}, "is_active": false}, "Idempotency-Key", "held").body["changed"])

	// A key whose process was killed is free after a minute.
	b.exec("UPDATE idempotency_keys SET status = NULL, location = NULL, body = NULL, kept_since = now()")
	b.want(409, RoleEditor, "PATCH", "/urls/bulk", object{"ids": []int64{first}, "is_active": true}, "Idempotency-Key", "held")
	b.exec("UPDATE idempotency_keys SET kept_since = now() - interval '2 minutes'")
	b.want(200, RoleEditor, "PATCH", "/urls/bulk", object{"ids": []int64{first}, "is_active": true}, "Idempotency-Key", "held")
}

// A request with a key is answered again as the first time, and so with all it takes to
// undo it.
func TestRepeatedRequestForManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.many(3)
	key := []string{"Idempotency-Key", "tag-them"}
	body := object{"filter": object{"all": true}, "add_tags": []string{"x"}}
	once := b.want(200, RoleEditor, "PATCH", "/urls/bulk", body, key...)
	again := b.want(200, RoleEditor, "PATCH", "/urls/bulk", body, key...)
	assert.Equal(t, 3.0, again.body["changed"])
	assert.JSONEq(t, string(once.raw), string(again.raw))
	assert.NotContains(t, again.header, "Location")
	b.wantCount(3, "SELECT count(*) FROM events WHERE event_type = 'updated'")
	b.want(200, RoleEditor, "PATCH", "/urls/bulk?dry_run=true", body, "Idempotency-Key", "only-tried")
	assert.Equal(t, 0.0, b.want(200, RoleEditor, "PATCH", "/urls/bulk", body, "Idempotency-Key", "only-tried").body["changed"])
	b.want(200, RoleEditor, "DELETE", "/urls/bulk", object{"filter": object{"all": true}}, key...)
	assert.Equal(t, 3.0, b.want(200, RoleEditor, "DELETE", "/urls/bulk", object{"filter": object{"all": true}}, key...).body["changed"])
}

func TestCreateManyLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.domain("go.example")
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "short_code": "taken"})
	b.want(404, 0, "GET", "/spring", nil) // which the cache remembers
	body := []object{
		{"user_id": ann, "original_url": "https://example.com/1", "short_code": "spring", "title": "One", "tags": []string{"a", "b"}, "expires_at": "2099-01-01T00:00:00Z", "redirect_status": 308, "forward_query": true, "is_active": true},
		{"user_id": ann, "original_url": "example.com/2"},
		{"user_id": ann, "original_url": "https://example.com/3", "short_code": "spring"},
		{"user_id": ann, "original_url": "https://example.com/4", "short_code": "taken"},
		{"user_id": ann, "original_url": "https://example.com/5", "short_code": "taken", "domain": "go.example"},
		{"user_id": 1 << 40, "original_url": "https://example.com/6"},
		{"user_id": "x"},
		{"user_id": ann, "original_url": "https://example.com/8", "domain": "no.example"},
		{"user_id": ann, "original_url": "https://example.com/9", "short_code": "app"},
		{"user_id": ann, "original_url": "https://example.com/10"},
	}
	faults := map[int][]string{1: {"original_url"}, 2: {"short_code"}, 3: {"short_code"}, 5: {"user_id"}, 6: {"user_id", "original_url"}, 7: {"domain"}, 8: {"short_code"}}
	check := func(a answer, dryRun bool) {
		t.Helper()
		assert.Equal(t, []any{dryRun, 3.0, 7.0}, []any{a.body["dry_run"], a.body["created"], a.body["failed"]}, "%s", a.raw)
		for i, row := range a.rows() {
			assert.EqualValues(t, i, row["index"])
			assert.Equal(t, faults[i] == nil && !dryRun, row["url"] != nil, "%d: %v", i, row)
			var names []string
			fields, _ := row["fields"].([]any)
			for _, f := range fields {
				names = append(names, f.(map[string]any)["field"].(string))
			}
			assert.Equal(t, faults[i], names, "%d: %v", i, row)
		}
	}
	check(b.want(200, RoleEditor, "POST", "/urls/bulk?dry_run=true", body), true)
	b.wantCount(1, "SELECT count(*) FROM urls")
	a := b.want(200, RoleEditor, "POST", "/urls/bulk", body, "Idempotency-Key", "paste")
	check(a, false)
	assert.Equal(t, string(a.raw), string(b.want(200, RoleEditor, "POST", "/urls/bulk", body, "Idempotency-Key", "paste").raw))
	b.wantCount(4, "SELECT count(*) FROM urls")
	b.wantCount(4, "SELECT count(*) FROM events WHERE event_type = 'created' AND url_id IS NOT NULL")
	b.want(308, 0, "GET", "/spring", nil)
	made := a.rows()[0]["url"].(map[string]any)
	assert.Equal(t, made, b.want(200, RoleReader, "GET", fmt.Sprintf("/urls/%.0f", made["id"]), nil).body)
	assert.Equal(t, "http://go.example/taken", strings.Replace(a.rows()[4]["url"].(map[string]any)["short_url"].(string), "https", "http", 1))

	for _, body := range []any{[]object{}, make([]object, 101), "null"} {
		a := b.want(400, RoleEditor, "POST", "/urls/bulk", body)
		assert.Equal(t, "the body must be a list of 1 to 100 links", a.body["error"])
	}
}
