// Package drive is for programs that drive Signpost's processes from outside (abuse,
// bench, torture, chaos, monitoring-check). It builds and starts processes, sends them load, keeps the
// account of clicks, waits until the pipeline is empty, and reads metrics and the use
// of memory and processors.
package drive

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// direct connects to the process itself, even if the environment names a proxy, and
// follows no redirect.
var direct = &http.Client{
	Transport:     &http.Transport{},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// FreeAddr returns an address of 127.0.0.1 with a port on which nobody listens at this
// moment.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// Median returns the value in the middle, of which there has to be one.
func Median[T int64 | float64 | time.Duration](values []T) T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

// Metrics are the samples of one process at one moment, by name with labels as they are
// written, such as `signpost_clicks_dropped_total{reason="stuck"}`.
type Metrics map[string]float64

// Scrape returns the metrics of the process whose admin listener is on addr.
func Scrape(ctx context.Context, addr string) (Metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask for metrics: %w", err)
	}
	resp, err := direct.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for metrics: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for metrics: %s answered %s", addr, resp.Status)
	}
	metrics := Metrics{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metrics: %w", err)
		}
		metrics[line[:max(at, 0)]] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return metrics, nil
}

// Sum adds up the samples of a metric, whatever their labels. It is an error if there
// are none.
func (m Metrics) Sum(metric string) (sum float64, err error) {
	err = fmt.Errorf("no metric %s", metric)
	for sample, value := range m {
		if sample == metric || strings.HasPrefix(sample, metric+"{") {
			sum, err = sum+value, nil
		}
	}
	return sum, err
}

// Metric returns the sum of a metric of the process whose admin listener is on addr.
func Metric(ctx context.Context, addr, metric string) (float64, error) {
	metrics, err := Scrape(ctx, addr)
	if err != nil {
		return 0, err
	}
	return metrics.Sum(metric)
}

// Drops adds up the clicks that processes say they dropped. A process forgets its
// counters when it ends, so those that it drops after it was last asked stay unknown.
// The zero value is ready for use, also concurrently.
type Drops struct {
	mu   sync.Mutex
	runs map[string]drops  // by address and start
	last map[string]string // the last run of each address
}

type drops struct {
	reported float64
	// unwritten clicks wait for the disk, and are lost with a process that is killed.
	unwritten float64
}

// Ask asks the process whose admin listener is on addr, and returns how many clicks it
// has reported as dropped since it was last asked.
func (d *Drops) Ask(ctx context.Context, addr string) (more float64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	metrics, err := Scrape(ctx, addr)
	if err != nil {
		return 0 // it is being killed or started
	}
	reported, _ := metrics.Sum("signpost_clicks_dropped_total")
	now := drops{reported: reported, unwritten: metrics["signpost_clicks_unwritten"]}
	run := fmt.Sprint(addr, " ", metrics["process_start_time_seconds"])
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs == nil {
		d.runs, d.last = map[string]drops{}, map[string]string{}
	}
	d.last[addr] = run
	before := d.runs[run]
	now.reported = max(now.reported, before.reported) // a later answer may have been faster
	d.runs[run] = now
	return now.reported - before.reported
}

// Stopped says that the process whose admin listener was on addr stopped by itself, so
// that it has written what was unwritten when it was last asked.
func (d *Drops) Stopped(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run, known := d.runs[d.last[addr]]; known {
		run.unwritten = 0
		d.runs[d.last[addr]] = run
	}
}

// Total returns how many clicks were dropped or lost by all processes. Those that still
// run must have been asked when nothing was under way.
func (d *Drops) Total() (total float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, run := range d.runs {
		total += run.reported + run.unwritten
	}
	return total
}
