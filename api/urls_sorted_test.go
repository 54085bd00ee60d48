package api

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// Lists of links are sorted by each of their numbers, both ways, whatever the filters,
// and walked by cursor: each link comes once.
func TestSortedURLs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owners := []int64{b.user("ann"), b.user("bob")}
	type link struct {
		id, owner      int64
		tagged         bool
		clicks, people int64
		last           string
	}
	var all []link
	var clicks rollup.Changes
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for n := range int64(23) {
		l := link{owner: owners[n%2], tagged: n%3 == 0}
		body := object{}
		if l.tagged {
			body["tags"] = []string{"sale"}
		}
		l.id = b.newLink(l.owner, fmt.Sprintf("https://example.com/%d", n), body).id()
		for i := range n * 7 % 5 { // some have none, and some as many as others
			e := rollup.Event{URLID: l.id, UserID: l.owner, At: at.Add(time.Duration(n*11%7*100+i) * time.Hour), Kind: rollup.Person}
			if (n+i)%2 == 0 {
				e.Kind = "bot"
			} else {
				l.people++
			}
			l.clicks++
			l.last = max(l.last, e.At.Format(time.RFC3339))
			clicks.Add(e)
		}
		all = append(all, l)
	}
	require.NoError(t, clicks.Apply(t.Context(), queries.New(b.pool)))
	require.NoError(t, rollup.Fold(t.Context(), b.pool))
	require.NoError(t, rollup.AddUpTotals(t.Context(), b.pool))

	b.api.service.Reach.First, b.api.service.Reach.Apart = 3, 6 // so that many pages are not full
	number := map[string]func(a, b link) int{
		// A link that has clicks, none of them of people, comes after those without any.
		"people": func(a, b link) int {
			return cmp.Or(cmp.Compare(a.people, b.people), cmp.Compare(min(a.clicks, 1), min(b.clicks, 1)))
		},
		"clicks":          func(a, b link) int { return cmp.Compare(a.clicks, b.clicks) },
		"last_clicked_at": func(a, b link) int { return cmp.Compare(a.last, b.last) },
	}
	filters := map[string]func(link) bool{
		"":                                 func(link) bool { return true },
		fmt.Sprint("&user_id=", owners[0]): func(l link) bool { return l.owner == owners[0] },
		"&tag=sale":                        func(l link) bool { return l.tagged },
		"&search=example":                  func(link) bool { return true },
		"&is_active=false":                 func(link) bool { return false },
	}
	for by, compare := range number {
		for _, sign := range []string{"", "-"} {
			for filter, passes := range filters {
				want := slices.DeleteFunc(slices.Clone(all), func(l link) bool { return !passes(l) })
				slices.SortFunc(want, func(a, b link) int {
					order := cmp.Or(compare(a, b), cmp.Compare(a.id, b.id))
					if sign == "-" {
						return -order
					}
					return order
				})
				var wanted, got []int64
				for _, l := range want {
					wanted = append(wanted, l.id)
				}
				path := "/urls?limit=4&sort=" + sign + by + filter
				for next := any(""); next != nil; {
					page := b.want(200, RoleReader, "GET", path+"&cursor="+url.QueryEscape(next.(string)), nil)
					for _, row := range page.body["data"].([]any) {
						got = append(got, int64(row.(map[string]any)["id"].(float64)))
					}
					next = page.body["next_cursor"]
				}
				assert.Equal(t, wanted, got, path)
			}
		}
	}
	// The answer says of which time its order is.
	first := b.newLink(owners[0], "https://example.com/late", object{}).id()
	orderAsOf := func() (at time.Time, top int64) {
		page := b.want(200, RoleReader, "GET", "/urls?sort=-clicks&limit=1", nil)
		at, err := time.Parse(time.RFC3339, page.body["order_as_of"].(string))
		require.NoError(t, err)
		return at, int64(page.body["data"].([]any)[0].(map[string]any)["id"].(float64))
	}
	before, top := orderAsOf()
	assert.WithinDuration(t, time.Now(), before, time.Minute)
	assert.NotEqual(t, first, top)
	late := rollup.Changes{}
	for range 9 {
		late.Add(rollup.Event{URLID: first, UserID: owners[0], At: at, Kind: rollup.Person})
	}
	require.NoError(t, late.Apply(t.Context(), queries.New(b.pool)))
	require.NoError(t, rollup.Fold(t.Context(), b.pool))
	same, top := orderAsOf()
	assert.Equal(t, before, same, "totals are not brought up to date")
	assert.NotEqual(t, first, top)
	require.NoError(t, rollup.AddUpTotals(t.Context(), b.pool))
	after, top := orderAsOf()
	assert.True(t, after.After(before))
	assert.Equal(t, first, top)
	assert.NotContains(t, b.want(200, RoleReader, "GET", "/urls", nil).body, "order_as_of")

	for _, path := range []string{"?sort=title", "?sort=clicks&page=2", "?sort=clicks&order=newest", "?sort=clicks&format=csv", "?sort=clicks&cursor=" + makeCursor("urls", 3)} {
		b.want(400, RoleReader, "GET", "/urls"+path, nil)
	}
}
