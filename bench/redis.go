package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/redistest"
)

const (
	coldReplicas = 10
	hotLinks     = 1000
	// Replicas have machines of their own elsewhere. Here they share one, and
	// questions are counted, not their speed: at full speed they would keep each other
	// waiting for Redis for longer than REDIS_TIMEOUT.
	betweenVisits = 4 * time.Millisecond
	// changesEvery is how often a link changes meanwhile, in one of the rows.
	changesEvery = 100 * time.Millisecond
)

// redis counts how often ten replicas that start cold on the same hot links ask
// Postgres, without Redis and with one: first a Redis that other replicas have
// filled, as in a rolling update, then an empty one.
func (b *bench) redis(ctx context.Context) error {
	if err := b.makeLinks(ctx, hotLinks); err != nil {
		return err
	}
	server, err := redistest.Run()
	if err != nil {
		return err
	}
	err = b.coldStarts(ctx, server)
	return errors.Join(err, server.Close())
}

func (b *bench) coldStarts(ctx context.Context, server *redistest.Server) error {
	shared := []string{"REDIS_URL=" + server.URL()}
	without, err := b.coldStart(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := b.visit(ctx, 1, shared); err != nil { // fills it
		return err
	}
	filled, err := b.coldStart(ctx, shared)
	if err != nil {
		return err
	}
	changing, err := b.whileChanging(ctx, func() (int64, error) { return b.coldStart(ctx, shared) })
	if err != nil {
		return err
	}
	if _, err := server.Do("FLUSHALL"); err != nil {
		return err
	}
	empty, err := b.coldStart(ctx, shared)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("Postgres lookups, %d replicas start cold on %d links", coldReplicas, hotLinks)
	b.ratio(what+", Redis filled", float64(filled), float64(without), "%.0f", 0.10)
	b.ratio(what+", ten of which change a second, Redis filled", float64(changing), float64(without), "%.0f", 0.10)
	b.ratio(what+", Redis empty", float64(empty), float64(without), "%.0f", 0.50)
	return nil
}

// whileChanging runs f while one link after the other changes.
func (b *bench) whileChanging(ctx context.Context, f func() (int64, error)) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan error, 1)
	go func() {
		tick := time.NewTicker(changesEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				changed <- nil
				return
			case <-tick.C:
			}
			// By id, so that it is not counted as a lookup by code.
			_, err := b.value(ctx, fmt.Sprintf(`WITH changed AS (UPDATE urls SET title = 'changed %d'
				WHERE id = (SELECT min(id) + %d FROM urls) RETURNING 1) SELECT count(*) FROM changed`, i, i%hotLinks))
			if err != nil && ctx.Err() == nil {
				changed <- err
				return
			}
		}
	}()
	n, err = f()
	cancel()
	return n, errors.Join(err, <-changed)
}

// coldStart is visit with a count of the lookups that Postgres did by short
// code. Its own statistics tell, which each connection hands in when it ends.
func (b *bench) coldStart(ctx context.Context, environ []string) (lookups int64, err error) {
	const query = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'urls_short_code_key'"
	before, err := b.value(ctx, query)
	if err != nil {
		return 0, err
	}
	asked, err := b.visit(ctx, coldReplicas, environ)
	if err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		after, err := b.value(ctx, query)
		if err != nil || after-before >= asked || time.Now().After(deadline) {
			return after - before, err
		}
	}
}

// visit starts replicas, lets each be asked for every link once, in an order of
// its own, and stops them. It returns how many links they say that they asked of
// Postgres.
func (b *bench) visit(ctx context.Context, replicas int, environ []string) (loads int64, err error) {
	var procs []*drive.Process
	defer func() {
		for _, p := range procs {
			p.Stop()
		}
	}()
	for range replicas {
		p, err := b.launch(b.environ(append(environ, "DB_MAX_CONNS=4")...), "api")
		if err != nil {
			return 0, err
		}
		procs = append(procs, p)
	}
	for _, p := range procs {
		if err := warmReplica(ctx, p, len(environ) > 0); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := visitAll(procs); err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "bench:   %d replicas answered %d links each within %s\n", replicas, hotLinks, time.Since(began).Round(time.Millisecond))
	for _, p := range procs {
		n, err := drive.Metric(ctx, p.Admin, `signpost_link_cache_loads_total{result="found"}`)
		if err == nil { // there is none before the first
			loads += int64(n)
		}
	}
	if len(environ) > 0 && replicas == 1 {
		return loads, procs[0].AtLeast(ctx, `signpost_redis_requests_total{op="put",result="stored"}`, 0.95*hotLinks)
	}
	return loads, nil
}

func visitAll(procs []*drive.Process) error {
	var all sync.WaitGroup
	errs := make(chan error, len(procs))
	for _, p := range procs {
		order := rand.Perm(hotLinks)
		all.Go(func() {
			c, err := drive.Dial(p.Addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close() //nolint:errcheck // all was read
			for _, link := range order {
				status, err := c.Get(fmt.Sprintf("/link%d", link), "bench", "")
				for again := 0; err == nil && status == http.StatusServiceUnavailable && again < 10; again++ {
					time.Sleep(time.Second) // as the answer says
					status, err = c.Get(fmt.Sprintf("/link%d", link), "bench", "")
				}
				if err == nil && status != http.StatusFound {
					err = fmt.Errorf("status %d", status)
				}
				if err != nil {
					errs <- err
					return
				}
				time.Sleep(betweenVisits)
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

// warmReplica waits until a replica follows changes, has a connection to Postgres, and
// uses Redis if it has one.
func warmReplica(ctx context.Context, p *drive.Process, shared bool) error {
	if shared {
		if err := p.AtLeast(ctx, "signpost_redis_up", 1); err != nil {
			return err
		}
	}
	if err := p.AtLeast(ctx, `signpost_link_feed_polls_total{result="good"}`, 3); err != nil {
		return err
	}
	// One lookup, so that the replicas do not all connect to Postgres at once.
	c, err := drive.Dial(p.Addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // all was read
	if status, err := c.Get("/unknown", "bench", ""); err != nil || status != http.StatusNotFound {
		return fmt.Errorf("an unknown link answered %d, %w", status, err)
	}
	return nil
}
