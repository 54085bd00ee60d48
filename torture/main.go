// Torture kills a running Signpost at random moments and then counts.
//
//	go run ./torture -kills 300
//	go run ./torture -import -kills 20
//	go run ./torture -failover
//
// It runs the real binary (two api, two worker) on a private, durable Postgres.
// Clients follow short links; every attempt carries a marker of its own, which
// ends up in its event. Meanwhile api, worker and Postgres are killed with
// SIGKILL, api and worker are also ended with SIGTERM, and Postgres is stopped
// for seconds at a time. At the end everything is left alone until the pipeline
// is empty, and the account must hold: answered ≤ counted ≤ attempted, every
// answered click in events exactly once (with -drops: or reported as dropped),
// the rollups equal to the events, nothing left in a spool, no job left over, no
// process ended by itself. One link is changed all the time, and no replica may
// go on giving the old answer. It exits with 1 if it does not hold.
//
// With -import it kills workers and Postgres during an import of a million rows
// instead, and compares the result with what applying the file row by row gives.
//
// With -failover nothing is killed but the primary, once and for good, while its
// standby lags. The standby is promoted, every api is asked to ship its kept segments
// again, and the account must hold although the database has lost clicks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgserver"
)

type settings struct {
	kills   int
	outages int
	outage  time.Duration
	// allowDrops lets the account pass when clicks were dropped and counted.
	allowDrops bool
	imports    bool
	rows       int
	failover   bool
	lag        time.Duration
}

const (
	rate  = 400 // redirects a second that all clients together try
	links = 40  // that they follow
	// patience is how long the pipeline may take to become empty at the end, and an import
	// to move.
	patience = 6 * time.Minute
)

func main() {
	var s settings
	flag.IntVar(&s.kills, "kills", 300, "how many processes to kill")
	flag.IntVar(&s.outages, "outages", 3, "how often Postgres is stopped")
	flag.DurationVar(&s.outage, "outage", 20*time.Second, "how long Postgres stays stopped when it is stopped")
	flag.BoolVar(&s.allowDrops, "drops", false, "accept clicks that a process reports as dropped (a slow or full disk);\nthose it drops in the last tenth of a second before it is killed go unreported and count as missing")
	flag.BoolVar(&s.imports, "import", false, "kill during an import instead of redirects")
	flag.IntVar(&s.rows, "rows", 1_000_000, "rows of that import")
	flag.BoolVar(&s.failover, "failover", false, "fail over to a standby that lags instead")
	flag.DurationVar(&s.lag, "lag", 20*time.Second, "how long that standby stands still before the primary is killed")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := torture(ctx, s)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "torture: %v\n", err)
		os.Exit(1)
	}
}

func torture(ctx context.Context, s settings) (err error) {
	stage, err := drive.NewStage(ctx, "torture", "")
	if err != nil {
		return err
	}
	fmt.Printf("torture: data and logs in %s\n", stage.Dir)
	h := &harness{settings: s, Stage: stage, killed: map[string]int{}}
	h.up.Store(time.Now().UnixNano())
	defer func() {
		h.stopAll()
		clean := context.WithoutCancel(ctx)
		err = errors.Join(err, h.removeStandby(clean, err != nil), stage.Remove(clean, err != nil))
	}()
	switch {
	case s.imports:
		return h.imports(ctx)
	case s.failover:
		if err := h.startStandby(ctx); err != nil {
			return err
		}
		return h.underLoad(ctx, h.promote, h.reship)
	}
	return h.underLoad(ctx, h.disturb, func(context.Context) error { return nil })
}

// underLoad starts the system, has clients follow links while it is disturbed, waits
// until the pipeline is empty, and counts. settled is called before that.
func (h *harness) underLoad(ctx context.Context, disturb, settled func(context.Context) error) error {
	if err := h.startAll(ctx); err != nil {
		return err
	}
	began := time.Now()
	load, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var clients sync.WaitGroup
	clients.Go(func() { drive.Every(load, rate, h.follow) })
	if !h.failover { // which may lose changes of links
		clients.Go(func() { h.changeLink(load) })
	}
	for _, p := range h.apis {
		go h.watch(watching, p)
	}
	err := disturb(ctx)
	stopLoad()
	clients.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("torture: %s of disturbance done, waiting for the pipeline to become empty\n", time.Since(began).Round(time.Second))
	if err := drive.Settle(ctx, h, patience); err != nil {
		return err
	}
	if err := settled(ctx); err != nil {
		return err
	}
	for _, p := range h.apis {
		h.drops.Ask(ctx, p.Admin)
	}
	h.stopAll()
	return h.account(ctx, time.Since(began))
}

// watch asks an api for the clicks that it dropped until ctx ends.
func (h *harness) watch(ctx context.Context, p *proc) {
	for ctx.Err() == nil {
		h.drops.Ask(ctx, p.Admin)
		drive.Pause(ctx, 100*time.Millisecond)
	}
}

// follow follows a random link on one of the replicas.
func (h *harness) follow(n int) {
	h.clicks.Follow(h.apis[n%2].Addr, "/r/"+h.codes[rand.IntN(len(h.codes))], func() int { return 0 })
}

