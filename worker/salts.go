package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/queries"
)

const saltSize = 32

// readSalt returns the visitor salt of a day (counted from 1970), and makes it if there
// is none. It is the same on every worker. Every batch reads its salts again: a salt in
// memory could be kept after it was destroyed in the database, or differ from the one
// on other workers after Postgres was restored from a backup. Call it outside of
// transactions, because a new salt must be visible to all workers at once.
func readSalt(ctx context.Context, pool *pgxpool.Pool, day int64) ([]byte, error) {
	q, date := queries.New(pool), dateOf(day)
	salt, err := q.GetSalt(ctx, date)
	if errors.Is(err, pgx.ErrNoRows) {
		fresh := make([]byte, saltSize)
		_, _ = rand.Read(fresh) // never fails: the program ends rather than go on without randomness
		if err := q.CreateSalt(ctx, date, fresh); err != nil {
			return nil, fmt.Errorf("create visitor salt: %w", err)
		}
		// Another worker may have been first.
		salt, err = q.GetSalt(ctx, date)
	}
	if err != nil {
		return nil, fmt.Errorf("read visitor salt: %w", err)
	}
	return salt, nil
}
