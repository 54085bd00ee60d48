package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Rebuild has all statistics of the UTC days from one to before another counted again
// from the events, while clicks come in. Zero times stand for the beginning and the end.
// The merging process does the work; Rebuild returns how many link-days wait for it. Days
// of archived months stay as they are. Digests that were set aside are removed if no day
// after theirs is left out: they may have clicks of later days, too.
func Rebuild(ctx context.Context, db postgres.DB, from, to time.Time) (linkDays int64, err error) {
	err = postgres.InTx(ctx, db, func(tx pgx.Tx) error {
		v := &checker{q: queries.New(queries.Planned{DBTX: tx})}
		if to.IsZero() {
			if err := v.q.DropFailedRollupDigests(ctx, from); err != nil {
				return fmt.Errorf("drop digests that failed: %w", err)
			}
		}
		days, err := v.days(ctx, from, to)
		if err != nil {
			return err
		}
		for _, day := range days {
			n, err := v.q.RecountDay(ctx, dateOf(day), dateOf(day), dateOf(day+1))
			if err != nil {
				return err
			}
			linkDays += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("have statistics counted again: %w", err)
	}
	return linkDays, nil
}
