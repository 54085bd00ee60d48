package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

// tagsOf returns the tags of a list as name, color and number of links.
func tagsOf(a answer) (tags []string) {
	for _, row := range a.rows() {
		tags = append(tags, strings.TrimSpace(fmt.Sprint(row["name"], " ", row["links"], " ", row["color"])))
	}
	return tags
}

func TestTags(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	link := func(tags ...string) int64 {
		return b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "tags": tags}).id()
	}
	both := link("sale", "offer", "a/b")
	sale := link("sale")
	link("Sale", "ä")
	list := func(query string) []string { return tagsOf(b.want(200, RoleReader, "GET", "/tags"+query, nil)) }
	assert.Equal(t, []string{"Sale 1", "a/b 1", "offer 1", "sale 2", "ä 1"}, list(""))
	assert.Equal(t, []string{"sale 2"}, list("?prefix=sa"))
	first := b.want(200, RoleReader, "GET", "/tags?limit=3", nil)
	assert.Equal(t, []string{"Sale 1", "a/b 1", "offer 1"}, tagsOf(first))
	rest := b.want(200, RoleReader, "GET", "/tags?limit=3&cursor="+first.body["next_cursor"].(string), nil)
	assert.Equal(t, []string{"sale 2", "ä 1"}, tagsOf(rest))
	assert.Nil(t, rest.body["next_cursor"])
	assert.Equal(t, []string{"offer 1", "sale 2"}, list("?page=2&per_page=2"))
	b.want(400, RoleReader, "GET", "/tags?cursor=x", nil)
	b.want(400, RoleReader, "GET", "/tags?page=102&per_page=100", nil)
	assert.Empty(t, list("?page=101&per_page=100"))
	b.want(400, RoleReader, "GET", "/tags?prefix="+strings.Repeat("x", 51), nil)

	// A color stays when the last link is gone.
	change := func(status int, name string, fields object) answer {
		return b.want(status, RoleEditor, "PATCH", "/tags/"+url.PathEscape(name), fields)
	}
	assert.Equal(t, "green", change(200, "a/b", object{"color": "green"}).body["color"])
	assert.Equal(t, []string{"a/b 1 green"}, list("?prefix=a"))
	b.want(200, RoleEditor, "PATCH", service.Link{ID: both}.Path(), object{"tags": []string{"offer", "sale"}})
	assert.Equal(t, []string{"a/b 0 green"}, list("?prefix=a"))
	change(200, "a/b", object{"color": ""})
	assert.Empty(t, list("?prefix=a"))
	change(404, "a/b", object{"color": "green"})
	b.want(404, RoleReader, "GET", "/tags/%ff", nil)
	for fields, field := range map[string]string{`{"color": "mauve"}`: "color", `{"name": "a,b"}`: "name", `{"name": ""}`: "name", `{"merge": 1}`: "merge"} {
		a := b.want(400, RoleEditor, "PATCH", "/tags/sale", fields)
		assert.NotEmpty(t, a.fields()[field], fields)
	}

	// Renaming onto another tag is merging, and has to be said.
	change(200, "sale", object{"color": "red"})
	a := change(409, "sale", object{"name": "offer"})
	assert.Equal(t, "is a tag already, with 1 link", a.fields()["name"])
	assert.Equal(t, "red", change(200, "sale", object{"name": "offer", "merge": true}).body["color"], "it had none")
	assert.Equal(t, []string{"Sale 1", "offer 2 red", "ä 1"}, list(""))
	tags := func(id int64) any {
		return b.want(200, RoleReader, "GET", service.Link{ID: id}.Path(), nil).body["tags"]
	}
	assert.Equal(t, []any{"offer"}, tags(both))
	assert.Equal(t, []any{"offer"}, tags(sale))
	got := change(200, "offer", object{"name": " deal "})
	assert.Equal(t, "deal", got.body["name"])
	assert.Equal(t, 2.0, got.body["links"])

	// Each link has an event like those of other changes.
	events := b.want(200, RoleReader, "GET", fmt.Sprintf("/events?event_type=changed&url_id=%d", sale), nil).rows()
	require.Len(t, events, 3)
	assert.Equal(t, "updated", events[0]["event_type"])
	assert.Equal(t, float64(ann), events[0]["user_id"])
	details := events[0]["details"].(map[string]any)
	assert.Equal(t, map[string]any{"tags": map[string]any{"old": []any{"offer"}, "new": []any{"deal"}}}, details["changes"])
	assert.Equal(t, "url", details["entity"])
	assert.Equal(t, "https://example.com/", details["original_url"])
	assert.Equal(t, "editor of the test", details["by"].(map[string]any)["name"])
	assert.NotContains(t, details, "domain")

	b.want(204, RoleEditor, "DELETE", "/tags/deal", nil)
	assert.Equal(t, []any{}, tags(sale))
	assert.Equal(t, []string{"Sale 1", "ä 1"}, list(""))
	b.want(404, RoleEditor, "DELETE", "/tags/deal", nil)
	b.want(403, RoleReader, "DELETE", "/tags/Sale", nil)
	b.want(403, RoleReader, "PATCH", "/tags/Sale", object{"color": "red"})

	// A color that is asked for is that of the tag that the links get.
	change(200, "Sale", object{"color": "red"})
	change(200, "ä", object{"color": "blue"})
	assert.Equal(t, "red", change(200, "Sale", object{"name": "ä", "merge": true, "color": "red"}).body["color"])
}

