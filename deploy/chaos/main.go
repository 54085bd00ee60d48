// Chaos disturbs a running Compose system under load and then counts.
//
//	deploy/chaos.sh            every fault, a few minutes
//	deploy/chaos.sh -short     what continuous integration has time for
//
// Clients follow links through the load balancer the whole time: some that every
// replica remembers, some that none has seen, and malformed requests besides.
// Meanwhile the main processes of an api, a worker, Postgres and Redis are killed
// from outside their containers, Postgres is paused, replicas are cut off from it
// and the disk of the spool is filled. Then everything is left alone until the
// pipeline is empty, one table is printed, and it exits with 1 if a promise was
// broken. It needs root, and a system whose data may get some links and clicks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// recovery is the promised time from the end of a fault to a whole system.
var recovery = 10 * time.Second

// starved says that the machine may keep a write to a sound disk waiting for more
// than the 50 ms that a redirect waits, so that a click is reported as dropped.
var starved bool

func main() {
	brief := flag.Bool("short", false, "shorter faults, and only one network cut")
	only := flag.String("only", "", "only faults whose name contains this")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *brief, *only)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, brief bool, only string) error {
	sys, err := findSystem(ctx)
	if err != nil {
		return err
	}
	l := newLoad(sys)
	if brief {
		// Continuous integration runs on busy machines: bounds of time are held
		// at several times what is promised, and the true figures are printed.
		recovery, starved = 9*recovery, true
	}
	faults, err := choose(allFaults(sys, l, brief), only)
	if err != nil {
		return err
	}
	if err := l.prepare(ctx); err != nil {
		return err
	}

	under, stop := context.WithCancel(ctx)
	defer stop()
	var clients sync.WaitGroup
	clients.Go(func() { l.run(under) })
	err = disturb(ctx, l, faults)
	stop()
	clients.Wait()
	if err != nil {
		return err
	}
	fmt.Println("chaos: the faults are over, waiting for the pipeline to become empty")
	if err := drive.Settle(ctx, sys, 3*time.Minute); err != nil {
		return err
	}
	broken, err := l.account(ctx)
	if err != nil {
		return err
	}
	if err := l.cleanUp(ctx); err != nil {
		return err
	}
	if len(broken) > 0 {
		return errors.New("promises were broken:\n  " + strings.Join(broken, "\n  "))
	}
	fmt.Println("\nevery promise was kept")
	return nil
}

// choose returns the faults whose name contains a text, of which there has to be
// one: a run without faults would keep every promise.
func choose(faults []fault, only string) (chosen []fault, err error) {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
		if strings.Contains(f.name, only) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no fault has %q in its name: there are %s", only, strings.Join(names, ", "))
	}
	return chosen, nil
}

// disturb goes through the faults, with a calm before each and after the last.
func disturb(ctx context.Context, l *load, faults []fault) error {
	for _, f := range faults {
		l.begin(phase{name: "(calm)"})
		drive.Pause(ctx, calm)
		if err := l.through(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	l.begin(phase{name: "(calm)"})
	drive.Pause(ctx, calm)
	return ctx.Err()
}

// calm separates faults, and is longer than an engine takes to trust a container
// again that it has just restarted.
const calm = 3 * time.Second

// through carries out one fault and watches the system recover.
func (l *load) through(ctx context.Context, f fault) error {
	if f.prepare != nil {
		l.begin(phase{name: "(" + f.prepared + ")"})
		if err := f.prepare(ctx); err != nil {
			return err
		}
		drive.Pause(ctx, calm)
	}
	p := l.begin(phase{name: f.name, interrupts: f.interrupts, drops: f.drops})
	began := time.Now()
	if err := f.hurt(ctx); err != nil {
		return err
	}
	drive.Pause(ctx, f.lasts)
	if f.heal != nil {
		if err := f.heal(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	end := time.Now()
	if f.lasts > 0 {
		p.lasted = end.Sub(began)
	}
	limit, cancel := context.WithTimeout(ctx, max(time.Minute, recovery))
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { p.first = l.until(limit, end, l.redirects) })
	both.Go(func() { p.whole = l.until(limit, end, f.whole) })
	both.Wait()
	l.askDrops(ctx) // drops until now belong to this fault
	if f.after != nil {
		l.begin(phase{name: "(" + f.prepared + " back)"})
		if err := f.after(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	fmt.Printf("chaos: %s: first redirect after %s, whole again after %s\n", f.name, short(p.first), short(p.whole))
	return ctx.Err()
}

// until returns how long after since ok became true; never when it did not.
func (l *load) until(ctx context.Context, since time.Time, ok func(context.Context) bool) time.Duration {
	for ctx.Err() == nil {
		if ok(ctx) {
			return time.Since(since)
		}
		drive.Pause(ctx, 50*time.Millisecond)
	}
	return never
}

const never = time.Hour

// short shows a duration, and nothing where there was nothing to measure.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d >= never:
		return "never"
	}
	return d.Round(10 * time.Millisecond).String()
}
