package csvimport

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// counted reads a whole file of links and groups the faults of its rows as the database
// does, except for the shape of reasons.
func counted(t *testing.T, file string, opts SplitOptions) (groups []Problem, unreadable []string, imported []Link, layout Layout) {
	t.Helper()
	s, err := NewSplitter(strings.NewReader(file), KindLinks, opts)
	require.NoError(t, err)
	parser := s.Layout().Parser(testRules)
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return groups, unreadable, imported, s.Layout()
		}
		require.NoError(t, err)
		for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
			link, reject := parser.Link(record)
			if reject == nil {
				imported = append(imported, link)
				continue
			}
			if reject.Kind == ProblemEncoding {
				unreadable = append(unreadable, reject.Raw)
			}
			same := func(p Problem) bool {
				return p.Column == reject.Column && p.Kind == reject.Kind && p.Reason == reject.Reason
			}
			at := slices.IndexFunc(groups, same)
			if at < 0 {
				at = len(groups)
				groups = append(groups, Problem{Outcome: OutcomeRejected, Column: reject.Column, Kind: reject.Kind, Reason: reject.Reason, Line: reject.Line})
			}
			groups[at].Rows++
		}
	}
}

// TestCaseOfEncodings uses the file cp1252.csv of the cases: no row is imported, one
// message gives the reason, and the file is imported with the parameter that the
// message names.
func TestCaseOfEncodings(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/cases/cp1252.csv")
	require.NoError(t, err)
	groups, unreadable, imported, layout := counted(t, string(file), SplitOptions{})
	want := []Problem{{
		Outcome: OutcomeRejected, Kind: ProblemEncoding, Reason: "the file is not UTF-8, it looks like Windows-1252",
		Rows: 2, Line: 2, Cure: "encoding=windows-1252 reads it",
	}}
	if got := layout.Problems(groups, unreadable, PolicyReject); len(imported) != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d imported, problems %+v, want %+v", len(imported), got, want)
	}
	groups, _, imported, layout = counted(t, string(file), SplitOptions{Encoding: EncodingWindows1252})
	if len(groups) != 0 || len(imported) != 2 || *imported[0].Title != "München – Bad" || *imported[1].Title != "Café" || layout.Encoding != EncodingWindows1252 {
		t.Errorf("in its encoding: problems %+v, links %+v", groups, imported)
	}
}