// The numbers of tags are those that counting would give, whoever writes links and however
// far the changes have been added up.
func TestNumbersOfTagsAreTrue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		switch random.IntN(5) {
		case 0, 1:
			b.exec(`INSERT INTO urls (user_id, short_code, original_url, tags)
				SELECT $1, 'c' || $2::int || '-' || n, 'https://example.com/', (ARRAY['{}', '{a}', '{a,b}', '{c,b}'])[1 + n % 4]::text[] FROM generate_series(1, 7) n`, ann, random.IntN(1<<30))
		case 2:
			b.exec(`UPDATE urls SET tags = CASE id % 3 WHEN 0 THEN '{b,c}' WHEN 1 THEN tags ELSE '{}' END::text[] WHERE id % 5 = $1`, random.IntN(5))
		case 3:
			b.exec(`DELETE FROM urls WHERE id % 7 = $1`, random.IntN(7))
		case 4:
			require.NoError(t, b.api.service.MoveTags(t.Context()))
		}
		var want []string
		rows, err := b.pool.Query(t.Context(), `SELECT t || ' ' || count(*) FROM urls, unnest(tags) t GROUP BY t ORDER BY t COLLATE "C"`)
		require.NoError(t, err)
		for rows.Next() {
			var row string
			require.NoError(t, rows.Scan(&row))
			want = append(want, row)
		}
		require.NoError(t, rows.Err())
		require.Equal(t, want, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))
	}
}

// A move that a request could not finish is told until workers have finished it, also for
// links that get the tag meanwhile.
func TestMoveOfATagGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.exec(`INSERT INTO urls (user_id, short_code, original_url, tags)
		SELECT $1, 'c' || n, 'https://example.com/', CASE WHEN n % 2 = 0 THEN '{x,old,y}' ELSE '{new,old}' END::text[] FROM generate_series(1, 1200) n`, ann)
	b.exec(`INSERT INTO tag_moves (name, target, actor, at_id) VALUES ('old', 'new', '{"token_id": null, "name": "somebody"}', 600)`)
	assert.Equal(t, "new", b.want(200, RoleReader, "GET", "/tags/old", nil).body["becomes"])
	for _, other := range []object{{"name": "new", "merge": true}, {"name": "third"}} {
		assert.Contains(t, b.want(409, RoleEditor, "PATCH", "/tags/old", other).body["error"], "just becoming new")
	}
	b.want(409, RoleEditor, "DELETE", "/tags/new", nil)
	b.want(409, RoleEditor, "PATCH", "/tags/x", object{"name": "old", "merge": true})
	require.NoError(t, b.api.service.MoveTags(t.Context()))
	b.want(404, RoleReader, "GET", "/tags/old", nil)
	assert.Equal(t, []string{"new 1200", "x 600", "y 600"}, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))
	var wrong, events int
	require.NoError(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM urls WHERE tags <> '{x,new,y}' AND tags <> '{new}'`).Scan(&wrong))
	require.NoError(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE event_type = 'updated' AND details #>> '{by,name}' = 'somebody'`).Scan(&events))
	assert.Zero(t, wrong)
	assert.Equal(t, 1200, events)

	// Many requests at once end in one state, and nothing is moved twice.
	assert.Equal(t, 200, b.do(RoleEditor, "PATCH", "/tags/x", object{"name": "z"}).status)
	done := make(chan int, 4)
	for range 4 {
		go func() { done <- b.do(RoleEditor, "PATCH", "/tags/y", object{"name": "z", "merge": true}).status }()
	}
	for range 4 {
		assert.Contains(t, []int{200, 404, 409}, <-done)
	}
	require.NoError(t, b.api.service.MoveTags(t.Context()))
	assert.Equal(t, []string{"new 1200", "z 600"}, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))
	require.NoError(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE event_type = 'updated' AND details ->> 'entity' = 'url'`).Scan(&events))
	assert.Equal(t, 2400, events)
}

// holding runs statements in a transaction that lasts until release, or the end of the test.
func (b *bundle) holding(statements ...string) (release func()) {
	tx, err := b.pool.Begin(b.t.Context())
	require.NoError(b.t, err)
	for _, sql := range statements {
		_, err := tx.Exec(b.t.Context(), sql)
		require.NoError(b.t, err)
	}
	release = func() { _ = tx.Rollback(context.Background()) }
	b.t.Cleanup(release)
	return release
}

// untilOneWaits returns when a transaction waits for a lock.
func (b *bundle) untilOneWaits() {
	require.Eventually(b.t, func() bool {
		return b.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
	}, 10*time.Second, 5*time.Millisecond)
}

// A link that somebody holds stops the move of its tag only: the request is answered, and
// workers go on with other moves and add the numbers up.
func TestMoveOfATagThatIsHeldUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO urls (user_id, short_code, original_url, tags)
		SELECT $1, 'c' || n, 'https://example.com/', CASE n WHEN 1 THEN '{sale}' WHEN 2 THEN '{x}' ELSE '{}' END::text[] FROM generate_series(1, 3) n`, b.user("ann"))
	release := b.holding("SELECT FROM urls WHERE tags = '{sale}' FOR UPDATE")
	assert.Equal(t, "offer", b.want(202, RoleEditor, "PATCH", "/tags/sale", object{"name": "offer"}).body["becomes"])
	b.exec(`INSERT INTO tag_moves (name, target, actor, started_at) VALUES ('x', 'y', '{"name": "somebody"}', now() + interval '1 minute')`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.Error(t, b.api.service.MoveTags(ctx))
	assert.Equal(t, []string{"sale 1", "y 1"}, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))
	assert.Zero(t, b.count("SELECT count(*) FROM tag_changes"))
	release()
	require.NoError(t, b.api.service.MoveTags(t.Context()))
	assert.Equal(t, []string{"offer 1", "y 1"}, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))
}