// harness is the system under torture and the account of it.
type harness struct {
	settings
	*drive.Stage
	standby *pgserver.Cluster // nil but for a failover
	url     string
	procs   []*proc
	apis    []*proc // of these
	codes   []string
	clicks  drive.Clicks

	// database is held while Postgres is stopped or started.
	database sync.Mutex
	up       atomic.Int64 // since when Postgres answers, Unix nanoseconds; 0 while it does not
	killed   map[string]int
	drops    drive.Drops
	odd      oddEnds
	fresh    freshness
	again    atomic.Int64 // segments that were put back to be shipped again
}

func (h *harness) spool() string { return filepath.Join(h.Dir, "spool") }

// Admins implements [drive.System].
func (h *harness) Admins(context.Context) (addrs []string, err error) {
	for _, p := range h.apis {
		addrs = append(addrs, p.Admin)
	}
	return addrs, nil
}

// Connect implements [drive.System].
func (h *harness) Connect(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, h.url) }

// startAll starts two of each role, with links to follow.
func (h *harness) startAll(ctx context.Context) (err error) {
	if h.url, err = h.Database(ctx, "signpost"); err == nil && h.standby != nil {
		h.url, err = h.ofBoth("signpost")
	}
	if err != nil {
		return err
	}
	if err := h.makeLinks(ctx); err != nil {
		return err
	}
	if err := h.launch("api", "api", "worker", "worker"); err != nil {
		return err
	}
	h.apis = h.procs[:2]
	return h.waitReady(ctx)
}

func (h *harness) makeLinks(ctx context.Context) error {
	for i := range links {
		h.codes = append(h.codes, fmt.Sprintf("link%d", i))
	}
	return drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `
			WITH u AS (INSERT INTO users (username, email) VALUES ('torture', 'torture@example.org') RETURNING id)
			INSERT INTO urls (user_id, short_code, original_url) SELECT u.id, unnest($1::text[]), 'https://example.org/' FROM u`,
			append(h.codes, changing))
		return err
	})
}

// waitReady waits until every replica can serve.
func (h *harness) waitReady(ctx context.Context) error {
	for _, p := range h.procs {
		if p.role != "api" {
			continue
		}
		err := drive.Until(ctx, time.Minute, 100*time.Millisecond, func(ctx context.Context) error { return drive.Ready(ctx, p.Addr) })
		if err != nil {
			return fmt.Errorf("%s did not become ready; see %s: %w", p.Name, p.Log, err)
		}
	}
	return nil
}

// disturb kills until the wanted number is reached.
func (h *harness) disturb(ctx context.Context) error {
	var asked sync.WaitGroup
	defer asked.Wait()
	every := max(h.kills/(h.outages+1), 1)
	for n := 1; n <= h.kills && ctx.Err() == nil; n++ {
		drive.Pause(ctx, 100*time.Millisecond+rand.N(900*time.Millisecond))
		switch r := rand.IntN(100); {
		case h.outages > 0 && n%every == 0 && n/every <= h.outages:
			h.stopDatabase(ctx)
		case r < 15:
			h.killDatabase(ctx)
		default:
			h.kill(h.procs[rand.IntN(len(h.procs))], how())
		}
		if n%8 == 0 { // as after a failover that lost something; one that is killed meanwhile does some of it or nothing
			api := h.apis[rand.IntN(2)]
			asked.Go(func() { _ = h.shipAgain(ctx, api) })
		}
		if n%50 == 0 {
			fmt.Printf("torture: %d kills, %d answered\n", n, h.clicks.Answered())
		}
	}
	return ctx.Err()
}

// how is the signal that ends an api or worker: four times in five as a crash would.
func how() syscall.Signal {
	if rand.IntN(5) == 0 {
		return syscall.SIGTERM
	}
	return syscall.SIGKILL
}

// kill ends an api or worker. It reports whether there was a process to end.
func (h *harness) kill(p *proc, with syscall.Signal) bool {
	if !p.signal(with) {
		return false
	}
	h.killed[p.role+", "+with.String()]++
	return true
}

func (h *harness) killDatabase(ctx context.Context) {
	h.database.Lock()
	defer h.database.Unlock()
	h.up.Store(0)
	h.Cluster.Kill()
	h.killed["postgres SIGKILL"]++
	h.startDatabase(ctx)
}

func (h *harness) stopDatabase(ctx context.Context) {
	h.database.Lock()
	defer h.database.Unlock()
	h.up.Store(0)
	if err := h.Cluster.Stop(ctx); err != nil {
		fmt.Printf("torture: stop Postgres: %v\n", err)
	}
	h.killed["postgres stopped for "+h.outage.String()]++
	// The api and worker processes go on dying meanwhile.
	end := time.Now().Add(h.outage)
	for time.Now().Before(end) && ctx.Err() == nil {
		drive.Pause(ctx, time.Second)
		h.kill(h.procs[rand.IntN(len(h.procs))], how())
	}
	h.startDatabase(ctx)
}

func (h *harness) startDatabase(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.Cluster.Start(ctx); err == nil {
			h.up.Store(time.Now().UnixNano())
			return
		}
		drive.Pause(ctx, 200*time.Millisecond)
	}
}

func (h *harness) stopAll() {
	for _, p := range h.procs {
		p.end()
	}
	h.procs = nil
}
