package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// memory measures the memory of an api: with 100,000 links cached, and after
// ten million clicks that could not be shipped.
func (b *bench) memory(ctx context.Context) error {
	const links = 100_000
	if err := b.makeLinks(ctx, links); err != nil {
		return err
	}
	// The cache is divided into parts that fill unevenly: some room to spare.
	api, err := b.launch(b.environ("CACHE_SIZE=110000"), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	all := drive.Traffic{Agents: userAgents(1), Codes: codes(links), Turn: new(atomic.Int64)}
	if _, err := drive.ClosedLoop(api.Addr, all, 1, links); err != nil {
		return err
	}
	if cached, err := drive.Metric(ctx, api.Admin, "signpost_link_cache_entries"); err != nil || cached < links {
		return errors.Join(fmt.Errorf("%.0f of %d links are cached", cached, links), err)
	}
	if err := untilShipped(ctx, api); err != nil {
		return err
	}
	idle, err := lowest(api.Resident)
	if err != nil {
		return err
	}
	b.limit("API memory, idle, 100,000 links cached (MiB)", idle, 96)

	// The buffers of the connections are not part of the measure.
	if _, err := drive.ClosedLoop(api.Addr, hot(), 64, 5000); err != nil {
		return err
	}
	if err := b.Cluster.Stop(ctx); err != nil {
		return err
	}
	before, err := lowest(api.Anonymous)
	if err == nil {
		_, err = b.measure(ctx, api, hot(), 64, b.scale(10_000_000), nil)
	}
	var after int64
	if err == nil {
		after, err = lowest(api.Anonymous)
	}
	if err := errors.Join(err, b.Cluster.Start(ctx)); err != nil {
		return err
	}
	b.limit(fmt.Sprintf("API anonymous memory gained by %d clicks, Postgres down (MiB)", b.scale(10_000_000)), after-before, 64)
	return nil
}

// lowest is the least of some seconds, because the garbage collector gives memory
// back now and then.
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
