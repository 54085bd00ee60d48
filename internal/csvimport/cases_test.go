package csvimport

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// TestCellsOfCases reads files of kinds that people have, and that were rejected
// because of the way in which their cells are written.
func TestCellsOfCases(t *testing.T) {
	t.Parallel()
	link := func(n int, code, more string) string {
		return fmt.Sprintf(`{%s"OriginalURL":"https://e.example/%d","ShortCode":"%s"%s,"UserID":3}`, "", n, code, more)
	}
	for name, want := range map[string][]string{
		"cells.csv": {
			link(1, "cells-one", ""), link(2, "cells-two", `,"Title":"T"`), link(3, "cells-three", `,"Tags":["x"],"Title":"T"`),
			` has text behind its last column: it has 5 fields, 4 are expected, and field 5 is "surplus"`,
		},
		"padded.csv": {link(1, "pad-one", `,"Title":"Fish, chips"`), link(2, "pad-two", `,"Title":"x"`)},
		"mysql.csv": {
			created("2021-03-04T05:06:07Z", 42) + link(1, "my1", "")[1:],
			`{"ImportedClicks":0,` + link(2, "my2", "")[1:],
			created("2021-03-04T05:06:07Z", 1) + link(3, "my3", `,"Title":"Say \"hi\", all"`)[1:],
			`{"ImportedClicks":0,` + link(4, "my4", `,"Title":"x"`)[1:],
			created("2021-03-04T05:06:07Z", 0) + link(5, "my5", `,"Title":"NULL"`)[1:],
		},
		"numbers.csv": {
			created("2024-05-01T08:00:00Z", 12) + link(1, "num1", `,"Title":"x"`)[1:],
			created("2024-05-01T08:00:00Z", 1204) + link(2, "num2", `,"Title":"x"`)[1:],
			"imported_clicks " + reasonClicks, "imported_clicks " + reasonClicks,
		},
		"times.csv": {
			`{"CreatedAt":"2024-05-01T08:00:00Z",` + link(1, "epoch-s", "")[1:], `{"CreatedAt":"2024-05-01T08:00:00Z",` + link(2, "epoch-ms", "")[1:],
			"created_at " + reasonDay, `{"CreatedAt":"2024-05-01T00:00:00Z",` + link(4, "day", "")[1:],
		},
		"quote.csv": {link(3, "quote-one", `,"Title":"6'5\" tall"`), link(4, "quote-two", `,"Title":"ok"`)},
	} {
		file, err := os.ReadFile("testdata/cases/" + name)
		require.NoError(t, err)
		rows, layout := readLinks(t, file, SplitOptions{})
		if !slices.Equal(rows, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(rows, "\n     "), strings.Join(want, "\n     "))
		}
		if escapes := layout.Escape == EscapeBackslash; escapes != (name == "mysql.csv") {
			t.Errorf("%s: backslashes escape quotes: %v", name, escapes)
		}
		checkMending(t, file, KindLinks, SplitOptions{})
	}
}

func created(at string, clicks int) string {
	return fmt.Sprintf(`{"CreatedAt":"%s","ImportedClicks":%d,`, at, clicks)
}

// TestEscape checks that the beginning of a file decides how its quotes are escaped,
// unless the query does, and in whatever pieces the file arrives.
func TestEscape(t *testing.T) {
	t.Parallel()
	const (
		h        = "original_url,title\n"
		standard = `https://example.com/,"C:\"` + "\n"
		escaped  = `https://example.com/,"a \"b\""` + "\n"
		broken   = `https://example.com/,"a" b` + "\n"
	)
	for name, test := range map[string]struct {
		file, asked, want string
		faults            int
	}{
		"no backslashes":              {h + "https://example.com/,x\n", "", "", 0},
		"standard":                    {h + standard, "", "", 0},
		"escaped":                     {h + escaped, "", EscapeBackslash, 0},
		"as many of both":             {h + standard + "\n" + escaped, "", "", 1},
		"more escaped":                {h + standard + strings.Repeat(escaped, 3), "", EscapeBackslash, 1},
		"more standard":               {h + strings.Repeat(standard, 3) + escaped, "", "", 1},
		"faults in both":              {h + broken + standard, "", "", 1},
		"said to be none":             {h + escaped, EscapeNone, "", 1},
		"said to be a backslash":      {h + standard, EscapeBackslash, EscapeBackslash, 1},
		"only later":                  {h + strings.Repeat("https://example.com/,x\n", escapeSample/20) + escaped, "", "", 1},
		"only later, and said":        {h + strings.Repeat("https://example.com/,x\n", escapeSample/20) + escaped, EscapeBackslash, EscapeBackslash, 0},
		"a header":                    {`"original_url","the \"title\""` + "\n" + `https://example.com/,x` + "\n", "", EscapeBackslash, 0},
		"a list":                      {`https://example.com/,code,"a \"b\", c"` + "\n", "", EscapeBackslash, 0},
		"surplus cells otherwise":     {h + `https://example.com/,"5\", 6\" pipes"` + "\n", "", EscapeBackslash, 0},
		"mended":                      {"line,reason," + h + `2,x,https://example.com/,"a\"` + "\n", EscapeBackslash, "", 0},
		"mended, and nothing is said": {"line,reason," + h + `2,x,https://example.com/,"a \"b\""` + "\n", "", "", 1},
	} {
		for _, in := range []io.Reader{strings.NewReader(test.file), iotest.OneByteReader(strings.NewReader(test.file))} {
			s, err := NewSplitter(in, KindLinks, SplitOptions{Escape: test.asked})
			if err != nil {
				t.Fatal(name, err)
			}
			faults := 0
			for {
				chunk, err := s.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(name, err)
				}
				faults += s.Layout().faults(chunk.Data, true)
			}
			if got := s.Layout().Escape; got != test.want || faults != test.faults {
				t.Errorf("%s: escape is %q with %d faults, want %q with %d", name, got, faults, test.want, test.faults)
			}
		}
	}
}

// TestAppendRecord checks that a record which is written can be read again, in every
// format.
func TestAppendRecord(t *testing.T) {
	t.Parallel()
	for _, cells := range [][]string{
		{"a", "", "b c"},
		{""},
		{" "},
		{" a", "a ", "\ta", "a\t", "\u00a0", "a\u3000"},
		{`"`, `a"b`, `\"`, `a\`, `\`},
		{`\N`, "NULL", `\.`},
		{"a,b", "a\nb", "a\rb", "\r\n", "\n"},
		{"a;b", "a|b", "\x00", "\xff"},
		{"", "", ""},
	} {
		written := AppendRecord([]byte("before\n"), cells)
		for _, format := range []string{FormatSignpost, "yourls"} {
			layout := Layout{Format: format}
			var got [][]string
			for record := range layout.records(written, 1, true) {
				d := layout.dialect()
				got = append(got, d.split([]byte(record.Raw), record.Raw, nil))
			}
			if len(got) != 2 || !slices.Equal(got[1], cells) {
				t.Errorf("%q is written as %q, and read as %q", cells, written, got)
			}
		}
	}
	if got, want := string(AppendRecord(nil, []string{"plain", "a b", "6'5\" tall", "x,y"})), "plain,a b,\"6'5\"\" tall\",\"x,y\"\n"; got != want {
		t.Errorf("written %q, want %q", got, want)
	}
}
