package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/signpost/signpost/internal/drive"
)

// hot is the traffic of the redirect measures: a few links, always cached.
func hot() drive.Traffic {
	return drive.Traffic{Agents: userAgents(20), Codes: codes(100)}
}

// codes are those of the first n links.
func codes(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("link%d", i))
	}
	return list
}

// cost is the cost of one round of a closed loop.
type cost struct {
	cpu  float64 // microseconds of server CPU per request
	rate float64 // requests per second
}

// measure runs a closed loop against the baseline or an api.
func (b *bench) measure(ctx context.Context, p *drive.Process, t drive.Traffic, conns, n int, settle func() error) (cost, error) {
	kept, err := recorded(ctx, p)
	if err != nil {
		return cost{}, err
	}
	before, err := drive.CPU(p.Pid)
	if err != nil {
		return cost{}, err
	}
	took, err := drive.ClosedLoop(p.Addr, t, conns, n)
	if err != nil {
		return cost{}, err
	}
	if err := b.checkRecorded(ctx, p, kept, n); err != nil {
		return cost{}, err
	}
	if settle != nil {
		if err := settle(); err != nil {
			return cost{}, err
		}
	}
	after, err := drive.CPU(p.Pid)
	return cost{
		cpu:  float64((after - before).Nanoseconds()) / 1000 / float64(n),
		rate: float64(n) / took.Seconds(),
	}, err
}

// redirect compares a recorded redirect with a constant answer: once with
// shipping to Postgres, once with Postgres stopped, which leaves the request path.
func (b *bench) redirect(ctx context.Context) error {
	base, err := drive.Launch(b.Dir, nil, filepath.Join(b.Dir, "baseline"))
	if err != nil {
		return err
	}
	defer base.Stop()
	api, err := b.launch(b.environ(), "api")
	if err != nil {
		return err
	}
	defer api.Stop()

	t := hot()
	n := b.scale(300_000)
	for _, p := range []*drive.Process{base, api} { // warm up
		if _, err := drive.ClosedLoop(p.Addr, t, 64, n/10); err != nil {
			return err
		}
	}
	shipped := func() error { return untilShipped(ctx, api) }
	full, err := b.pairs(ctx, 13, base, api, t, n/2, shipped)
	if err != nil {
		return err
	}
	if err := b.Cluster.Stop(ctx); err != nil {
		return err
	}
	path, err := b.pairs(ctx, 25, base, api, t, n/4, nil)
	if err := errors.Join(err, b.Cluster.Start(ctx)); err != nil {
		return err
	}
	b.ratios("server CPU per redirect, request path (us)", path.ourCPU, path.theirCPU, "%.2f", 1.25)
	b.ratios("server CPU per redirect, with shipping (us)", full.ourCPU, full.theirCPU, "%.2f", 1.4)
	b.ratios("redirects per second, 64 connections", full.ourRate, full.theirRate, "%.0f", -0.8)
	return nil
}

// costs are the costs of rounds that were run in pairs: our round and their round of
// one index ran one right after the other.
type costs struct{ ourCPU, theirCPU, ourRate, theirRate []float64 }

