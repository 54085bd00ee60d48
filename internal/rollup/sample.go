package rollup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/queries"
)

const (
	sampledDays  = 5
	sampledLinks = 50
	mostWaiting  = 100_000 // clicks, and link-days
)

// CheckSample compares a sample of the statistics with the events: the busiest links of
// yesterday, all rows of that day that are not of links, and some links of some days. Rows that
// differ are then counted again.
//
// It does nothing while much waits to be merged or to be counted again, all of which it
// would have to hold in memory.
func CheckSample(ctx context.Context, pool *pgxpool.Pool, now time.Time) (found Comparison, err error) {
	waiting, err := queries.New(pool).RollupFigures(ctx)
	if err != nil {
		return Comparison{}, fmt.Errorf("look what waits: %w", err)
	}
	if waiting.Clicks > mostWaiting || waiting.Recounts > mostWaiting {
		return Comparison{}, nil
	}
	err = inSnapshot(ctx, pool, func(tx pgx.Tx) error {
		v, err := newChecker(ctx, tx)
		if err != nil {
			return err
		}
		yesterday := dayNumber(now) - 1
		busiest, err := v.q.ListBusiestLinks(ctx, dateOf(yesterday), sampledLinks)
		if err != nil {
			return fmt.Errorf("list busiest links: %w", err)
		}
		if err := v.links(ctx, yesterday, busiest); err != nil {
			return err
		}
		if err := v.all(ctx, yesterday); err != nil {
			return err
		}
		scopes, err := v.q.ListRollupsOfDay(ctx, dateOf(yesterday))
		if err != nil {
			return fmt.Errorf("list scopes: %w", err)
		}
		if err := v.others(ctx, yesterday, scopes); err != nil {
			return err
		}
		if err := v.sample(ctx); err != nil {
			return err
		}
		found = v.found
		return nil
	})
	if err != nil {
		return Comparison{}, fmt.Errorf("compare statistics with events: %w", err)
	}
	if len(found.differ) == 0 {
		return found, nil
	}
	again := slices.DeleteFunc(slices.Clone(found.differ), func(k key) bool { return k.scope <= 0 })
	for _, k := range found.differ { // all other rows of the day, after those of links
		again = append(again, key{All, k.day})
	}
	return found, addRecounts(ctx, queries.New(pool), again...)
}

// sample compares rows of some links on some days.
func (v *checker) sample(ctx context.Context) error {
	days, err := v.q.ListDaysOfRollups(ctx)
	if err != nil {
		return fmt.Errorf("list days: %w", err)
	}
	for range min(sampledDays, len(days)) {
		date := days[rand.IntN(len(days))]
		links, err := v.q.ListRollupsOfDay(ctx, date)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		links = slices.DeleteFunc(links, func(scope int64) bool { return scope <= 0 })
		if len(links) == 0 {
			continue
		}
		from := rand.IntN(len(links))
		if err := v.links(ctx, dayNumber(date), links[from:min(len(links), from+sampledLinks)]); err != nil {
			return err
		}
	}
	return nil
}
