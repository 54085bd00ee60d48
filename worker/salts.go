package worker

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/queries"
)

const (
	saltSize = 32
	// saltKept is how long a process goes on using a salt without asking again,
	// and so how long one may outlive its destruction in memory.
	saltKept = 10 * time.Minute
)

// salts hands out the visitor salt of a day, the same on every worker. Safe for
// concurrent use.
type salts struct {
	pool  *pgxpool.Pool
	mu    sync.Mutex
	known map[int64]knownSalt // by day since 1970
}

type knownSalt struct {
	salt  []byte
	until time.Time
}

func newSalts(pool *pgxpool.Pool) *salts {
	return &salts{pool: pool, known: map[int64]knownSalt{}}
}

// get returns the salt of a day since 1970 and makes it if nobody has. Call it
// outside of transactions: a salt must be there for all at once.
func (s *salts) get(ctx context.Context, day int64) ([]byte, error) {
	s.mu.Lock()
	known, ok := s.known[day]
	s.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.salt, nil
	}
	salt, err := s.load(ctx, time.Unix(day*24*60*60, 0).UTC())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[day] = knownSalt{salt, time.Now().Add(saltKept)}
	return salt, nil
}

func (s *salts) load(ctx context.Context, day time.Time) ([]byte, error) {
	q := queries.New(s.pool)
	fresh := make([]byte, saltSize)
	_, _ = rand.Read(fresh) // never fails: the program ends rather than go on without randomness
	if err := q.CreateSalt(ctx, day, fresh); err != nil {
		return nil, fmt.Errorf("create visitor salt: %w", err)
	}
	salt, err := q.GetSalt(ctx, day)
	if err != nil {
		return nil, fmt.Errorf("read visitor salt: %w", err)
	}
	return salt, nil
}

// forget drops salts that have to be asked for again anyway.
func (s *salts) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for day, known := range s.known {
		if !time.Now().Before(known.until) {
			delete(s.known, day)
		}
	}
}