// A move does not end while a link has the tag that got it after the links were looked for.
func TestMoveOfATagSeesTheLastLink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.exec(`INSERT INTO tag_moves (name, target, actor) VALUES ('sale', 'offer', '{"name": "somebody"}')`)
	release := b.holding("SELECT FROM tag_moves FOR UPDATE")
	moved := make(chan error, 1)
	go func() { moved <- b.api.service.MoveTags(t.Context()) }()
	b.untilOneWaits()
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "tags": []string{"sale"}})
	release()
	require.NoError(t, <-moved)
	assert.Equal(t, []string{"offer 1"}, tagsOf(b.want(200, RoleReader, "GET", "/tags", nil)))

	// More changes than are added up at once are added up all the same, also of one tag.
	b.exec(`INSERT INTO tag_changes (name, links) SELECT 'many', 1 FROM generate_series(1, 60000)`)
	require.NoError(t, b.api.service.MoveTags(t.Context()))
	b.wantCount(0, "SELECT count(*) FROM tag_changes")
	b.wantCount(60000, "SELECT links FROM tags WHERE name = 'many'")

	// A number that is wrong, for example after a TRUNCATE, does not make it endless.
	b.exec(`INSERT INTO tags (name, links) VALUES ('gone', 3)`)
	b.want(200, RoleEditor, "PATCH", "/tags/gone", object{"name": "lost"})
}

// Requests for one tag take turns: a tag that has come meanwhile is not merged unasked.
func TestRenamesOfTagsTakeTurns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	link := func(tag string) {
		b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "tags": []string{tag}})
	}
	link("z")
	release := b.holding("LOCK TABLE tag_moves IN SHARE ROW EXCLUSIVE MODE")
	answered := make(chan answer, 1)
	go func() { answered <- b.do(RoleEditor, "PATCH", "/tags/z", object{"name": "a"}) }()
	b.untilOneWaits()
	link("a")
	release()
	assert.Equal(t, 409, (<-answered).status)

	// They take tags in the order of names, as adding up does.
	b.exec(`INSERT INTO tags (name, color) VALUES ('a', 'red'), ('z', 'red')`)
	release = b.holding("SELECT FROM tags WHERE name = 'a' FOR UPDATE")
	go func() {
		answered <- b.do(RoleEditor, "PATCH", "/tags/z", object{"name": "a", "merge": true, "color": "blue"})
	}()
	b.untilOneWaits()
	b.exec("SELECT FROM tags WHERE name = 'z' FOR UPDATE NOWAIT")
	release()
	assert.Equal(t, "blue", (<-answered).body["color"])
}