// pairs measures both sides in turns, now the one first and now the other: the cost of
// a request drifts on a shared machine, and by far less within a pair.
func (b *bench) pairs(ctx context.Context, times int, base, api *drive.Process, t drive.Traffic, n int, settle func() error) (all costs, err error) {
	theirs := func() error {
		c, err := b.measure(ctx, base, t, 64, n, nil)
		all.theirCPU, all.theirRate = append(all.theirCPU, c.cpu), append(all.theirRate, c.rate)
		return err
	}
	ours := func() error {
		c, err := b.measure(ctx, api, t, 64, n, settle)
		all.ourCPU, all.ourRate = append(all.ourCPU, c.cpu), append(all.ourRate, c.rate)
		return err
	}
	for i := range times {
		first, second := theirs, ours
		if i%2 == 1 {
			first, second = ours, theirs
		}
		if err := first(); err != nil {
			return all, err
		}
		if err := second(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// recorded is how many clicks a process has kept in its spool so far: none, if it is the
// baseline.
func recorded(ctx context.Context, p *drive.Process) (int, error) {
	if p.Name == "baseline" {
		return 0, nil
	}
	kept, err := drive.Metric(ctx, p.Admin, "signpost_clicks_appended_total")
	return int(kept), err
}

// checkRecorded notes how many of the n redirects since before have no click. It gives
// the disk a while to answer.
func (b *bench) checkRecorded(ctx context.Context, p *drive.Process, before, n int) error {
	if p.Name == "baseline" {
		return nil
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := recorded(ctx, p)
		if missing := n - (now - before); err != nil || missing <= 0 || time.Now().After(deadline) {
			b.unrecorded += max(0, missing)
			return err
		}
	}
}

func untilShipped(ctx context.Context, api *drive.Process) error {
	return drive.Until(ctx, 2*time.Minute, 50*time.Millisecond, func(ctx context.Context) error { return drive.SpoolsEmpty(ctx, api.Admin) })
}

// disk compares fsync before every answer with none.
func (b *bench) disk(ctx context.Context) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(b.Dir, &fs); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", b.Dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory, where fsync costs nothing: set TMPDIR to a folder on a disk", b.Dir)
	}
	rate := map[string][]float64{}
	t := hot()
	for range 3 {
		for _, mode := range []string{"process", "disk"} {
			p, err := b.launch(b.environ("CLICK_DURABILITY="+mode), "api")
			if err != nil {
				return err
			}
			if _, err := drive.ClosedLoop(p.Addr, t, 4, 1000); err != nil { // warm up
				p.Stop()
				return err
			}
			c, err := b.measure(ctx, p, t, 512, b.scale(200_000), nil)
			p.Stop()
			if err != nil {
				return err
			}
			rate[mode] = append(rate[mode], c.rate)
		}
	}
	b.ratio("redirects per second, fsync before each answer, 512 connections", drive.Median(rate["disk"]), drive.Median(rate["process"]), "%.0f", -0.5)
	return nil
}