// A file that is not UTF-8 gets one message for the whole file, unless only some of its
// bytes are not UTF-8.
func TestProblemsOfEncoding(t *testing.T) {
	t.Parallel()
	const header = "original_url,short_code,title,tags\n"
	row := func(title, tags string) string { return "https://e.example/,," + title + "," + tags + "\n" }
	for _, tt := range []struct {
		name, file string
		opts       SplitOptions
		want       []Problem
	}{
		{
			"in several columns, beside a more frequent problem",
			header + strings.Repeat("ftp://x/,,,\n", 5) + row("caf\xe9", "") + row("", "stra\xdfe"),
			SplitOptions{},
			[]Problem{
				{OutcomeRejected, "", ProblemEncoding, "the file is not UTF-8, it looks like Windows-1252", 2, 7, "encoding=windows-1252 reads it"},
				{OutcomeRejected, "original_url", ProblemTarget, "must start with http:// or https://, since links lead to http and https only", 5, 2, ""},
			},
		},
		{
			"in another script", header + row("\xcf\xf0\xe8\xe2\xe5\xf2", ""),
			SplitOptions{},
			[]Problem{{OutcomeRejected, "", ProblemEncoding, "the file is not UTF-8", 1, 2, "encoding=… names its encoding, or save it as UTF-8"}},
		},
		{
			"stray bytes", header + row("Müller", "") + row("Stra\xdfe", "") + row("caf\xe9", "x") + row("", "a\xff"),
			SplitOptions{},
			[]Problem{
				{OutcomeRejected, "title", ProblemBytes, "must be valid UTF-8", 2, 3, ""},
				{OutcomeRejected, "tags", ProblemBytes, "must be valid UTF-8", 1, 5, ""},
			},
		},
		{
			"stray bytes in some chunks", header + row("caf\xe9", "") + row("caf\xe9", "") + row("Müller", "") + row("stra\xdfe", ""),
			SplitOptions{ChunkRows: 2},
			[]Problem{{OutcomeRejected, "title", ProblemBytes, "must be valid UTF-8", 3, 2, ""}},
		},
		{
			"no character of a named encoding", header + row("a\x81b", ""),
			SplitOptions{Encoding: EncodingWindows1252},
			[]Problem{{OutcomeRejected, "title", ProblemBytes, "has bytes that are no characters in windows-1252", 1, 2, ""}},
		},
	} {
		groups, unreadable, _, layout := counted(t, tt.file, tt.opts)
		if got := layout.Problems(groups, unreadable, PolicyReject); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestCures(t *testing.T) {
	t.Parallel()
	layout := Layout{Kind: KindLinks, Delimiter: ";", Columns: []string{"id", "user_id", "original_url"}, Header: []string{"ID", "User Id", "original_url"}}
	users, events := layout, layout
	users.Kind, events.Kind = KindUsers, KindEvents
	for _, tt := range []struct {
		layout Layout
		policy Policy
		column string
		kind   ProblemKind
		reason string
		want   string
	}{
		{layout, PolicyReject, "id", ProblemTaken, "is taken", "on_conflict=skip passes over rows that are there already, on_conflict=update updates what they name"},
		{events, PolicyReject, "id", ProblemTaken, "is taken", "on_conflict=skip passes over rows that are there already"},
		{layout, PolicyUpdate, "email", ProblemTaken, "is taken", ""},
		{layout, PolicyUpdate, "id", ProblemMismatch, "is not that", "mapping=ID: leaves the ids of the file out"},
		{layout, PolicyReject, "id", ProblemID, reasonID, "mapping=ID: leaves the ids of the file out"},
		{layout, PolicyReject, "user_id", ProblemID, reasonID, ""},
		{layout, PolicyReject, "user_id", ProblemMissing, "is not", `import the users first, or give the links to one with user_id=… and mapping="User Id:"`},
		{events, PolicyReject, "user_id", ProblemMissing, "is not", "import the users first"},
		{events, PolicyReject, "url_id", ProblemMissing, "is not", "import the links first"},
		{layout, PolicyReject, "user_id", ProblemEmpty, reasonEmpty, "user_id=… names the owner of links without one"},
		{users, PolicyReject, "email", ProblemEmpty, reasonEmpty, ""},
		{layout, PolicyReject, "", ProblemCells, reasonSurplus, `a cell that holds the delimiter, ";", must be in quotes`},
		{layout, PolicyReject, "title", ProblemQuotes, "has a quote" + hintEscape, `escape=backslash reads a file that writes quotes as \"`},
		{layout, PolicyReject, "title", ProblemQuotes, "has a quote", ""},
		{layout, PolicyReject, "title", ProblemValue, "must be", ""},
	} {
		got := tt.layout.Problems([]Problem{{Outcome: OutcomeRejected, Column: tt.column, Kind: tt.kind, Reason: tt.reason, Rows: 1}}, nil, tt.policy)
		if len(got) != 1 || got[0].Cure != tt.want || strings.Contains(got[0].Reason, "escape=") {
			t.Errorf("%s of %s, %s: %+v, want the cure %q", tt.kind, tt.column, tt.policy, got, tt.want)
		}
	}
}

// There is a limit on the number of problems. The most frequent ones are kept, and no
// row is lost.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, MaxProblems - 1, MaxProblems, MaxProblems + 1, 100} {
		groups := []Problem{{Outcome: OutcomeImported, Kind: ProblemReserved, Rows: 1000, Line: 9}}
		want := int64(1000)
		for i := range n - 1 {
			groups = append(groups, Problem{Outcome: OutcomeRejected, Column: fmt.Sprint("column ", i), Kind: ProblemValue, Rows: int64(1 + i), Line: int64(2 + i)})
			want += int64(1 + i)
		}
		if n > MaxProblems { // the rest that the database summed up comes last, and becomes part of the rest here
			groups = append(groups, Problem{Outcome: OutcomeRejected, Kind: ProblemOther, Rows: 1_000_000, Line: 2})
			want += 1_000_000
		}
		got := Layout{}.Problems(groups, nil, PolicyReject)
		sum := int64(0)
		for _, p := range got {
			sum += p.Rows
		}
		if len(got) != min(len(groups), MaxProblems) || sum != want || got[len(got)-1].Outcome != OutcomeImported {
			t.Errorf("of %d groups: %d problems of %d rows, want %d rows: %+v", len(groups), len(got), sum, want, got)
		}
		if len(groups) > MaxProblems {
			rest := got[MaxProblems-2]
			if got[0].Rows != int64(n-1) || rest.Kind != ProblemOther || rest.Line != 2 || rest.Reason != "other reasons" || rest.Rows < 1_000_000 {
				t.Errorf("of %d groups: the first is %+v, the rest %+v", len(groups), got[0], rest)
			}
		}
	}
}

func TestNotice(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"": "", "spring": "", "admin": "is a reserved word, so the link answers under /r/admin", "administrator": "",
	} {
		notice := (&Link{Line: 4, ShortCode: code}).Notice()
		if (notice != nil) != (want != "") || notice != nil && *notice != (Notice{4, "short_code", ProblemReserved, want}) {
			t.Errorf("%q: %+v, want %q", code, notice, want)
		}
	}
}
