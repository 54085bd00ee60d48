package csvimport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
)

var ownHosts, _ = links.ParseHosts("sho.rt")

// testRules are the rules on a fixed day.
var testRules = Rules{
	OwnHosts: ownHosts, KeepIDs: true, UserID: 3,
	Now: time.Date(2026, 2, 10, 12, 0, 0, 0, time.UTC),
}

// readLinks reads a whole file of links. It returns each link as JSON without fields
// that are nil, and each rejection as column and reason.
func readLinks(t *testing.T, file []byte, opts SplitOptions) ([]string, Layout) {
	t.Helper()
	s, err := NewSplitter(bytes.NewReader(file), KindLinks, opts)
	require.NoError(t, err)
	parser := s.Layout().Parser(testRules)
	var rows []string
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return rows, s.Layout()
		}
		require.NoError(t, err)
		for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
			link, reject := parser.Link(record)
			if reject != nil {
				rows = append(rows, reject.Column+" "+reject.Reason)
				continue
			}
			rows = append(rows, compactLink(t, link))
		}
	}
}

func compactLink(t *testing.T, link Link) string {
	t.Helper()
	data, err := json.Marshal(link)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(data, &fields))
	for name, value := range fields {
		if value == nil || name == "Line" || name == "NamesUser" {
			delete(fields, name)
		}
	}
	data, err = json.Marshal(fields)
	require.NoError(t, err)
	return string(data)
}

func TestFormats(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file, format string
		want         []string
	}{
		{"shlink.csv", "shlink", []string{
			`{"OriginalURL":"https://example.com/spring?x=1,2","ShortCode":"spring","Tags":["offers","spring"],"Title":"Spring sale","UserID":3}`,
			`{"OriginalURL":"https://example.org/walks","ShortCode":"walks","UserID":3}`,
		}},
		{"shlink-web.csv", "shlink", []string{
			`{"CreatedAt":"2024-05-01T08:00:00Z","ImportedClicks":17,"OriginalURL":"https://example.com/spring","ShortCode":"spring","Tags":["offers","spring"],"Title":"Spring sale","UserID":3}`,
			`{"CreatedAt":"2023-01-31T23:59:59Z","ImportedClicks":0,"OriginalURL":"https://example.org/walks","ShortCode":"walks","UserID":3}`,
		}},
		{"shlink-web-commas.csv", "shlink", []string{
			`{"CreatedAt":"2022-03-01T10:00:00Z","ImportedClicks":8,"OriginalURL":"https://example.com/autumn?a=1,2","ShortCode":"autumn","Tags":["autumn","offers"],"Title":"Autumn, sale","UserID":3}`,
			`{"CreatedAt":"2022-03-02T10:00:00Z","ImportedClicks":1,"OriginalURL":"https://example.org/tides","ShortCode":"tides","Tags":["sea"],"UserID":3}`,
		}},
		{"dub.csv", "dub", []string{
			`{"CreatedAt":"2024-05-01T08:00:00Z","ImportedClicks":1204,"OriginalURL":"https://example.com/spring","ShortCode":"spring","Tags":["offers","spring"],"UserID":3}`,
			`{"CreatedAt":"2024-05-02T08:00:00Z","ImportedClicks":3,"OriginalURL":"https://example.org/walks","ShortCode":"team/walks","UserID":3}`,
			"short_code " + errNoCode.Error(),
		}},
		{"yourls.csv", "yourls", []string{
			`{"CreatedAt":"2021-03-04T05:06:07Z","ImportedClicks":42,"OriginalURL":"https://example.com/spring","ShortCode":"spring","Title":"Spring, \"sale\"","UserID":3}`,
		}},
		{"yourls-plugin.csv", "yourls-plugin", []string{
			`{"ImportedClicks":42,"OriginalURL":"https://example.com/spring","ShortCode":"spring","UserID":3}`,
			`{"OriginalURL":"https://example.org/walks?a=1,2","ShortCode":"walks","UserID":3}`,
		}},
		{"yourls-list.csv", "yourls-list", []string{
			`{"OriginalURL":"https://example.com/spring","ShortCode":"spring","UserID":3}`,
			`{"OriginalURL":"https://example.org/walks","ShortCode":"","UserID":3}`,
			`{"OriginalURL":"https://example.org/tides","ShortCode":"tides","Title":"Tide table","UserID":3}`,
			`{"OriginalURL":"https://example.org/plain","ShortCode":"","UserID":3}`,
		}},
		{"bitly.csv", "bitly", []string{
			`{"OriginalURL":"https://example.com/spring","ShortCode":"spring","Tags":["offers"],"Title":"Spring sale","UserID":3}`,
			`{"OriginalURL":"https://example.org/walks","ShortCode":"4qRsTuV","UserID":3}`,
		}},
		{"bitly-api.csv", "bitly", []string{
			`{"CreatedAt":"2016-11-11T23:48:07Z","OriginalURL":"https://example.com/spring","ShortCode":"2ab","Tags":["offers","spring"],"Title":"Spring sale","UserID":3}`,
		}},
		{"shortio.csv", "shortio", []string{
			`{"CreatedAt":"2019-11-21T08:24:07Z","OriginalURL":"https://example.com/spring","ShortCode":"spring","Tags":["offers","spring"],"Title":"Spring sale","UserID":3}`,
		}},
		{"kutt.csv", "kutt", []string{
			`{"CreatedAt":"2020-02-03T04:05:06.789Z","ImportedClicks":12,"OriginalURL":"https://example.com/spring","ShortCode":"spring","Title":"Spring sale","UserID":3}`,
		}},
		{"signpost.csv", "signpost", []string{
			`{"CreatedAt":"2025-01-01T00:00:00.123456Z","ExpiresAt":"2027-01-01T00:00:00Z","ForwardQuery":true,"ID":7,"ImportedClicks":42,"IsActive":false,` +
				`"OriginalURL":"https://example.com/spring","RedirectStatus":301,"ShortCode":"-spring","Tags":["offers","spring"],"Title":"=Spring sale","UpdatedAt":"2025-02-01T00:00:00Z","UserID":3}`,
			`{"CreatedAt":"2025-01-01T00:00:00Z","ForwardQuery":false,"ID":8,"ImportedClicks":0,"IsActive":true,` +
				`"OriginalURL":"https://example.org/walks","RedirectStatus":302,"ShortCode":"walks","UpdatedAt":"2025-02-01T00:00:00Z","UserID":3}`,
		}},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		file, err := os.ReadFile("testdata/" + test.file)
		require.NoError(t, err)
		seen[test.format] = true
		for _, name := range []string{"", test.format} {
			rows, layout := readLinks(t, file, SplitOptions{Format: name})
			if layout.Format != test.format {
				t.Errorf("%s is recognized as %s, want %s", test.file, layout.Format, test.format)
			}
			if !slices.Equal(rows, test.want) {
				t.Errorf("%s:\n got %s\nwant %s", test.file, strings.Join(rows, "\n     "), strings.Join(test.want, "\n     "))
			}
		}
	}
	for _, name := range FormatNames(KindLinks) {
		if !seen[name] {
			t.Errorf("no test of the format %s", name)
		}
	}
}

