package service

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/queries"
)

// planned makes Postgres plan each query for the values it has, so that a
// filter that is not set costs nothing and only the partitions that a filter
// leaves are touched. A prepared statement would come to share one plan.
type planned struct{ queries.DBTX }

func (p planned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return p.DBTX.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

func (p planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return p.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// lists returns the queries that read lists.
func (s *Service) lists() *queries.Queries { return queries.New(planned{s.Pool}) }
