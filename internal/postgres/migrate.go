package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/migrations"
)

// These are the keys of the advisory locks that this program takes: "signpost" in
// ASCII, and the numbers after it.
const (
	lockMigrate    int64 = 0x7369676e706f7374
	lockPartitions int64 = 0x7369676e706f7375
)

const (
	migrateLockTimeout = 5 * time.Second
	lockPollInterval   = 250 * time.Millisecond
	probeTimeout       = 5 * time.Second
	firstWait          = 250 * time.Millisecond
	longestWait        = 5 * time.Second
	monthsAhead        = 3
)

// Migrate brings the schema of the database that url names to this release: the
// numbered files of package migrations, then River's own tables, then the indexes that
// partitions of events lack, then the partitions of the current month and the next
// three. Any number of processes may call it at the same time: one of them works, the
// others wait and find nothing left to do. A schema that is newer than this release is
// left alone.
//
// While Postgres is not up, or a lock cannot be had because the application is busy,
// Migrate logs this and tries again until ctx ends. If the server refuses us (wrong
// password, no such database, a missing right), Migrate returns an error at once; for a
// missing right, its text says how to give it.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	pool, err := Open(ctx, url, Options{Role: "migrate", MaxConns: 4, LockTimeout: migrateLockTimeout})
	if err != nil {
		return err
	}
	defer pool.Close()
	err = untilAvailable(ctx, pool, log, func(ctx context.Context) error {
		return migrate(ctx, pool, log)
	})
	return withCure(ctx, pool, err)
}

func migrate(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	if err := probe(ctx, pool); err != nil {
		return err
	}
	unlock, err := lockForMigration(ctx, pool, log)
	if err != nil {
		return err
	}
	defer unlock()
	if err := migrateOwn(ctx, pool, log); err != nil {
		return err
	}
	if err := migrateRiver(ctx, pool, log); err != nil {
		return err
	}
	if err := buildIndexes(ctx, pool, log); err != nil {
		return err
	}
	if err := EnsurePartitions(ctx, pool, monthsFrom(time.Now(), monthsAhead)); err != nil {
		return err
	}
	version, err := schemaVersion(ctx, pool)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "the schema is up to date", slog.String("server", Address(pool)), slog.Int64("version", version))
	return nil
}

// probe asks for one connection and one answer, with a deadline. Without the deadline,
// a server that accepts connections and then hangs would hold us up without a word in
// the log.
func probe(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	return nil
}

// lockForMigration waits until no other process migrates. It asks again and again
// instead of waiting inside Postgres, because a session that waits for an advisory lock
// holds a snapshot, and CREATE INDEX CONCURRENTLY in the other process would wait for
// that snapshot. The lock lives as long as its connection.
func lockForMigration(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) (unlock func(), err error) {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect for the migration lock: %w", err)
	}
	conn := pooled.Hijack()
	unlock = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = conn.Close(ctx) // the server frees the lock when it sees the connection gone
	}
	for attempt := 0; ; attempt++ {
		var locked bool
		err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockMigrate).Scan(&locked)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("take the migration lock: %w", err)
		}
		if locked {
			return unlock, nil
		}
		if attempt == 0 {
			log.InfoContext(ctx, "another process is migrating the schema, waiting for it")
		}
		if err := pause.For(ctx, lockPollInterval); err != nil {
			unlock()
			return nil, fmt.Errorf("wait for the migration lock: %w", err)
		}
	}
}

func migrateOwn(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	db := stdlib.OpenDBFromPool(pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return errors.Join(fmt.Errorf("read migrations: %w", err), db.Close())
	}
	defer func() { _ = provider.Close() }() // closes db; the pool stays open
	results, err := provider.Up(ctx)
	if err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			results = partial.Applied
		}
		logApplied(ctx, log, results)
		return fmt.Errorf("migrate the schema: %w", err)
	}
	logApplied(ctx, log, results)
	return nil
}

func logApplied(ctx context.Context, log *slog.Logger, results []*goose.MigrationResult) {
	for _, r := range results {
		log.InfoContext(ctx, "schema migration applied", slog.Int64("version", r.Source.Version),
			slog.String("file", r.Source.Path), slog.Duration("took", r.Duration))
	}
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("read job queue migrations: %w", err)
	}
	result, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return fmt.Errorf("migrate the job queue: %w", err)
	}
	for _, v := range result.Versions {
		log.InfoContext(ctx, "job queue migration applied", slog.Int("version", v.Version), slog.String("name", v.Name), slog.Duration("took", v.Duration))
	}
	return nil
}

// untilAvailable calls try and returns its error. While the error means that Postgres
// is away, it logs the error and tries again, until ctx ends. The log says for which
// server it waits and why, but not the name of the database user.
func untilAvailable(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, try func(context.Context) error) error {
	wait := firstWait
	for attempt := 1; ; attempt++ {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !Unavailable(err) || Refused(err) {
			return err
		}
		log.WarnContext(ctx, "postgres is not available, trying again",
			slog.String("server", Address(pool)), slog.String("reason", Cause(err)), slog.Int("attempt", attempt), slog.Duration("retry_in", wait))
		if pause.For(ctx, wait) != nil {
			return err
		}
		wait = min(2*wait, longestWait)
	}
}
