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
	for _, id := range links {
		sums[id] = 0
	}
	for _, f := range found {
		if f.Payload != nil {
			if err := addWaiting(sums, f.Payload); err != nil {
				return nil, err
			}
			continue
		}
		if sums[f.URLID] += f.Clicks; f.Recount {
			sums[f.URLID]++
		}
	}
	return slices.DeleteFunc(slices.Clone(links), func(id int64) bool { return sums[id] <= 0 }), nil
}

// addWaiting adds the changes of those links that are in sums already.
func addWaiting(sums map[int64]int64, digest []byte) error {
	entries, err := decodeDigest(nil, digest)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, asked := sums[e.scope]; !asked {
			continue
		}
		var change sides
		if err := e.addTo(&change); err != nil {
			return err
		}
		sums[e.scope] += change.added.Totals().Clicks - change.removed.Totals().Clicks
	}
	return nil
}
