package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/queries"
)

const saltSize = 32

// readSalt returns the visitor salt of a day since 1970, the same on every
// worker, and makes it if there is none. Every batch reads its salts: one kept in
// memory could outlive its destruction, or differ from the others' when
// Postgres was set back. Call it outside of transactions, since a salt must be
// there for all at once.
func readSalt(ctx context.Context, pool *pgxpool.Pool, day int64) ([]byte, error) {
	q, date := queries.New(pool), time.Unix(day*int64(utcDay/time.Second), 0).UTC()
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
