package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// meterLines is how often a meter prints its progress if it has no bar.
const meterLines = 5 * time.Second

// A meter shows progress to a person: as a bar on a terminal, and elsewhere as a line
// from time to time. It has one task at a time, and may be used concurrently.
type meter struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil without a terminal, and between tasks
	task  string
	unit  func(int64) string
	total int64 // -1 if it is not known
	said  time.Time
}

func newMeter(out io.Writer) *meter {
	file, ok := out.(*os.File)
	return &meter{out: out, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// begin starts a task of total units, -1 if the number is not known.
func (m *meter) begin(task string, total int64, bytes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	m.task, m.total, m.unit, m.said = task, total, humanize.Comma, time.Now()
	if bytes {
		m.unit = func(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
	}
	if !m.terminal {
		return
	}
	m.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(m.out), progressbar.OptionSetDescription(task),
		progressbar.OptionShowBytes(bytes), progressbar.OptionUseIECUnits(true), progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(30),
		progressbar.OptionSetItsString("rows"), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetSpinnerChangeInterval(0)) // otherwise it draws from a goroutine that nobody stops
}

// at sets the progress of the task.
func (m *meter) at(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil {
		_ = m.bar.Set64(done) // an error (beyond the end, or no terminal any more) does not matter
		return
	}
	if now := time.Now(); now.Sub(m.said) >= meterLines {
		m.said = now
		text := m.task + ": " + m.unit(done)
		if m.total > 0 {
			text += " of " + m.unit(m.total)
		}
		m.print(text)
	}
}

// end removes the bar.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
}

func (m *meter) clear() {
	if m.bar != nil {
		_ = m.bar.Clear()
		m.bar = nil
	}
}

// say prints a line; a bar continues below it.
func (m *meter) say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil {
		_ = m.bar.Clear()
	}
	m.print(fmt.Sprintf(format, args...))
}

func (m *meter) print(line string) { _, _ = fmt.Fprintln(m.out, line) }

// rowsOf writes a number of rows.
func rowsOf(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return humanize.Comma(n) + " rows"
}
