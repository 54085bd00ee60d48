package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/rollup"
)

// ingest compares a worker, from sealed segments to committed events and
// statistics, with COPY of the same rows into the same table, in clicks per second
// and in bytes of write-ahead log: the median of our runs with the best of as
// many by COPY, in turns.
func (b *bench) ingest(ctx context.Context) error {
	n := b.scale(1_000_000)
	w, err := b.launch(b.environ("DB_MAX_CONNS=8"), "worker")
	if err != nil {
		return err
	}
	defer w.Stop()
	// One connection that asks now and then, so that asking costs the server little.
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	var rates, wals []float64
	var best, bestWAL float64
	for range 3 {
		rate, wal, err := b.ingestOnce(ctx, conn, n)
		if err != nil {
			return err
		}
		rates, wals = append(rates, rate), append(wals, wal)
		rate, wal, err = b.copyOnce(ctx, conn, n)
		if err != nil {
			return err
		}
		if rate > best {
			best, bestWAL = rate, wal
		}
	}
	b.ratio("clicks ingested per second, one worker, against COPY", drive.Median(rates), best, "%.0f", -0.5)
	b.ratio("bytes of WAL per click, against COPY", drive.Median(wals), bestWAL, "%.0f", 2)
	return nil
}

// ingestOnce ships n clicks and waits until the worker has ingested them.
func (b *bench) ingestOnce(ctx context.Context, conn *pgx.Conn, n int) (rate, walBytes float64, err error) {
	spool, err := os.MkdirTemp(b.Dir, "ingest-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(spool) //nolint:errcheck // the folder goes anyway
	var filled string
	for range 3 { // a disk that hangs for a moment drops clicks: filled anew
		if filled, err = os.MkdirTemp(spool, ""); err != nil {
			return 0, 0, err
		}
		if err = fillSpool(ctx, filled, n, popular()); err == nil {
			break
		}
	}
	if err != nil {
		return 0, 0, err
	}
	if err := b.sql(ctx, `TRUNCATE events, rollups, rollup_digests, visitors, click_batches; CHECKPOINT`); err != nil {
		return 0, 0, err
	}
	rate, walBytes, err = b.timed(ctx, n, func() error {
		ship := exec.CommandContext(ctx, b.Binary, "spool", "ship", filled)
		ship.Env = append(append(os.Environ(), b.environ()...), "LOG_LEVEL=warn")
		if out, err := ship.CombinedOutput(); err != nil {
			return fmt.Errorf("ship: %w: %s", err, out)
		}
		return untilIngested(ctx, conn, n)
	})
	if err != nil {
		return 0, 0, err
	}
	rollups, err := rollup.Check(ctx, conn)
	if err == nil && (rollups.Differ > 0 || rollups.Events != int64(n)) {
		err = fmt.Errorf("%d clicks were shipped: %s", n, rollups)
	}
	return rate, walBytes, err
}

func untilIngested(ctx context.Context, conn *pgx.Conn, n int) error {
	return drive.Until(ctx, 10*time.Minute, 20*time.Millisecond, func(ctx context.Context) error {
		var done int
		err := conn.QueryRow(ctx, `SELECT COALESCE(sum(clicks), 0) - (SELECT COALESCE(sum(clicks), 0) FROM rollup_digests)
			FROM click_batches WHERE ingested_at IS NOT NULL`).Scan(&done)
		if err == nil && done < n {
			err = fmt.Errorf("%d of %d clicks are ingested and merged", done, n)
		}
		return err
	})
}

// eventColumns are those that a click fills.
const eventColumns = "occurred_at, url_id, user_id, visitor, bot, event_type, country, browser, os, device, referrer_host, kind, rules, firsts, user_agent_id, trigger"

// copyOnce copies the rows that were ingested into the emptied table.
func (b *bench) copyOnce(ctx context.Context, conn *pgx.Conn, n int) (rate, walBytes float64, err error) {
	var rows bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &rows, "COPY (SELECT "+eventColumns+" FROM events) TO STDOUT (FORMAT binary)"); err != nil {
		return 0, 0, err
	}
	if err := b.sql(ctx, `TRUNCATE events; CHECKPOINT`); err != nil {
		return 0, 0, err
	}
	return b.timed(ctx, n, func() error {
		done, err := conn.PgConn().CopyFrom(ctx, &rows, "COPY events ("+eventColumns+") FROM STDIN (FORMAT binary)")
		if err == nil && done.RowsAffected() != int64(n) {
			err = fmt.Errorf("%d of %d clicks were in the table", done.RowsAffected(), n)
		}
		return err
	})
}

// timed returns the clicks per second of something that stores n clicks, and
// the bytes of write-ahead log for each.
func (b *bench) timed(ctx context.Context, n int, store func() error) (rate, walBytes float64, err error) {
	before, err := b.wal(ctx)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := store(); err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	after, err := b.wal(ctx)
	return float64(n) / took.Seconds(), float64(after-before) / float64(n), err
}

// wal is how many bytes of write-ahead log there have been.
func (b *bench) wal(ctx context.Context) (int64, error) {
	return b.value(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint`)
}

// popular picks one of 10,000 links, some far more often than others.
func popular() func(*rand.Rand) int64 {
	var z *rand.Zipf
	return func(r *rand.Rand) int64 {
		if z == nil {
			z = rand.NewZipf(r, 1.1, 1, 9999)
		}
		return 1 + int64(z.Uint64())
	}
}

// fillSpool writes n clicks on links that link picks, by 200 kinds of browser, over the
// last hour.
func fillSpool(ctx context.Context, dir string, n int, link func(*rand.Rand) int64) error {
	s, err := clicks.Open(clicks.Options{Dir: dir, MaxBytes: 8 << 30, AppendTimeout: time.Minute}) // nothing is measured here
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	agents := userAgents(200)
	hosts := []string{"", "https://www.google.com/", "https://news.example.org/story/1", "https://social.example.com/", "https://mail.example.net/inbox"}
	now := time.Now().Add(-time.Hour)
	for i := range n {
		c := clicks.Click{
			At: now.Add(time.Duration(i) * time.Hour / time.Duration(n)), URLID: link(r), UserID: 1,
			IP:        netip.AddrFrom4([4]byte{byte(11 + r.IntN(180)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}),
			UserAgent: agents[r.IntN(len(agents))], Referrer: hosts[r.IntN(len(hosts))],
		}
		if err := s.Append(&c); err != nil {
			return errors.Join(fmt.Errorf("fill the spool: %w", err), s.Close())
		}
	}
	if err := s.SealNow(ctx); err != nil {
		return err
	}
	return s.Close()
}

// userAgents makes n different browsers.
func userAgents(n int) []string {
	systems := []string{"Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 14; Pixel 8", "iPhone; CPU iPhone OS 18_1 like Mac OS X"}
	agents := make([]string, n)
	for i := range agents {
		agents[i] = fmt.Sprintf("Mozilla/5.0 (%s) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.0 Safari/537.36", systems[i%len(systems)], 100+i/10, 1000+i)
	}
	return agents
}
