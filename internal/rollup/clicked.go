package rollup

import (
	"context"
	"fmt"
	"slices"

	"github.com/signpost/signpost/queries"
)

// FindClicked returns those of the links that have clicks, with all that are committed.
// A link that waits to be counted again is taken to have some.
func FindClicked(ctx context.Context, q *queries.Queries, links []int64) ([]int64, error) {
	found, err := q.SumClicksOfLinks(ctx, links)
	if err != nil {
		return nil, fmt.Errorf("add up clicks: %w", err)
	}
	sums := make(map[int64]int64, len(links))
	for _, f := range found {
		if sums[f.URLID] += f.Clicks; f.Recount {
			sums[f.URLID]++
		}
		if f.Payload == nil {
			continue
		}
		entries, err := decodeDigest(nil, f.Payload)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			var change sides
			if err := e.addTo(&change); err != nil {
				return nil, err
			}
			sums[e.scope] += change.added.Totals().Clicks - change.removed.Totals().Clicks
		}
	}
	return slices.DeleteFunc(slices.Clone(links), func(id int64) bool { return sums[id] <= 0 }), nil
}
