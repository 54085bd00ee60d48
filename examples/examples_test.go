package examples

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/csvimport"
)

// TestREADME applies the files in order to a model of the database, and finds
// each rejection in the README.
func TestREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var m model
	m.names, m.users, m.links = map[string]bool{}, map[int64]bool{}, map[int64]bool{}
	for _, kind := range []csvimport.Kind{csvimport.KindUsers, csvimport.KindLinks, csvimport.KindEvents} {
		rows, rejected := m.load(t, kind)
		total := fmt.Sprintf("| `%s.csv` | %d | %d | %d |\n", kind, rows, rows-len(rejected), len(rejected))
		if !strings.Contains(string(readme), total) {
			t.Errorf("README does not say %q", total)
		}
		if listed := strings.Count(string(readme), fmt.Sprintf("\n| %s.csv |", kind)); listed != len(rejected) {
			t.Errorf("README lists %d rejected rows of %s, want %d", listed, kind, len(rejected))
		}
		for _, r := range rejected {
			if want := fmt.Sprintf("| %s.csv | %d | `%s` |", kind, r.Line, r.Column); !strings.Contains(string(readme), want) {
				t.Errorf("README does not list %q", want)
			}
		}
	}
}

type model struct {
	names        map[string]bool
	users, links map[int64]bool
}

func (m *model) load(t *testing.T, kind csvimport.Kind) (rows int, rejected []csvimport.Reject) {
	t.Helper()
	file, err := os.Open(string(kind) + ".csv")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	s, err := csvimport.NewSplitter(file, kind, csvimport.SplitOptions{ChunkRows: 50})
	require.NoError(t, err)
	parser := s.Layout().Parser(csvimport.Rules{Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), KeepIDs: true})
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return rows, rejected
		}
		require.NoError(t, err)
		for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
			rows++
			if reject := m.apply(parser, kind, record); reject != nil {
				rejected = append(rejected, *reject)
			}
		}
	}
}

func (m *model) apply(parser *csvimport.Parser, kind csvimport.Kind, record csvimport.Record) *csvimport.Reject {
	refused := func(column string) *csvimport.Reject {
		return &csvimport.Reject{Line: record.Line, Column: column}
	}
	switch kind {
	case csvimport.KindUsers:
		user, reject := parser.User(record)
		if reject != nil {
			return reject
		}
		name := strings.ToLower(user.Username)
		if m.names[name] {
			return refused("username")
		}
		m.names[name], m.users[*user.ID] = true, true
	case csvimport.KindLinks:
		link, reject := parser.Link(record)
		if reject != nil {
			return reject
		}
		if !m.users[link.UserID] {
			return refused("user_id")
		}
		m.links[*link.ID] = true
	default:
		event, reject := parser.Event(record)
		switch {
		case reject != nil:
			return reject
		case !m.links[event.URLID]:
			return refused("url_id")
		case !m.users[*event.UserID]:
			return refused("user_id")
		}
	}
	return nil
}
