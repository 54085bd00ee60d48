package web

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// A panel has the values with most of the clicks that it counts, and the rest of them, so
// that it adds up.
func TestPanelAddsUp(t *testing.T) {
	t.Parallel()
	rows := map[string][]service.BreakdownRow{"browsers": {{Value: "bots only", Counts: service.Counts{Clicks: 1000, Robots: 1000}}}}
	people := int64(0)
	for i := range int64(12) {
		rows["browsers"] = append(rows["browsers"], service.BreakdownRow{Value: fmt.Sprint("b", i), Counts: service.Counts{Clicks: 100, People: i, Robots: 100 - i}})
		people += i
	}
	r := &Request{Path: "/app/links/1", Query: Values{url.Values{"browser": {"b11"}}}}
	p := panelOf(titled{"Browsers", rollup.Browser}, rows, peopleOf, r)
	assert.Len(t, p.Rows, panelRows)
	sum := p.Rest
	for _, row := range p.Rows {
		sum += row.Count
	}
	assert.Equal(t, people, sum)
	assert.Equal(t, "b11", p.Rows[0].Value)
	assert.Equal(t, "/app/links/1", p.Rows[0].Href, "filters no longer")
	assert.Equal(t, "/app/links/1?browser=b10", p.Rows[1].Href)
	assert.InDelta(t, 10.0/11, p.Rows[1].Share, 1e-9)

	p = panelOf(titled{"Programs", rollup.Browser}, rows, robotsOf, nil)
	assert.Equal(t, "bots only", p.Rows[0].Value)
	assert.Empty(t, p.Rows[0].Href)

	rows["browsers"] = append(rows["browsers"], service.BreakdownRow{Value: other, Counts: service.Counts{Clicks: 500, People: 500}})
	p = panelOf(titled{"Browsers", rollup.Browser}, rows, peopleOf, r)
	assert.Equal(t, "b11", p.Rows[0].Value, "those that are not told apart are no value")
	assert.EqualValues(t, 500+1+2+3, p.Rest)

	rows["browsers"] = rows["browsers"][:3]
	p = panelOf(titled{"Browsers", rollup.Browser}, rows, peopleOf, nil)
	assert.Len(t, p.Rows, 1, "one value has a person")
	assert.Zero(t, p.Rest)
}
