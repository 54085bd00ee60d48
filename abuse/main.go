// Abuse attacks a running Signpost as strangers and holders of tokens can, and
// watches the redirects meanwhile.
//
//	go run ./abuse            every attack, about ten minutes
//	go run ./abuse -short     what continuous integration has time for
//
// It runs the real binary (one api, one worker, with the memory limit of the
// Compose file and a bound on open files) on a private Postgres with many links.
// Clients follow links at a fixed, light rate the whole time, over connections
// that they renew: some links that are cached, and some that exist and were
// never asked for before. Each attack is preceded by a calm of the same length.
//
// It prints one table, and exits with 1 if a promise was broken: a redirect that
// failed, an api that ended, more memory than the container has, p99 of cached
// redirects more than 10 ms beyond the calm's, or a place that an attacker keeps
// others out of. Latencies are those of the clients, counted from the moment at
// which a request was due. Attackers and server share the machine, so attackers
// are paced, each attack has several rounds of which the median counts, and one
// that is too slow gets a second try. The short form holds latencies at a generous
// bound only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// settings are the flags and the values that follow from them.
type settings struct {
	short bool
	only  string

	links    int           // in the database
	rounds   int           // of each attack
	lasts    time.Duration // a calm, and an attack
	mayAdd   time.Duration // to p99 of cached redirects
	slowest  time.Duration // most that p50 of uncached redirects may be in a flood of unknown codes
	untilCut bool          // wait until slow clients are cut off
}

// memoryLimit bounds the memory of an api: the limit of its container.
const memoryLimit = 512 << 20

func main() {
	s := settings{links: 300_000, rounds: 3, lasts: 10 * time.Second, mayAdd: 10 * time.Millisecond, slowest: 44 * time.Millisecond, untilCut: true}
	flag.BoolVar(&s.short, "short", false, "one short round of each attack, with generous bounds of time")
	flag.StringVar(&s.only, "only", "", "only attacks whose name contains this")
	flag.Parse()
	if s.short {
		s.links, s.rounds, s.lasts, s.mayAdd, s.slowest, s.untilCut = 50_000, 1, 4*time.Second, 2*time.Second, 2*time.Second, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, s)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "abuse: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	sys, err := prepare(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.remove(context.WithoutCancel(ctx), err != nil)) }()
	var results []*result
	for _, a := range sys.attacks() {
		if !strings.Contains(a.name, s.only) {
			continue
		}
		if a.prepare != nil {
			if err := a.prepare(ctx); err != nil {
				return fmt.Errorf("prepare %s: %w", a.name, err)
			}
		}
		r, err := sys.through(ctx, a)
		if err == nil && r.tooSlow && len(r.broken) == 1 {
			fmt.Printf("abuse: %s: a second try\n", a.name)
			r, err = sys.through(ctx, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return fmt.Errorf("no attack has %q in its name", s.only)
	}
	return report(results)
}

// report prints the table. It is an error that a promise was broken.
func report(results []*result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nATTACK\tCACHED p50\tp99\tCALM p99\tFAILED\tUNCACHED p50\tp99\tFAILED\tMEMORY\tVERDICT")
	var broken []string
	for _, r := range results {
		verdict := "held"
		if len(r.broken) > 0 {
			verdict = "BROKEN"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d MiB\t%s\n", r.name,
			short(r.cached.Percentile(50)), short(r.p99), short(r.calm), failures(r.cached),
			short(r.uncached.Percentile(50)), short(r.uncached.Percentile(99)), failures(r.uncached), r.memory>>20, verdict)
		for _, what := range r.broken {
			broken = append(broken, r.name+": "+what)
		}
	}
	_ = w.Flush()
	fmt.Println("\np99 of cached redirects is the median of the rounds, as is the calm's.")
	for _, r := range results {
		if len(r.answers) > 0 {
			fmt.Printf("%s: attackers were answered %v\n", r.name, r.answers)
		}
		for _, note := range r.notes {
			fmt.Printf("%s: %s\n", r.name, note)
		}
	}
	if len(broken) > 0 {
		return errors.New("promises were broken:\n  " + strings.Join(broken, "\n  "))
	}
	fmt.Println("\nevery promise was kept")
	return nil
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