func TestHeadlessIsOnlyAList(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind   Kind
		format string
	}{{KindUsers, ""}, {KindLinks, "shlink"}} {
		s, err := NewSplitter(strings.NewReader("https://example.com/,a\n"), test.kind, SplitOptions{Format: test.format})
		var formatErr *FormatError
		if !errors.As(err, &formatErr) {
			t.Errorf("%v: %v, %v, want a FormatError", test, s, err)
		}
	}
}

func TestMappedShortURL(t *testing.T) {
	t.Parallel()
	opts := SplitOptions{Mapping: map[string]string{"goes to": "original_url", "short": "short_url"}}
	rows, layout := readLinks(t, []byte("short,goes to\nhttps://x.example/abc,https://example.com/\n"), opts)
	if want := []string{`{"OriginalURL":"https://example.com/","ShortCode":"abc","UserID":3}`}; !slices.Equal(rows, want) {
		t.Errorf("%q of %+v, want %q", rows, layout, want)
	}
}

// TestHeadlessDelimiters uses URLs that contain characters which are delimiters in
// other files.
func TestHeadlessDelimiters(t *testing.T) {
	t.Parallel()
	link := func(url, code string) string {
		return `{"OriginalURL":"https://example.com/` + url + `","ShortCode":"` + code + `","UserID":3}`
	}
	for file, want := range map[string][]string{
		"https://example.com/a;b\nhttps://example.com/2,two\n":            {link("a;b", ""), link("2", "two")},
		"https://example.com/a;b;c,one\nhttps://example.com/2,two\n":      {link("a;b;c", "one"), link("2", "two")},
		"https://example.com/a|b\nhttps://example.com/c|d,two\n":          {link("a|b", ""), link("c|d", "two")},
		"https://example.com/a;b\tone\nhttps://example.com/2\ttwo\n":      {link("a;b", "one"), link("2", "two")},
		"sep=;\nhttps://example.com/a,b;one\nhttps://example.com/2;two\n": {link("a,b", "one"), link("2", "two")},
	} {
		if rows, layout := readLinks(t, []byte(file), SplitOptions{}); !slices.Equal(rows, want) {
			t.Errorf("%q, parted by %q:\n got %q\nwant %q", file, layout.Delimiter, rows, want)
		}
	}
}

// TestMarksBesideOwnColumns checks that a table which names its links as we do counts
// as ours, although one of its own columns has the name of a column of another
// shortener.
func TestMarksBesideOwnColumns(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"original_url,short_code,path,archived,id": FormatSignpost,
		"source,target,Original URL,Short Code":    FormatSignpost,
		"keyword,url,original_url,short_code":      FormatSignpost,
		"id,originalURL,path,title":                "shortio",
		"source,target,original_url":               "yourls-plugin",
	} {
		s, err := NewSplitter(strings.NewReader(header+"\nx,x,x,x,x\n"), KindLinks, SplitOptions{})
		require.NoError(t, err)
		if l := s.Layout(); l.Format != want || !slices.ContainsFunc(codeColumns[:], l.Has) {
			t.Errorf("%s is read as %s, %q; want %s", header, l.Format, l.Columns, want)
		}
	}
}
