package csvimport

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Records up to shortRecord are at most longRecord when they are returned, because
// quotes are doubled and the reason is put before them.
const shortRecord, longRecord = 1500, 4000

// mendable returns the results of a file's rows, in order, and a file in which all of
// them are returned for mending. A file cannot be meant if it has a record that is
// longer than most, but not too long to be read.
func mendable(file []byte, kind Kind, opts SplitOptions, most int) (rows []any, mended []byte, format string, err error) {
	opts.ChunkRows = 3
	s, err := NewSplitter(bytes.NewReader(file), kind, opts)
	if err != nil {
		return nil, nil, "", err
	}
	layout := s.Layout()
	parser := layout.Parser(testRules)
	var out bytes.Buffer
	write := func(cells []string) { out.Write(AppendRecord(nil, cells)) }
	write(layout.MendHeader())
	for {
		chunk, cutErr := s.Next()
		if errors.Is(cutErr, io.EOF) {
			break
		}
		if cutErr != nil {
			return nil, nil, "", cutErr
		}
		for record := range layout.Records(chunk.Data, chunk.FirstLine) {
			if len(record.Raw) > most && len(record.Raw) <= longRecord {
				return nil, nil, "", errors.New("may be longer than a record when it is given back")
			}
			row, reject := rowOf(parser, kind, record)
			rows = append(rows, row)
			if reject == nil {
				reject = &Reject{Line: record.Line, Column: "a column", Reason: "=is wrong", Raw: record.Raw}
			}
			write(layout.MendRecord(*reject))
		}
	}
	return rows, out.Bytes(), layout.Format, nil
}

// rowOf returns the result of a record: a row without its line, or the reason why there
// is none. A record that cannot be cut into cells is returned behind the last column, so
// its reason may be another one when it is read again.
func rowOf(parser *Parser, kind Kind, record Record) (row any, reject *Reject) {
	record.Line = 0
	switch kind {
	case KindUsers:
		row, reject = parser.User(record)
	case KindLinks:
		row, reject = parser.Link(record)
	default:
		row, reject = parser.Event(record)
	}
	switch {
	case reject == nil:
		return row, nil
	case record.Fields == nil:
		return "the record cannot be read", reject
	}
	return [2]string{reject.Column, reject.Reason}, reject
}

// checkMending returns rows of a file for mending and reads them again, unchanged and
// with the same options. It fails unless they have the same results, however often that
// is repeated. It reports whether there were rows.
func checkMending(t *testing.T, file []byte, kind Kind, opts SplitOptions) bool {
	t.Helper()
	opts.MaxRecord = longRecord
	want, first, format, err := mendable(file, kind, opts, shortRecord)
	if err != nil {
		return false // a file that cannot be meant has no rows
	}
	for _, named := range []string{opts.Format, format} {
		opts.Format = named
		mended := first
		for range 2 {
			var got []any
			again := mended
			if got, mended, _, err = mendable(again, kind, opts, longRecord); err != nil {
				t.Fatalf("sent as %q: %v\n%s", named, err, again)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("rows come back as\n%+v, want\n%+v, of\n%q", got, want, again)
			}
		}
	}
	return true
}

func TestMending(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*.csv")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		checkMending(t, file, KindLinks, SplitOptions{})
	}
	for _, file := range mendSeeds {
		checkMending(t, []byte(file), KindUsers, SplitOptions{})
		checkMending(t, []byte(file), KindLinks, SplitOptions{})
	}
	// Mended files in other encodings can be sent with the same parameters as the first
	// file.
	for as, file := range map[Encoding][]byte{
		EncodingWindows1252: []byte("username;email\nM\xfcller;nonsense\n\x80;x;caf\xe9\n"),
		EncodingUTF16:       utf16Bytes("username,email\nMüller,nonsense\n\"café\"x,y\n", true),
	} {
		if !checkMending(t, file, KindUsers, SplitOptions{Encoding: as}) {
			t.Errorf("the file in %s cannot be read", as)
		}
	}
	for _, test := range []struct{ file, format, name, means string }{
		{"@handle,mail\nann,ann@example.com\nbob,nonsense\n", "", "@handle", colUsername},
		{"=A;-B\nann;nonsense\n=x;x@example.com\n", FormatSignpost, "=A", colUsername},
		{"'@handle,mail\nann,nonsense\n", "", "'@handle", colUsername},
	} {
		mapping := map[string]string{test.name: test.means, "mail": colEmail, "-B": colEmail}
		for name := range mapping {
			if !strings.Contains(test.file, name) {
				delete(mapping, name)
			}
		}
		if !checkMending(t, []byte(test.file), KindUsers, SplitOptions{Format: test.format, Mapping: mapping}) {
			t.Errorf("%q cannot be read with %v", test.file, mapping)
		}
	}
}

