package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// launch starts one of the programs that were built.
func (b *bench) launch(name string, environ []string, args ...string) (*drive.Process, error) {
	return drive.Launch(b.Dir, environ, append([]string{filepath.Join(b.Dir, name)}, args...)...)
}

// backendsCPU is the time that the backends of Postgres have used which serve the
// api in a database.
func backendsCPU(ctx context.Context, url string) (total time.Duration, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'signpost api'")
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	for _, pid := range pids {
		if spent, err := drive.CPU(pid); err == nil { // else it has ended
			total += spent
		}
	}
	return total, err
}
