package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// partIndex is an index that events has and that one of its partitions lacks.
type partIndex struct {
	Index  string // the index of events
	Table  string // the partition
	Method string // the definition of the index from USING on: method, columns and condition
}

// buildIndexes makes the indexes that migrations have made only on events itself on its
// partitions too. It makes one at a time, while events are read and written. If it was
// interrupted, the next call continues. It leaves out a month that a worker detaches
// meanwhile.
func buildIndexes(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	missing, err := missingIndexes(ctx, pool)
	for err == nil && len(missing) > 0 {
		m, start := missing[0], time.Now()
		buildErr := buildIndex(ctx, pool, m)
		if buildErr == nil {
			log.InfoContext(ctx, "index of a partition built", slog.String("index", m.Index), slog.String("table", m.Table), slog.Duration("took", time.Since(start)))
		}
		missing, err = missingIndexes(ctx, pool)
		if buildErr != nil && (err != nil || slices.Contains(missing, m)) {
			return fmt.Errorf("build index of %s: %w", m.Table, buildErr)
		}
	}
	return err
}

// missingIndexes returns the indexes that partitions of events lack. For each index it
// lists the newest partition first.
func missingIndexes(ctx context.Context, pool *pgxpool.Pool) ([]partIndex, error) {
	rows, err := pool.Query(ctx, `
		SELECT i.indexrelid::regclass::text, p.oid::regclass::text, regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', 'USING ')
		FROM pg_index i
		JOIN pg_inherits h ON h.inhparent = i.indrelid AND NOT h.inhdetachpending
		JOIN pg_class p ON p.oid = h.inhrelid AND p.relkind = 'r'
		WHERE i.indrelid = 'events'::regclass AND NOT i.indisvalid AND NOT EXISTS (
			SELECT FROM pg_inherits c JOIN pg_index ci ON ci.indexrelid = c.inhrelid
			WHERE c.inhparent = i.indexrelid AND ci.indrelid = p.oid)
		ORDER BY i.indexrelid, p.relname DESC`)
	if err != nil {
		return nil, fmt.Errorf("look for missing indexes: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowToStructByPos[partIndex])
	if err != nil {
		return nil, fmt.Errorf("look for missing indexes: %w", err)
	}
	return missing, nil
}

// buildIndex makes one index and attaches it. If an earlier attempt has left an index,
// that one is attached if it is whole, and dropped if not.
func buildIndex(ctx context.Context, pool *pgxpool.Pool, m partIndex) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	// The statement waits for transactions that began before it, and nobody waits for
	// the statement.
	if _, err := conn.Exec(ctx, "SET lock_timeout = 0"); err != nil {
		return fmt.Errorf("set lock timeout: %w", err)
	}
	defer func() { _, _ = conn.Exec(ctx, "RESET lock_timeout") }() // or the connection is gone
	for {
		name, whole, err := looseIndex(ctx, conn.Conn(), m)
		if err != nil {
			return fmt.Errorf("look for the index: %w", err)
		}
		step := "CREATE INDEX CONCURRENTLY ON " + m.Table + " " + m.Method
		switch {
		case whole:
			return attachIndex(ctx, pool, m.Index, name)
		case name != "":
			step = "DROP INDEX CONCURRENTLY " + name
		}
		if _, err := conn.Exec(ctx, step); err != nil {
			return err
		}
	}
}

// looseIndex looks for an index that is defined like m and belongs to no index of
// events. It returns its name, "" if there is none, and whether it is whole.
func looseIndex(ctx context.Context, conn *pgx.Conn, m partIndex) (name string, whole bool, err error) {
	err = conn.QueryRow(ctx, `
		SELECT indexrelid::regclass::text, indisvalid
		FROM pg_index
		WHERE indrelid = $1::text::regclass AND regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', 'USING ') = $2
			AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = indexrelid)
		ORDER BY indisvalid DESC
		LIMIT 1`, m.Table, m.Method).Scan(&name, &whole)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return name, whole, err
}

func attachIndex(ctx context.Context, pool *pgxpool.Pool, index, part string) error {
	return inLockTx(ctx, pool, func(tx pgx.Tx) error {
		return execAll(ctx, tx, "SET LOCAL lock_timeout = '"+attachLockTimeout+"'",
			"ALTER INDEX "+index+" ATTACH PARTITION "+part)
	})
}