var mendSeeds = []string{
	"username,email\nann,ann@example.com\nbob\ncy,cy@example.com,surplus\n\"dan,x@example.com\neve \"x\",e@example.com\n",
	"username;email\n=1+1;'=x@example.com\n'=a;b@example.com\n''+a;c@example.com\n\"a;\"\"b\"\"\nc\";d@example.com\n",
	"email,username\n\xff@example.com,\x00\nlong@example.com," + strings.Repeat("x", longRecord+1) + "\n",
	"username;email;;note\na;\"b\na;b;c;d;\"e\n\"a \"\"b\"\"\"\nx\"y;z\n\"a\"b;c\n",
	"line,username,email,reason\n\"3,ann\n4,bob\n5,x\"y,z,a,b,c\n",
	"original_url\nhttps://example.com/\nhttps://example.com/,x\n\"https://example.com\n=x\n",
	"Long URL,Short code,Title\nhttps://example.com/,one,=title\nhttps://example.com/,two,'=title\n",
	"originalURL,path,title\nhttps://example.com/,-one,x\nhttps://example.com/,/+two/,x\n",
	"https://example.com/,one\nhttps://example.com/\nhttps://example.com/,a,b,c,d\nnonsense\n",
	"=evil,username,email\n=cmd,ann,ann@example.com\n",
	"line,username,email,reason\n\"3,ann\nJ\xc9\x024,bob\nz,,5y\"x,a,",
	"username,email\nann\nbob, ,x\n \" cy\" ,\"c@example.com \",,,\"\"\nd\"\"an,6\"\n\\N,NULL\n",
	"keyword,url,title\n\"a\",https://example.com/,NULL\nb,\"NULL\",\"\\N\"\nc,https://example.com/,\"say \\\"hi\\\"\"\nd,\"x \\\"y\\\" \"z\n",
	"original_url,short_code,title\n\"a,b\"c\n,\" \",\"\\\"\"x\n",
	"line,username,email, eason\n\"3,", // a column of the file itself that has the name of one of ours
}

// The quotes, delimiters and numbers of fields in these files are random.
func TestMendingRandomFiles(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{
		"ann", "bob@example.com", "https://example.com/", "\"", "\"\"", "\"x\"", " ", "\t", "\\", "\\\"", "\\N", "NULL", "=", "5/1/2024", "12.0", "'", "\n", "\r\n", "\r", "\x00", "\xff", "line", "reason",
	}
	headers := map[string]Kind{
		"username*email": KindUsers, "email*username*note*": KindUsers, "original_url": KindLinks, "original_url*short_code*title": KindLinks,
		"url_id*event_type*timestamp": KindEvents, "https://example.com/*code": KindLinks, "line*reason*username*email": KindUsers,
	}
	names := slices.Sorted(maps.Keys(headers))
	for read := 0; read < 1000; {
		name := names[random.IntN(len(names))]
		delim := string(delimiters[random.IntN(2)])
		file := strings.ReplaceAll(name, "*", delim) + "\n"
		for range 1 + random.IntN(5) {
			for range random.IntN(8) {
				if random.IntN(2) == 0 {
					file += delim
				}
				file += parts[random.IntN(len(parts))]
			}
			file += "\n"
		}
		if checkMending(t, []byte(file), headers[name], SplitOptions{Escape: []string{"", EscapeNone, EscapeBackslash}[random.IntN(3)]}) {
			read++
		}
	}
}

func FuzzMending(f *testing.F) {
	for _, seed := range mendSeeds {
		f.Add([]byte(seed), true, byte(0))
		f.Add([]byte(seed), false, byte(1))
	}
	f.Fuzz(func(t *testing.T, file []byte, links bool, escape byte) {
		kind := KindUsers
		if links {
			kind = KindLinks
		}
		checkMending(t, file, kind, SplitOptions{Escape: []string{"", EscapeNone, EscapeBackslash}[escape%3]})
	})
}

// Rows that are returned for mending look like this.
func TestMendRecord(t *testing.T) {
	t.Parallel()
	layout := Layout{
		Kind: KindLinks, Format: "shlink", Delimiter: ";", Header: []string{"Long URL", "=Note", "Short code"},
		Columns: []string{colOriginalURL, "", colShortCode}, MaxRecord: 40,
	}
	if got, want := layout.MendHeader(), []string{"line", "reason", "Long URL", "'=Note", "Short code"}; !slices.Equal(got, want) {
		t.Errorf("header %q, want %q", got, want)
	}
	for raw, want := range map[string][]string{
		`a;"x;""y""";c`:         {"a", `x;"y"`, "c"},
		"a;=cmd;-c":             {"a", "'=cmd", "'-c"},
		"a;'=cmd;c":             {"a", "''=cmd", "c"},
		"a;b":                   {"a", "b"},
		"a;b;c;d":               {"a", "b", "c", "d"},
		`a;"b`:                  {"", "", "", `a;"b`},
		`="a`:                   {`'="a`},
		`=a;"b"c`:               {"", "", "", `'=a;"b"c`},
		`NULL; \N ; "NULL"`:     {"", "", "NULL"},
		strings.Repeat("a", 41): {"", "", "", strings.Repeat("a", 41)},
	} {
		got := layout.MendRecord(Reject{Line: 7, Column: "short_code", Reason: "is taken", Raw: raw})
		if want = append([]string{"7", "short_code is taken"}, want...); !slices.Equal(got, want) {
			t.Errorf("%q is given back as %q, want %q", raw, got, want)
		}
	}
}
