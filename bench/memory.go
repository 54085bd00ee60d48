package main

import (
	"context"
	"fmt"
	"time"
)

// memory looks at what a process holds: with 100,000 links cached, and after
// ten million clicks that could not be shipped.
func (b *bench) memory(ctx context.Context) error {
	if err := b.sql(ctx, `
		TRUNCATE urls;
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT 1, 'link' || n, 'https://example.org/a/page/' || n FROM generate_series(0, 99999) n;
		VACUUM ANALYZE urls`); err != nil {
		return err
	}
	api, err := b.launch("signpost", b.environ("CACHE_SIZE=100000"), "api")
	if err != nil {
		return err
	}
	defer api.stop()
	if err := b.warm(api.addr, 100_000); err != nil {
		return err
	}
	if err := b.untilShipped(ctx, api); err != nil {
		return err
	}
	idle, err := lowest(api.resident)
	if err != nil {
		return err
	}
	b.limit("API memory, idle, 100,000 links cached (MiB)", idle, 96)

	// Links were evicted while others came in; those of the measure must be there.
	if _, err := closedLoop(api.addr, hot(), 64, 5000); err != nil {
		return err
	}
	if err := b.cluster.Stop(ctx); err != nil {
		return err
	}
	before, err := lowest(api.anonymous)
	if err == nil {
		_, err = closedLoop(api.addr, hot(), 64, b.scale(10_000_000))
	}
	var after int64
	if err == nil {
		after, err = lowest(api.anonymous)
	}
	if startErr := b.cluster.Start(ctx); err == nil {
		err = startErr
	}
	if err != nil {
		return err
	}
	b.limit(fmt.Sprintf("API anonymous memory gained by %d clicks, Postgres down (MiB)", b.scale(10_000_000)), after-before, 64)
	return nil
}

func (b *bench) limit(what string, bytes, goal int64) {
	b.add(row{
		what: what, ours: fmt.Sprintf("%.1f", float64(bytes)/(1<<20)), theirs: "-", ratio: "-",
		goal: fmt.Sprintf("<= %d", goal), ok: bytes <= goal<<20,
	})
}

// lowest is the least of some seconds, for what the garbage collector gives
// back comes and goes.
func lowest(read func() (int64, error)) (int64, error) {
	least, err := read()
	for range 40 {
		if err != nil {
			break
		}
		time.Sleep(250 * time.Millisecond)
		var n int64
		n, err = read()
		least = min(least, n)
	}
	return least, err
}

// warm asks for every link once.
func (b *bench) warm(addr string, links int) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // done with it
	for i := range links {
		status, err := c.get(fmt.Sprintf("/r/link%d", i), "bench/1", "")
		if err == nil && status != 302 {
			err = fmt.Errorf("status %d", status)
		}
		if err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
	}
	return nil
}
