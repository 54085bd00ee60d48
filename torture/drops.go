package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// drops counts the clicks that api processes say they dropped: answered, and
// not kept. A process forgets its counters when it is killed, so each of its
// lives is watched on two ways, its metrics and its log, and the larger number
// of each counts.
type drops struct {
	mu     sync.Mutex
	total  map[string]int // by reason, of lives that ended
	late   int            // clicks kept later than their redirect was answered
	errors []error
}

// life is one run of a process.
type life struct {
	n       int // it is the process's n-th
	began   time.Time
	sent    []syscall.Signal
	asked   time.Time // of the first SIGTERM
	log     int64
	dropped map[string]int // by reason, as its metrics say
	late    int
	// unwritten is how many clicks waited for the disk when it was last asked. They are
	// lost with a process that is killed.
	unwritten int
}

// end adds a life that ended to the account. Its log begins at l.log in file.
func (d *drops) end(l life, file string) {
	logged, err := droppedIn(file, l.log)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.errors = append(d.errors, err)
	}
	for reason, n := range logged {
		l.dropped[reason] = max(l.dropped[reason], n)
	}
	if slices.Contains(l.sent, syscall.SIGKILL) {
		l.dropped["unwritten"] = l.unwritten
	}
	if d.total == nil {
		d.total = map[string]int{}
	}
	for reason, n := range l.dropped {
		d.total[reason] += n
	}
	d.late += l.late
}

// sum returns all dropped clicks, those kept late, and the reasons as text. The
// processes have ended.
func (d *drops) sum() (dropped, late int, reasons string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(d.total)) {
		if n := d.total[reason]; n > 0 {
			dropped += n
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return dropped, d.late, strings.Join(parts, ", "), errors.Join(d.errors...)
}

// droppedIn adds up what a log says was dropped, from an offset on.
func droppedIn(file string, from int64) (map[string]int, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read-only
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	dropped := map[string]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "clicks dropped") {
			continue
		}
		var line struct {
			Msg, Reason string
			Clicks      int
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "clicks dropped" {
			dropped[line.Reason] += line.Clicks
		}
	}
	return dropped, lines.Err()
}

// watch asks a process for its drops, and looks at its memory, a few times a
// second until ctx ends.
func (p *proc) watch(ctx context.Context) {
	for ctx.Err() == nil {
		p.askDrops(ctx)
		p.lookAtMemory()
		drive.Pause(ctx, 250*time.Millisecond)
	}
}

// askDrops notes what the process's metrics say, for the life they are of.
func (p *proc) askDrops(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	p.mu.Lock()
	n := p.life.n
	p.mu.Unlock()
	late, err := drive.Metric(ctx, p.Admin, "signpost_clicks_late_total")
	if err != nil {
		return // it is being killed or started
	}
	unwritten, err := drive.Metric(ctx, p.Admin, "signpost_clicks_unwritten")
	if err != nil {
		return
	}
	samples, err := drive.Samples(ctx, p.Admin, "signpost_clicks_dropped_total")
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.n != n {
		return // the answer may be of one or the other
	}
	for labels, value := range samples {
		reason := strings.TrimSuffix(strings.TrimPrefix(labels, `{reason="`), `"}`)
		p.life.dropped[reason] = max(p.life.dropped[reason], int(value))
	}
	p.life.late = max(p.life.late, int(late))
	p.life.unwritten = int(unwritten)
}
