package main

import (
	"context"
	"fmt"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// hot is the traffic of the redirect measures: a few links, always cached.
func hot() traffic {
	t := traffic{agents: userAgents(20)}
	for i := range 100 {
		t.codes = append(t.codes, fmt.Sprintf("link%d", i))
	}
	return t
}

// cost is what one round of a closed loop took.
type cost struct {
	cpu  float64 // microseconds of server CPU per request
	rate float64 // requests per second
}

func measure(p *proc, t traffic, conns, n int, settle func() error) (cost, error) {
	before, err := p.cpu()
	if err != nil {
		return cost{}, err
	}
	took, err := closedLoop(p.addr, t, conns, n)
	if err != nil {
		return cost{}, err
	}
	if settle != nil {
		if err := settle(); err != nil {
			return cost{}, err
		}
	}
	after, err := p.cpu()
	return cost{
		cpu:  float64((after - before).Nanoseconds()) / 1000 / float64(n),
		rate: float64(n) / took.Seconds(),
	}, err
}

// redirect compares a recorded redirect with a constant answer: once with
// shipping to Postgres, once with Postgres stopped, which leaves the request path.
func (b *bench) redirect(ctx context.Context) error {
	base, err := b.launch("baseline", nil)
	if err != nil {
		return err
	}
	defer base.stop()
	api, err := b.launch("signpost", b.environ(), "api")
	if err != nil {
		return err
	}
	defer api.stop()

	t := hot()
	n := b.scale(300_000)
	for _, p := range []*proc{base, api} { // warm up
		if _, err := closedLoop(p.addr, t, 64, n/10); err != nil {
			return err
		}
	}
	shipped := func() error { return b.untilShipped(ctx, api) }
	full, full0, err := rounds(5, base, api, t, n, shipped)
	if err != nil {
		return err
	}
	if err := b.cluster.Stop(ctx); err != nil {
		return err
	}
	path, path0, err := rounds(5, base, api, t, n, nil)
	if startErr := b.cluster.Start(ctx); err == nil {
		err = startErr
	}
	if err != nil {
		return err
	}
	b.ratio("server CPU per redirect, request path (us)", path.cpu, path0.cpu, "%.2f", 1.25)
	b.ratio("server CPU per redirect, with shipping (us)", full.cpu, full0.cpu, "%.2f", 1.4)
	b.ratio("redirects per second, 64 connections", full.rate, full0.rate, "%.0f", -0.8)
	return nil
}

// rounds measures both sides in turns and takes the medians.
func rounds(times int, base, api *proc, t traffic, n int, settle func() error) (ours, theirs cost, err error) {
	var oc, or, tc, tr []float64
	for range times {
		c, err := measure(base, t, 64, n, nil)
		if err != nil {
			return ours, theirs, err
		}
		tc, tr = append(tc, c.cpu), append(tr, c.rate)
		if c, err = measure(api, t, 64, n, settle); err != nil {
			return ours, theirs, err
		}
		oc, or = append(oc, c.cpu), append(or, c.rate)
	}
	return cost{median(oc), median(or)}, cost{median(tc), median(tr)}, nil
}

func (b *bench) untilShipped(ctx context.Context, api *proc) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		n, err := drive.Metric(ctx, api.admin, "signpost_spool_bytes")
		if err == nil && n == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the spool did not become empty: %v bytes: %w", n, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// disk compares fsync before every answer with none.
func (b *bench) disk(context.Context) error {
	rate := map[string][]float64{}
	t := hot()
	for range 3 {
		for _, mode := range []string{"process", "disk"} {
			p, err := b.launch("signpost", b.environ("CLICK_DURABILITY="+mode), "api")
			if err != nil {
				return err
			}
			c, err := measure(p, t, 512, b.scale(200_000), nil)
			p.stop()
			if err != nil {
				return err
			}
			rate[mode] = append(rate[mode], c.rate)
		}
	}
	b.ratio("redirects per second, fsync before each answer, 512 connections", median(rate["disk"]), median(rate["process"]), "%.0f", -0.5)
	return nil
}

// outage compares the latency while Postgres is down with that before.
func (b *bench) outage(ctx context.Context) error {
	api, err := b.launch("signpost", b.environ(), "api")
	if err != nil {
		return err
	}
	defer api.stop()
	const rate, conns = 3000, 64
	t := hot()
	if _, err := openLoop(ctx, api.addr, t, conns, rate, 5*time.Second); err != nil {
		return err
	}
	var before, during []time.Duration
	failed := 0
	runs := 5
	if b.quick {
		runs = 1
	}
	for range runs {
		calm, err := openLoop(ctx, api.addr, t, conns, rate, 10*time.Second)
		if err != nil {
			return err
		}
		trouble := make(chan error, 1)
		go func() { trouble <- b.interrupt(ctx, 20*time.Second) }()
		down, err := openLoop(ctx, api.addr, t, conns, rate, 30*time.Second) // recovery included
		if err != nil {
			return err
		}
		if err := <-trouble; err != nil {
			return err
		}
		before, during = append(before, calm.p99()), append(during, down.p99())
		failed += calm.failed + down.failed
		if err := b.untilShipped(ctx, api); err != nil {
			return err
		}
	}
	a, d := median(before), median(during)
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
	if err := b.cluster.Stop(ctx); err != nil {
		return err
	}
	time.Sleep(d)
	return b.cluster.Start(ctx)
}

// uncached compares a redirect that has to ask Postgres with many links with
// one that has to with few. Every code is asked for once.
func (b *bench) uncached(ctx context.Context) error {
	many := b.scale(5_000_000)
	cpuOf := func(links int) (float64, error) {
		if err := b.sql(ctx, fmt.Sprintf(`
			TRUNCATE urls;
			INSERT INTO urls (user_id, short_code, original_url)
			SELECT 1, 'code' || n, 'https://example.org/' || n FROM generate_series(0, %d) n;
			VACUUM ANALYZE urls`, links-1)); err != nil {
			return 0, err
		}
		// The smallest cache and random codes: nearly every lookup is a miss.
		p, err := b.launch("signpost", b.environ("CACHE_SIZE=1"), "api")
		if err != nil {
			return 0, err
		}
		defer p.stop()
		t := traffic{agents: userAgents(5)}
		for i := range links {
			t.codes = append(t.codes, fmt.Sprintf("code%d", i))
		}
		if _, err := closedLoop(p.addr, t, 4, 2000); err != nil {
			return 0, err
		}
		n := b.scale(40_000)
		took, err := closedLoop(p.addr, t, 4, n)
		return float64(took.Microseconds()) / float64(n), err
	}
	// The indexes for searching take minutes to fill and play no part here.
	if err := b.sql(ctx, `DROP INDEX urls_title_idx; DROP INDEX urls_original_url_idx`); err != nil {
		return err
	}
	few, err := cpuOf(1000)
	if err != nil {
		return err
	}
	lots, err := cpuOf(many)
	if err != nil {
		return err
	}
	b.ratio(fmt.Sprintf("time of an uncached redirect, %d links against 1,000 (us, 4 connections)", many), lots, few, "%.0f", 1.3)
	return nil
}
