package rollup

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// AddUpTotals brings the totals of links, by which lists are sorted, up to date. While
// another process merges, it does nothing, and the error is ErrBusy. The time at which it found them up to date is
// kept: nothing changes them meanwhile.
func AddUpTotals(ctx context.Context, pool *pgxpool.Pool) error {
	err := locked(ctx, pool, func(conn *pgxpool.Conn) error {
		for {
			var changed int64
			err := postgres.InTx(ctx, conn, func(tx pgx.Tx) (err error) {
				q := queries.New(tx)
				if changed, err = q.AddUpLinkTotals(ctx); err != nil {
					return err
				}
				if changed == 0 {
					return q.SetTotalsAt(ctx)
				}
				return q.DropEmptyLinkTotals(ctx)
			})
			if err != nil || changed == 0 {
				return err
			}
		}
	})
	return wrap("add up the totals of links", err)
}
