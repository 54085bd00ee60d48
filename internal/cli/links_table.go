package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/signpost/signpost/internal/client"
)

// table writes rows: aligned for a person at a terminal, and separated by tabs for a
// program.
type table struct {
	out      io.Writer
	flush    func() error
	terminal bool
}

func newTable(out io.Writer) *table {
	if isTerminal(out) {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		return &table{w, w.Flush, true}
	}
	w := bufio.NewWriter(out)
	return &table{w, w.Flush, false}
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// header writes the names of the columns, for people only.
func (t *table) header(names ...string) {
	if t.terminal {
		_ = t.row(names...) // the next row fails too
	}
}

// row writes a row. Tabs and line ends within a field would make it two.
func (t *table) row(fields ...string) error {
	for i, field := range fields {
		fields[i] = printable(strings.ReplaceAll(field, "\t", " "))
	}
	_, err := fmt.Fprintln(t.out, strings.Join(fields, "\t"))
	return err
}

// time writes a time for people or programs, "" if there is none.
func (t *table) time(at *time.Time) string {
	switch {
	case at == nil:
		return ""
	case t.terminal:
		return at.Local().Format("2006-01-02 15:04")
	}
	return at.UTC().Format(time.RFC3339)
}

func (t *table) number(n int64) string {
	if t.terminal {
		return humanize.Comma(n)
	}
	return fmt.Sprint(n)
}

// short cuts a text that would make the rows of a person's table too long.
func (t *table) short(text string, limit int) string {
	if signs := []rune(text); t.terminal && len(signs) > limit {
		return string(signs[:limit-1]) + "…"
	}
	return text
}

func listLink(t *table, l client.Link, now time.Time) error {
	return t.row(l.ShortURL, t.short(l.OriginalURL, 50), t.number(l.Clicks), t.number(l.People), state(l, now),
		t.time(&l.CreatedAt), t.short(strings.Join(l.Tags, ","), 30), t.short(title(l), 40))
}

// showLink writes the fields of a link, one a line.
func showLink(t *table, l client.Link) error {
	for _, row := range [][2]string{
		{"id", fmt.Sprint(l.ID)},
		{"short url", l.ShortURL},
		{"target", l.OriginalURL},
		{"title", title(l)},
		{"tags", strings.Join(l.Tags, ",")},
		{"state", state(l, time.Now())},
		{"ends", t.time(l.ExpiresAt)},
		{"clicks", t.number(l.Clicks)},
		{"people", t.number(l.People)},
		{"last click", t.time(l.LastClickedAt)},
		{"redirect status", fmt.Sprint(l.RedirectStatus)},
		{"forwards query", fmt.Sprint(l.ForwardQuery)},
		{"user", fmt.Sprint(l.UserID)},
		{"domain", l.Domain},
		{"created", t.time(&l.CreatedAt)},
	} {
		if err := t.row(row[:]...); err != nil {
			return err
		}
	}
	return t.flush()
}

func title(l client.Link) string { return *cmp.Or(l.Title, new(string)) }

func state(l client.Link, now time.Time) string {
	switch {
	case !l.IsActive:
		return "off"
	case l.ExpiresAt != nil && !now.Before(*l.ExpiresAt):
		return "ended"
	}
	return "on"
}
