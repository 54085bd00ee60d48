package service

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/queries"
)

// planned makes Postgres plan each query anew for its values, so that a filter that is
// not set costs nothing and no partitions are touched that the filters exclude. With a
// prepared statement, all values would in the end share one plan.
type planned struct{ queries.DBTX }

func (p planned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return p.DBTX.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

func (p planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return p.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// lists returns the queries that read lists.
func (s *Service) lists() *queries.Queries { return queries.New(planned{s.Pool}) }
