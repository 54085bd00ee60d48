package drive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pause waits, or returns early when ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Until calls try again and again until it succeeds. When patience is over, it returns
// the error of the last try.
func Until(ctx context.Context, patience, every time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if Pause(ctx, every); ctx.Err() != nil {
			return err
		}
	}
}

// Every begins rate requests a second until ctx ends, however long they take, and waits
// for those under way.
func Every(ctx context.Context, rate int, request func(i int)) {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			underWay.Go(func() { request(i) })
		}
	}
}

// SpoolsEmpty returns an error if one of the api processes with these admin listeners
// still has clicks to ship.
func SpoolsEmpty(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		metrics, err := Scrape(ctx, addr)
		if err != nil {
			return err
		}
		for _, name := range []string{"signpost_spool_segments", "signpost_spool_bytes"} {
			n, err := metrics.Sum(name)
			if err == nil && n > 0 {
				err = fmt.Errorf("%s of %s is %v", name, addr, n)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// System is a running Signpost, for which Settle can wait.
type System interface {
	// Admins returns the addresses of the admin listeners of all api processes.
	Admins(ctx context.Context) ([]string, error)
	// Connect connects to the database.
	Connect(ctx context.Context) (*pgx.Conn, error)
}

// Settle waits until nothing is under way any more: spools are shipped, batches are
// ingested, no click job is left, and all clicks are merged into the statistics.
func Settle(ctx context.Context, s System, patience time.Duration) error {
	err := Until(ctx, patience, 500*time.Millisecond, func(ctx context.Context) error {
		addrs, err := s.Admins(ctx)
		if err == nil {
			err = SpoolsEmpty(ctx, addrs...)
		}
		if err != nil {
			return err
		}
		return With(ctx, s, ingested)
	})
	if err != nil {
		return fmt.Errorf("the pipeline did not become empty: %w", err)
	}
	return nil
}

// With connects to the database of a system, calls do and closes the connection.
func With(ctx context.Context, s System, do func(context.Context, *pgx.Conn) error) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, conn), conn.Close(ctx))
}

func ingested(ctx context.Context, conn *pgx.Conn) error {
	var batches, jobs, digests int
	err := conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM click_batches WHERE ingested_at IS NULL),
			(SELECT count(*) FROM river_job WHERE kind = 'record_clicks' AND state NOT IN ('completed', 'cancelled', 'discarded')),
			(SELECT count(*) FROM rollup_digests) + (SELECT count(*) FROM rollup_recounts)`).Scan(&batches, &jobs, &digests)
	if err == nil && batches+jobs+digests > 0 {
		err = fmt.Errorf("%d batches, %d jobs and %d digests are left", batches, jobs, digests)
	}
	return err
}