// outage compares the latency while Postgres is down with that before.
func (b *bench) outage(ctx context.Context) error {
	api, err := b.launch(b.environ(), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	const rate, conns = 3000, 64
	t := hot()
	drive.OpenLoop(ctx, api.Addr, t, conns, rate, 5*time.Second)
	kept, err := recorded(ctx, api)
	if err != nil {
		return err
	}
	var before, during []time.Duration
	answered, failed := 0, 0
	runs := 5
	if b.quick {
		runs = 1
	}
	for range runs {
		calm := drive.OpenLoop(ctx, api.Addr, t, conns, rate, 10*time.Second)
		trouble := make(chan error, 1)
		go func() { trouble <- b.interrupt(ctx, 20*time.Second) }()
		down := drive.OpenLoop(ctx, api.Addr, t, conns, rate, 30*time.Second) // recovery included
		if err := <-trouble; err != nil {
			return err
		}
		before, during = append(before, calm.Percentile(99)), append(during, down.Percentile(99))
		answered += len(calm.All) + len(down.All)
		failed += calm.Failed() + down.Failed()
		if err := untilShipped(ctx, api); err != nil {
			return err
		}
	}
	if err := b.checkRecorded(ctx, api, kept, answered); err != nil {
		return err
	}
	a, d := drive.Median(before), drive.Median(during)
	b.add(row{
		what: "p99 at 3,000/s, Postgres down 20 s (ms)",
		ours: fmt.Sprintf("%.2f", d.Seconds()*1000), theirs: fmt.Sprintf("%.2f", a.Seconds()*1000),
		ratio: fmt.Sprintf("%.2f", d.Seconds()/a.Seconds()), goal: "<= max(2 x, + 2 ms)",
		ok: d <= max(2*a, a+2*time.Millisecond),
	})
	b.add(row{what: "failed redirects meanwhile", ours: fmt.Sprint(failed), theirs: "-", ratio: "-", goal: "0", ok: failed == 0})
	return nil
}

func (b *bench) interrupt(ctx context.Context, d time.Duration) error {
	if err := b.Cluster.Stop(ctx); err != nil {
		return err
	}
	time.Sleep(d)
	return b.Cluster.Start(ctx)
}

// uncached compares a redirect that has to ask Postgres with many links with
// one that has to with few, in turns.
func (b *bench) uncached(ctx context.Context) error {
	const few = 1000
	many, n := b.scale(5_000_000), b.scale(20_000)
	var sides []side
	defer func() {
		for _, s := range sides {
			s.api.Stop()
			s.db.Close()
		}
	}()
	for _, links := range []int{few, many} {
		s, err := b.uncachedSide(ctx, links)
		if err != nil {
			return err
		}
		sides = append(sides, s)
		// Until each backend of Postgres has mapped the memory that they share.
		if _, err := drive.ClosedLoop(s.api.Addr, s.traffic, 4, 25*n); err != nil {
			return err
		}
	}
	costs, times := make([][]float64, len(sides)), make([][]float64, len(sides))
	for range 5 {
		for i, s := range sides {
			c, err := b.allMissed(ctx, s, n)
			if err != nil {
				return err
			}
			costs[i], times[i] = append(costs[i], c.cpu), append(times[i], 1e6/c.rate)
		}
	}
	fmt.Fprintf(os.Stderr, "bench:   %.0f us each over 4 connections with %d links, %.0f us with %d\n", drive.Median(times[1]), many, drive.Median(times[0]), few)
	b.ratio(fmt.Sprintf("CPU of api and Postgres per uncached redirect, %d links against %d (us)", many, few),
		drive.Median(costs[1]), drive.Median(costs[0]), "%.0f", 1.3)
	return nil
}

// side is an api that remembers no link, with a database of its own.
type side struct {
	api     *drive.Process
	db      *pgxpool.Pool
	traffic drive.Traffic
}

func (b *bench) uncachedSide(ctx context.Context, links int) (side, error) {
	url, err := b.Database(ctx, fmt.Sprintf("links%d", links))
	if err != nil {
		return side{}, err
	}
	db, err := pgxpool.New(ctx, url)
	if err != nil {
		return side{}, err
	}
	// The indexes for searching take minutes to fill and play no part here.
	//
	// The database becomes as one is that was not filled a moment ago: otherwise each first
	// look at a row reads its page, writes to it, and a vacuum of the server's own runs.
	err = sqlOn(ctx, db, "DROP INDEX urls_title_idx; DROP INDEX urls_original_url_idx; "+addUser+"; "+addLinks(links)+`;
		VACUUM (FREEZE, ANALYZE) urls; CREATE EXTENSION pg_prewarm;
		SELECT pg_prewarm('urls'), pg_prewarm('urls_short_code_key'); CHECKPOINT`)
	if err != nil {
		db.Close()
		return side{}, err
	}
	// The smallest cache and random codes: nearly every lookup is a miss.
	api, err := b.launch(append(b.environ("CACHE_SIZE=1"), "DATABASE_URL="+url), "api")
	return side{api: api, db: db, traffic: drive.Traffic{Agents: userAgents(5), Codes: codes(links)}}, err
}

// backendsCPU is the time that the backends of Postgres have used which serve the
// api in a database.
func backendsCPU(ctx context.Context, db *pgxpool.Pool) (total time.Duration, err error) {
	rows, err := db.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'signpost api'")
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

// allMissed returns the cost of one of n redirects, with the work of Postgres. It is
// an error that more than one in a hundred was answered from the cache.
func (b *bench) allMissed(ctx context.Context, s side, n int) (c cost, err error) {
	const metric = `signpost_link_cache_loads_total{result="found"}`
	before, err := drive.Metric(ctx, s.api.Admin, metric)
	if err != nil {
		return c, err
	}
	database, err := backendsCPU(ctx, s.db)
	if err != nil {
		return c, err
	}
	if c, err = b.measure(ctx, s.api, s.traffic, 4, n, nil); err != nil {
		return c, err
	}
	databaseAfter, err := backendsCPU(ctx, s.db)
	if err != nil {
		return c, err
	}
	c.cpu += float64((databaseAfter - database).Microseconds()) / float64(n)
	after, err := drive.Metric(ctx, s.api.Admin, metric)
	if err == nil && after-before < 0.99*float64(n) {
		err = fmt.Errorf("of %d redirects only %.0f asked Postgres", n, after-before)
	}
	return c, err
}
