package worker

import (
	"context"
	"fmt"

	"github.com/signpost/signpost/queries"
)

// livePerLink bounds how many clicks of one link in one batch are shown live one by
// one: nobody can read more.
const livePerLink = 20

// showLive adds the clicks of a batch to those that listeners are shown.
func showLive(ctx context.Context, q *queries.Queries, events []event) error {
	rows := make([]queries.InsertLiveClicksParams, 0, len(events))
	last, shown := map[int64]int{}, map[int64]int{} // by link: the last row, and how many there are
	for i := range events {
		e := &events[i]
		if shown[e.urlID] == livePerLink {
			rows[last[e.urlID]].More++
			continue
		}
		shown[e.urlID]++
		last[e.urlID] = len(rows)
		rows = append(rows, queries.InsertLiveClicksParams{
			OccurredAt: e.time(), URLID: e.urlID, Kind: string(e.kind), Country: e.countryName(),
			ReferrerHost: named(e.host), Device: named(e.agent.Device), Trigger: named(storedTrigger(e.trigger)),
		})
	}
	if _, err := q.InsertLiveClicks(ctx, rows); err != nil {
		return fmt.Errorf("show clicks live: %w", err)
	}
	return nil
}

// countryName returns the country of a click, nil if it is not known.
func (e *event) countryName() *string {
	if e.country == [2]byte{} {
		return nil
	}
	return named(string(e.country[:]))
}

// named returns nil for "".
func named(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
