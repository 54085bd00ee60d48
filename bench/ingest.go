package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
)

// ingest compares a worker, from sealed segments to committed events and
// rollups, with the best COPY of the same rows into the same table, in clicks
// per second and in bytes of write-ahead log.
func (b *bench) ingest(ctx context.Context) error {
	n := b.scale(1_000_000)
	spool := filepath.Join(b.dir, "ingest-spool")
	if err := fillSpool(ctx, spool, n); err != nil {
		return err
	}
	w, err := b.launch("signpost", b.environ("DB_MAX_CONNS=8"), "worker")
	if err != nil {
		return err
	}
	defer w.stop()
	time.Sleep(2 * time.Second) // it starts up, and is idle when the clock starts
	if err := b.sql(ctx, `TRUNCATE events, click_quarters, click_days, click_batches; CHECKPOINT`); err != nil {
		return err
	}
	before, err := b.wal(ctx)
	if err != nil {
		return err
	}
	// One connection that asks now and then, so that asking costs the server little.
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	start := time.Now()
	ship := exec.CommandContext(ctx, filepath.Join(b.dir, "signpost"), "spool", "ship", spool)
	ship.Env = append(append(os.Environ(), b.environ()...), "LOG_LEVEL=warn")
	if out, err := ship.CombinedOutput(); err != nil {
		return fmt.Errorf("ship: %w: %s", err, out)
	}
	for {
		var done int64
		err := conn.QueryRow(ctx, `SELECT COALESCE(sum(clicks), 0)::bigint FROM click_batches WHERE ingested_at IS NOT NULL`).Scan(&done)
		if err != nil {
			return err
		}
		if done >= int64(n) {
			break
		}
		if time.Since(start) > 10*time.Minute {
			return fmt.Errorf("%d of %d clicks were ingested in ten minutes", done, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(start)
	after, err := b.wal(ctx)
	if err != nil {
		return err
	}
	rate, bytesPerClick := float64(n)/took.Seconds(), float64(after-before)/float64(n)
	copyRate, copyBytes, err := b.copyAgain(ctx, n)
	if err != nil {
		return err
	}
	b.ratio("clicks ingested per second, one worker, against COPY", rate, copyRate, "%.0f", -0.6)
	b.ratio("bytes of WAL per click, against COPY", bytesPerClick, copyBytes, "%.0f", 1.5)
	return nil
}

// copyAgain copies the rows that were ingested into the emptied table: the best
// rate of three, and the WAL of one.
func (b *bench) copyAgain(ctx context.Context, n int) (rate, walBytes float64, err error) {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	columns := "(id, occurred_at, url_id, user_id, visitor, bot, event_type, country, browser, os, device, referrer_host)"
	var rows bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &rows, "COPY (SELECT "+strings.Trim(columns, "()")+" FROM events) TO STDOUT (FORMAT binary)"); err != nil {
		return 0, 0, err
	}
	for range 3 {
		if err := b.sql(ctx, `TRUNCATE events; CHECKPOINT`); err != nil {
			return 0, 0, err
		}
		before, err := b.wal(ctx)
		if err != nil {
			return 0, 0, err
		}
		start := time.Now()
		if _, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(rows.Bytes()), "COPY events "+columns+" FROM STDIN (FORMAT binary)"); err != nil {
			return 0, 0, err
		}
		rate = max(rate, float64(n)/time.Since(start).Seconds())
		after, err := b.wal(ctx)
		if err != nil {
			return 0, 0, err
		}
		walBytes = float64(after-before) / float64(n)
	}
	return rate, walBytes, nil
}

// wal is how many bytes of write-ahead log there have been.
func (b *bench) wal(ctx context.Context) (int64, error) {
	return b.value(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint`)
}

// fillSpool writes n clicks on 10,000 links, some far more popular than others,
// by 200 kinds of browser, over the last hour.
func fillSpool(ctx context.Context, dir string, n int) error {
	s, err := clicks.Open(clicks.Options{Dir: dir, MaxBytes: 8 << 30})
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	z := rand.NewZipf(r, 1.1, 1, 9999)
	agents := userAgents(200)
	hosts := []string{"", "https://www.google.com/", "https://news.example.org/story/1", "https://social.example.com/", "https://mail.example.net/inbox"}
	now := time.Now().Add(-time.Hour)
	for i := range n {
		c := clicks.Click{
			At: now.Add(time.Duration(i) * time.Hour / time.Duration(n)), URLID: 1 + int64(z.Uint64()), UserID: 1,
			IP:        netip.AddrFrom4([4]byte{byte(11 + r.IntN(180)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}),
			UserAgent: agents[r.IntN(len(agents))], Referrer: hosts[r.IntN(len(hosts))],
		}
		if err := s.Append(&c); err != nil {
			return fmt.Errorf("fill the spool: %w", err)
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
