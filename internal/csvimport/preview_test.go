package csvimport

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A preview of each file that the tests have finds what an import of it does, also if it
// is given the beginning only.
func TestPreviewAgreesWithImport(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*.csv")
	require.NoError(t, err)
	examples, err := filepath.Glob("../../examples/*.csv")
	require.NoError(t, err)
	rules := Rules{Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), UserID: 1}
	for _, name := range append(names, examples...) {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		kind := GuessKind(file, SplitOptions{})
		for _, size := range []int{len(file), len(file) / 2} {
			p, err := NewPreview(file[:size], size == len(file), kind, SplitOptions{}, rules, PolicyReject)
			s, importErr := NewSplitter(bytes.NewReader(file), kind, SplitOptions{})
			if importErr != nil || err != nil {
				if size == len(file) {
					assert.Equal(t, importErr, errors.Join(err, p.Fault), name)
				}
				continue
			}
			assert.NoError(t, p.Fault, name)
			if size == len(file) {
				assert.Equal(t, s.Layout(), p.Layout, name)
			}
			agree(t, name, s, p, rules)
		}
	}
}

// agree compares the rows of a preview with those of an import.
func agree(t *testing.T, name string, s *Splitter, p Preview, rules Rules) {
	t.Helper()
	parser := s.Layout().Parser(rules)
	var read, rejected int64
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, name)
		for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
			if read == p.Read {
				break
			}
			reject, _ := parser.check(s.Layout().Kind, record)
			if read < int64(len(p.Rows)) {
				assert.Equal(t, record.Line, p.Rows[read].Line, name)
				assert.Equal(t, reject, p.Rows[read].Reject, name)
			}
			if read++; reject != nil {
				rejected++
			}
		}
	}
	assert.Equal(t, read, p.Read, name)
	assert.Equal(t, rejected, p.Rejected, name)
}

func TestPreview(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, file string
		kind       Kind // "" guesses it
		opts       SplitOptions
		part       bool // more follows
		wantKind   Kind
		readAs     string
		read       int64
		rejected   int64
		fault      string
		problem    string // column, kind, cure
	}{
		{name: "users", file: "Username;E-Mail;x\nann;ann@example.com;1\n", wantKind: KindUsers, readAs: "username email -", read: 1},
		{name: "events", file: "url_id,event_type,timestamp\n1,clicked,2026-01-01\n", wantKind: KindEvents, readAs: "url_id event_type timestamp", read: 1},
		{
			name: "columns of one's own", file: "Goes to,Name\nhttps://example.com/a,a\n", wantKind: KindLinks, readAs: "- -", read: 1,
			fault: "the first line names no column of urls, and is not the header of another shortener's export that is known",
		},
		{
			name: "mapped", file: "Goes to,Name\nhttps://example.com/a,a\n", opts: SplitOptions{Mapping: map[string]string{"Goes to": "original_url"}}, kind: KindLinks, wantKind: KindLinks,
			readAs: "original_url -", read: 1,
		},
		{name: "a column is missing", file: "username\nann\n", kind: KindUsers, wantKind: KindUsers, readAs: "username", read: 1, fault: "needs the column email"},
		{name: "a column twice", file: "username,email,Email\nann,a@example.com,b@example.com\n", kind: KindUsers, wantKind: KindUsers, readAs: "username email email", read: 1, fault: "both mean email"},
		{name: "the last row is cut", file: "username,email\nann,ann@example.com\nbob,bob@exam", part: true, wantKind: KindUsers, readAs: "username email", read: 1},
		{name: "the last row is whole", file: "username,email\nann,ann@example.com\nbob,bob@exam", wantKind: KindUsers, readAs: "username email", read: 2},
		{
			name: "another encoding", file: "username,email\nann\xfc,ann@example.com\nj\xf6rg,jorg@example.com\n", wantKind: KindUsers, readAs: "username email", read: 2, rejected: 2,
			problem: " encoding encoding=windows-1252 reads it",
		},
		{name: "a wrong row", file: "original_url,user_id\nftp://x,1\nhttps://example.com/,1\n", wantKind: KindLinks, readAs: "original_url user_id", read: 2, rejected: 1, problem: "original_url target "},
		{name: "a notice", file: "original_url,user_id,short_code\nhttps://example.com/,1,app\n", wantKind: KindLinks, readAs: "original_url user_id short_code", read: 1, problem: "short_code reserved "},
	} {
		kind := test.kind
		if kind == "" {
			kind = GuessKind([]byte(test.file), test.opts)
		}
		assert.Equal(t, test.wantKind, kind, test.name)
		p, err := NewPreview([]byte(test.file), !test.part, kind, test.opts, Rules{Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), UserID: 1}, PolicyReject)
		require.NoError(t, err, test.name)
		names, readAs := p.Layout.PreviewColumns()
		readAs = slices.Clone(readAs)
		assert.Len(t, names, len(readAs), test.name)
		for i := range readAs {
			if readAs[i] == "" {
				readAs[i] = "-"
			}
		}
		assert.Equal(t, test.readAs, strings.Join(readAs, " "), test.name)
		assert.Equal(t, [2]int64{test.read, test.rejected}, [2]int64{p.Read, p.Rejected}, test.name)
		if test.fault == "" {
			assert.NoError(t, p.Fault, test.name)
		} else {
			assert.ErrorContains(t, p.Fault, test.fault, test.name)
		}
		said := ""
		for _, problem := range p.Problems {
			said += problem.Column + " " + string(problem.Kind) + " " + problem.Cure
		}
		assert.Equal(t, test.problem, said, test.name)
	}
	for file, says := range map[string]string{"": "empty", "PK\x03\x04": "ZIP", "\"a": "quotes do not match"} {
		_, err := NewPreview([]byte(file), true, KindUsers, SplitOptions{}, Rules{}, PolicyReject)
		assert.ErrorContains(t, err, says)
	}
	_, err := NewPreview([]byte("username,email\n"), true, KindUsers, SplitOptions{Mapping: map[string]string{"x": "email"}}, Rules{}, PolicyReject)
	assert.ErrorContains(t, err, `no column "x" to map`)
	long := "username,email," + strings.Repeat("x,", 100) + "\n" + strings.Repeat("ü", 200) + ",a@example.com" + strings.Repeat(",x", 100)
	p, err := NewPreview([]byte(long), true, KindUsers, SplitOptions{}, Rules{}, PolicyReject)
	require.NoError(t, err)
	assert.Len(t, p.Rows[0].Cells, maxPreviewCells)
	assert.Equal(t, strings.Repeat("ü", maxPreviewCell)+"…", p.Rows[0].Cells[0])
}
