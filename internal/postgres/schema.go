package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/signpost/signpost/migrations"
)

// SchemaError says that the database's schema is older than this release needs.
// Its text is one sentence for a person, which names the command to run.
type SchemaError struct {
	Have, Want int64 // versions of our own files; equal when only River's tables are old
}

func (e *SchemaError) Error() string {
	switch {
	case e.Have == 0:
		return "the database has no schema yet: run `signpost migrate`"
	case e.Have < e.Want:
		return fmt.Sprintf("the database schema is at version %d but this release needs %d: run `signpost migrate`",
			e.Have, e.Want)
	default:
		return "the job queue's tables are older than this release needs: run `signpost migrate`"
	}
}

// CheckSchema returns a *SchemaError if the database's schema is older than this
// release needs, and nil if it is the same or newer: a newer schema always serves the
// release before it too (I8). If the role of pool lacks a right, the error says how to
// give it.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool) error {
	return withCure(ctx, pool, checkSchema(ctx, pool))
}

func checkSchema(ctx context.Context, pool *pgxpool.Pool) error {
	want, err := newestMigration(migrations.FS)
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, pool)
	if err != nil {
		return err
	}
	if have < want {
		return &SchemaError{Have: have, Want: want}
	}
	ok, err := riverIsCurrent(ctx, pool)
	if err != nil {
		return err
	}
	if !ok {
		return &SchemaError{Have: have, Want: want}
	}
	return nil
}

// WaitForSchema is CheckSchema for a process that starts. While Postgres is not up, it
// logs this and asks again until ctx ends. If the server is up and has an older schema
// (*SchemaError) or does not let us in, it returns the error at once.
func WaitForSchema(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	return untilAvailable(ctx, pool, log, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		return CheckSchema(ctx, pool)
	})
}

// newestMigration returns the highest version among the files of fsys.
func newestMigration(fsys fs.FS) (int64, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var newest int64
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("read version of migration %s: %w", name, err)
		}
		newest = max(newest, version)
	}
	return newest, nil
}

// schemaVersion returns the newest version that was applied, 0 if there is none.
func schemaVersion(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	var version int64
	err := pool.QueryRow(ctx,
		"SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&version)
	if Code(err) == codeUndefinedTable {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

func riverIsCurrent(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return false, fmt.Errorf("read job queue migrations: %w", err)
	}
	result, err := migrator.Validate(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("read version of the job queue: %w", err)
	}
	return result.OK, nil
}
