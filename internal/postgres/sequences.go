package postgres

import (
	"context"
	"fmt"
)

// PassTaken moves a sequence beyond ids that rows brought with them, to a place from
// which wanted free ids can be drawn. last returns the id before that place, 0 if the
// sequence is at such a place already; in a transaction it sees the rows that the
// transaction has inserted. move moves the sequence past an id. It must not run in a
// long transaction, because its lock is held until the end of the transaction.
func PassTaken(
	ctx context.Context, last func(context.Context, int64) (int64, error), move func(context.Context, int64) error, wanted int64,
) error {
	id, err := last(ctx, wanted)
	if err == nil && id != 0 {
		err = move(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("pass taken ids: %w", err)
	}
	return nil
}
