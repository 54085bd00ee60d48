package csvimport

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// judge makes a row of record and returns only its fault.
func (p *Parser) judge(kind Kind, record Record) *Reject {
	var reject *Reject
	switch kind {
	case KindUsers:
		_, reject = p.User(record)
	case KindLinks:
		_, reject = p.Link(record)
	default:
		_, reject = p.Event(record)
	}
	return reject
}

const defaultUsers = "id,username,email\n"

// read splits a file of kind and reads all chunks again. It returns their records in a
// form that can be compared: line, column and reason of broken ones, the fields of
// others.
func read(kind Kind, r io.Reader, opts SplitOptions) ([]string, Layout, error) {
	s, err := NewSplitter(r, kind, opts)
	if err != nil {
		return nil, Layout{}, err
	}
	var records []string
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return records, s.Layout(), nil
		}
		if err != nil {
			return records, s.Layout(), err
		}
		rows := 0
		for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
			rows++
			records = append(records, describe(record))
		}
		if rows != chunk.Rows {
			return records, s.Layout(), fmt.Errorf("chunk %d has %d rows, read %d", chunk.Seq, chunk.Rows, rows)
		}
	}
}

func describe(record Record) string {
	if record.Fault != nil {
		return fmt.Sprintf("%d: %s %s", record.Line, record.Fault.Column, record.Fault.Reason)
	}
	return fmt.Sprintf("%d: %q", record.Line, record.Fields)
}

func TestParseKind(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		if got, err := ParseKind(string(kind)); got != kind || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v", kind, got, err)
		}
	}
	if _, err := ParseKind("links"); err == nil {
		t.Error("ParseKind accepts links")
	}
}

func TestReadRecords(t *testing.T) {
	t.Parallel()
	const h = defaultUsers
	tests := []struct {
		name, file string
		want       []string
	}{
		{"plain", h + "1,ann,a@x\n2,bob,b@x\n", []string{`2: ["1" "ann" "a@x"]`, `3: ["2" "bob" "b@x"]`}},
		{"no line end at the end", h + "1,ann,a@x", []string{`2: ["1" "ann" "a@x"]`}},
		{"CRLF", "id,username,email\r\n1,ann,a@x\r\n\r\n2,bob,b@x\r\n", []string{`2: ["1" "ann" "a@x"]`, `4: ["2" "bob" "b@x"]`}},
		{"CR", "id,username,email\r1,ann,a@x\r2,bob,b@x\r", []string{`2: ["1" "ann" "a@x"]`, `3: ["2" "bob" "b@x"]`}},
		{"byte order mark", "\ufeff" + h + "1,ann,a@x\n", []string{`2: ["1" "ann" "a@x"]`}},
		{"semicolon", "id;username;email\n1;a,n;a@x\n", []string{`2: ["1" "a,n" "a@x"]`}},
		{"tab", "id\tusername\temail\n1\tann\t\n", []string{`2: ["1" "ann" ""]`}},
		{"pipe", "id|username|email\n1|ann|a@x\n", []string{`2: ["1" "ann" "a@x"]`}},
		{"separator line", "sep=;\nid;username;email\n1;ann;a@x\n", []string{`3: ["1" "ann" "a@x"]`}},
		{"blank lines", "\n  \n" + h + "\n1,ann,a@x\n \t \n\n2,bob,b@x\n\n", []string{`5: ["1" "ann" "a@x"]`, `8: ["2" "bob" "b@x"]`}},
		{"quotes", h + "1,\"a,\"\"n\"\"\",\"\"\n", []string{`2: ["1" "a,\"n\"" ""]`}},
		{
			"quoted line ends", h + "1,\"a\nb\r\nc\rd\",x\n2,bob,y\n",
			[]string{`2: ["1" "a\nb\r\nc\rd" "x"]`, `6: ["2" "bob" "y"]`},
		},
		{"quoted to the end", h + "1,ann,\"a@x\"", []string{`2: ["1" "ann" "a@x"]`}},
		{"quoted header", "\"id\",\"username\",\"e\nmail\"\n1,ann,a@x\n", []string{`3: ["1" "ann" "a@x"]`}},
		{
			"ragged", h + "1,ann\n2,bob,b@x,extra\n3,cat,c@x\n4,dan,d@x,, \t,\"\",\n5,eve,e@x,,\"\n\",more,than one\n",
			[]string{
				`2: ["1" "ann"]`, `3:  has text behind its last column: it has 4 fields, 3 are expected, and field 4 is "extra"`,
				`4: ["3" "cat" "c@x"]`, `5: ["4" "dan" "d@x" "" "" "" ""]`,
				`6:  has text behind its last column: it has 7 fields, 3 are expected, and field 6 is "more"`,
			},
		},
		{
			"only delimiters", ",,\n;;\n" + h + ",,\n1,ann,a@x\n\t, , ,,\r\n,\n2,bob,b@x\n,,\"\"\n;;\n,,",
			[]string{`5: ["1" "ann" "a@x"]`, `8: ["2" "bob" "b@x"]`, `9: ["" "" ""]`, `10: [";;"]`},
		},
		{"only tabs", "id\tusername\temail\n\t\t\n1\tann\ta@x\n \t\n", []string{`3: ["1" "ann" "a@x"]`}},
		{
			"quote in a cell", h + "1,a\"b,\"x\"\"y\"\n2,b\"o\"b,b@x\"\n3\"\"\n",
			[]string{`2: ["1" "a\"b" "x\"y"]`, `3: ["2" "b\"o\"b" "b@x\""]`, `4: ["3\"\""]`},
		},
		{
			"blanks", h + " 1 ,\t\"a, b\" \t, a@x\n2,\" bob\t\",\" \"\n3 , c d,\"multi\n line\" \n,\t\u00a0x, \n",
			[]string{`2: ["1" "a, b" "a@x"]`, `3: ["2" " bob\t" " "]`, `4: ["3" "c d" "multi\n line"]`, `6: ["" "\u00a0x" ""]`},
		},
		{
			"blanks between tabs", "id\tusername\temail\n 1 \t\"a\tb\" \t a@x \n\t\t\"x\"\n",
			[]string{`2: ["1" "a\tb" "a@x"]`, `3: ["" "" "x"]`},
		},
		{
			"nothing", h + "\\N,NULL, \\N \n\"\\N\",\"NULL\",null\n\\n,\\NN,\\N\n",
			[]string{`2: ["" "NULL" ""]`, `3: ["\\N" "NULL" "null"]`, `4: ["\\n" "\\NN" ""]`},
		},
		{
			"backslashes that escape nothing", h + "1,\"C:\\\",\"a\\b\"\n2,\"\\\"\"x\",\\\"\n",
			[]string{`2: ["1" "C:\\" "a\\b"]`, `3: ["2" "\\\"x" "\\\""]`},
		},
		{
			"backslashes", h + "1,\"say \\\"hi\\\", all\",\"\\\\\"\n2,\"a\"\"\\\n\\b\",\"\\\"\"\n3,\\\",\"\"\n",
			[]string{`2: ["1" "say \"hi\", all" "\\"]`, `3: ["2" "a\"\n\\b" "\""]`, `5: ["3" "\\\"" ""]`},
		},
		{
			"backslashes that mend nothing", h + "1,\"a\\\"b\"c,x\n2,bob,b@x\n",
			[]string{"2: username has text after its closing quote" + hintEscape, `3: ["2" "bob" "b@x"]`},
		},
		{
			"text after quote", h + "1,\"ann\"x,y\n2,bob,b@x\n3, \"cat\" \"x\",y\n",
			[]string{`2: username has text after its closing quote`, `3: ["2" "bob" "b@x"]`, `4: username has text after its closing quote`},
		},
		{
			"quote never closed", h + "1,\"ann,a@x\n2,bob,b@x\n3,cat,c@x\n",
			[]string{
				`2: username has a quote that is not closed as it should be within 64 bytes`,
				`3: ["2" "bob" "b@x"]`, `4: ["3" "cat" "c@x"]`,
			},
		},
		{
			"quote closed by another row", h + "1,\"ann,a@x\n2,\"bob\",b@x\n",
			[]string{
				`2: username has a quote that is not closed as it should be within 64 bytes`, `3: ["2" "bob" "b@x"]`,
			},
		},
		{
			"quote not closed in time", h + "1,\"" + strings.Repeat("a\n", 40) + "\",x\n",
			append([]string{`2: username has a quote that is not closed as it should be within 64 bytes`}, func() (rest []string) {
				for line := 3; line <= 41; line++ {
					rest = append(rest, fmt.Sprintf(`%d: ["a"]`, line))
				}
				return append(rest, `42: id has a quote that is not closed as it should be within 64 bytes`)
			}()...),
		},
		{
			"overlong line", h + strings.Repeat("x", 65) + "\n2,bob,b@x\n" + strings.Repeat("y", 100_000) + "\r\n3,cat,c@x\n" + strings.Repeat("z", 70_000),
			[]string{
				`2:  is longer than 64 bytes`, `3: ["2" "bob" "b@x"]`, `4:  is longer than 64 bytes`,
				`5: ["3" "cat" "c@x"]`, `6:  is longer than 64 bytes`,
			},
		},
		{
			"overlong blank line", h + strings.Repeat(" ", 65) + "\n2,bob,b@x\n" + strings.Repeat("\t", 100) + "\r\n" + strings.Repeat(" ", 64) + "\n" + strings.Repeat(" ", 70_000) + "x\n3,cat,c@x\n",
			[]string{
				`2:  is longer than 64 bytes`, `3: ["2" "bob" "b@x"]`, `4:  is longer than 64 bytes`,
				`6:  is longer than 64 bytes`, `7: ["3" "cat" "c@x"]`,
			},
		},
		{"as long as allowed", h + strings.Repeat("x", 62) + ",,\n", []string{fmt.Sprintf("2: [%q \"\" \"\"]", strings.Repeat("x", 62))}},
		{
			"NUL and invalid UTF-8", h + "1,a\x00,x\n2,b,\xff\n3,cat,c@x\n",
			[]string{`2: username must not contain NUL bytes`, `3: email must be valid UTF-8`, `4: ["3" "cat" "c@x"]`},
		},
	}
	for _, test := range tests {
		for _, rows := range []int{1, 2, 1000} {
			opts := SplitOptions{ChunkRows: rows, MaxRecord: 64}
			got, _, err := read(KindUsers, strings.NewReader(test.file), opts)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%s, chunks of %d rows: %v\n got %q\nwant %q", test.name, rows, err, got, test.want)
			}
			got, _, err = read(KindUsers, iotest.OneByteReader(strings.NewReader(test.file)), opts)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%s, byte by byte: %v\n got %q\nwant %q", test.name, err, got, test.want)
			}
		}
	}
}

func TestBrokenUTF16(t *testing.T) {
	t.Parallel()
	// A lone surrogate, and half a unit at the end, are found by the rules for rows.
	broken := utf16Bytes("\ufeffid,username,email\n1,a", false)
	broken = append(broken, 0x00, 0xd8)
	broken = append(broken, utf16Bytes(",x\n2,b,y", false)...)
	broken = append(broken, 'z')
	got, _, err := read(KindUsers, bytes.NewReader(broken), SplitOptions{})
	const reason = "has bytes that are no characters in utf-16le"
	if want := []string{"2: username " + reason, "3: email " + reason}; err != nil || !slices.Equal(got, want) {
		t.Errorf("broken UTF-16: %q, %v", got, err)
	}
}

func utf16Bytes(text string, bigEndian bool) []byte {
	var data []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		if bigEndian {
			data = binary.BigEndian.AppendUint16(data, unit)
		} else {
			data = binary.LittleEndian.AppendUint16(data, unit)
		}
	}
	return data
}

func TestLayout(t *testing.T) {
	t.Parallel()
	const file = "E-Mail; USER NAME;Shoe size;;created-at\na@x;ann;39;;\n"
	_, layout, err := read(KindUsers, strings.NewReader(file), SplitOptions{MaxRecord: 100})
	require.NoError(t, err)
	want := Layout{
		Kind: KindUsers, Format: FormatSignpost, Delimiter: ";",
		Columns: []string{"email", "username", "", "", "created_at"},
		Header:  []string{"E-Mail", "USER NAME", "Shoe size", "", "created-at"},
		Ignored: []string{"Shoe size", "column 4"}, Encoding: EncodingUTF8, MaxRecord: 100, Lenient: true,
	}
	data, err := json.Marshal(layout)
	require.NoError(t, err)
	var got Layout
	require.NoError(t, json.Unmarshal(data, &got))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("layout after JSON\n got %+v\nwant %+v", got, want)
	}
	if !got.Has("email") || got.Has("id") || got.Has("shoe size") {
		t.Error("Has does not tell the columns")
	}
}

func TestMapping(t *testing.T) {
	t.Parallel()
	const file = "login,mail,email\nann,a@x,old\n"
	opts := SplitOptions{Mapping: map[string]string{"Login": "username", "mail": "email", "email": ""}}
	_, layout, err := read(KindUsers, strings.NewReader(file), opts)
	if want := []string{"username", "email", ""}; err != nil || !slices.Equal(layout.Columns, want) {
		t.Errorf("columns %q, %v, want %q", layout.Columns, err, want)
	}
}

func TestFormatErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind Kind
		file string
		opts SplitOptions
		want string // a part of the message
	}{
		{"empty", KindUsers, "", SplitOptions{}, "the file is empty"},
		{"only a mark", KindUsers, "\ufeff", SplitOptions{}, "the file is empty"},
		{"only blank lines", KindUsers, "\n \n\r\n;;\n", SplitOptions{}, "the file is empty"},
		{"only delimiters below", KindUsers, "username;email\n;\n;;;\n", SplitOptions{}, "no rows"},
		{"header only", KindUsers, "username,email\n\n", SplitOptions{}, "the file has a header and no rows"},
		{"ZIP", KindUsers, "PK\x03\x04rest", SplitOptions{}, "XLSX"},
		{"gzip", KindUsers, "\x1f\x8b\x08rest", SplitOptions{}, "gzip"},
		{"XLS", KindUsers, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", SplitOptions{}, "the file is an old Excel workbook, not a CSV file"},
		{"7z", KindUsers, "7z\xbc\xaf\x27\x1crest", SplitOptions{}, "the file is a 7-Zip archive, not a CSV file"},
		{"xz", KindUsers, "\xfd7zXZ\x00rest", SplitOptions{}, "the file is xz-compressed, not a CSV file"},
		{"bzip2", KindUsers, "BZh91AY&SYrest", SplitOptions{}, "the file is bzip2-compressed, not a CSV file"},
		{"zstd", KindUsers, "\x28\xb5\x2f\xfdrest", SplitOptions{}, "the file is zstd-compressed, not a CSV file"},
		{"PDF", KindUsers, "%PDF-1.7\n", SplitOptions{}, "the file is a PDF document, not a CSV file"},
		{"PNG", KindUsers, "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", SplitOptions{}, "the file is a PNG image, not a CSV file"},
		{"Parquet", KindUsers, "PAR1\x15\x04", SplitOptions{}, "the file is a Parquet file, not a CSV file"},
		{"SQLite", KindUsers, "SQLite format 3\x00", SplitOptions{}, "the file is an SQLite database, not a CSV file"},
		{"binary", KindUsers, "\x01\x02\x03\x04\x00id,username,email", SplitOptions{}, "binary"},
		{"UTF-32", KindUsers, "\xff\xfe\x00\x00i\x00\x00\x00", SplitOptions{}, "UTF-32"},
		{"HTML", KindUsers, "<!doctype html>\n<p>hello", SplitOptions{}, "names no column of users; found the columns <!doctype html>; expected username, email, id, created_at"},
		{"no column", KindUsers, "a,b\n1,2\n", SplitOptions{}, "names no column of users; found the columns a, b"},
		{"missing column", KindUsers, "id,username\n1,ann\n", SplitOptions{}, "a file of users needs the column email"},
		{"missing columns", KindEvents, "id,details\n1,\n", SplitOptions{}, "needs the columns url_id, event_type, timestamp"},
		{"another kind", KindUsers, "id,url_id,event_type,timestamp\n", SplitOptions{}, "looks like a file of events"},
		{"twice", KindUsers, "username,email,User_Name\n", SplitOptions{}, "the columns username and User_Name both mean username"},
		{"quotes", KindUsers, "\"username,email\nann,a@x\n", SplitOptions{}, "quotes do not match"},
		{
			"NUL in a name", KindUsers, "username,sh\x00oe,email\nann,39,a@x\n",
			SplitOptions{},
			"the name of column 2, sh?oe, has a NUL byte in it; found the columns username, sh?oe, email; expected username, email, id, created_at",
		},
		{"long first line", KindUsers, strings.Repeat("x", 1000), SplitOptions{MaxRecord: 100}, "longer than 100 bytes"},
		{"header one byte too long", KindUsers, strings.Repeat("x", 101) + "\n", SplitOptions{MaxRecord: 100}, "longer than 100 bytes"},
		{"mapping of no column", KindUsers, "username,email\nann,a@x\n", SplitOptions{Mapping: map[string]string{"mail": "email"}}, `the file has no column "mail" to map; found the columns username, email`},
		{"wrong format", KindUsers, "username,email\nann,a@x\n", SplitOptions{Format: "shlink"}, `"shlink" is not a format of users; these are: signpost`},
		{
			"a header in Windows-1252", KindUsers, "Stra\xdfe,Gr\xf6\xdfe\nann,a@x\n",
			SplitOptions{},
			"the first line is not UTF-8: it looks like Windows-1252, which encoding=windows-1252 reads; the first line names no column of users",
		},
		{
			"a header in Mac Roman, mapped", KindUsers, "username,Gr\x9a\xa7e\nann,a@x\n",
			SplitOptions{Mapping: map[string]string{"Größe": "email"}},
			`it looks like Mac Roman, which encoding=macintosh reads; the file has no column "Größe" to map`,
		},
		{"a header of stray bytes", KindUsers, "\x81\x8d\n", SplitOptions{}, "the first line is not UTF-8; the first line names no column"},
		{"a header in its own encoding", KindUsers, "Stra\xdfe\n", SplitOptions{Encoding: EncodingWindows1252}, "found the columns Straße;"},
		{"wrong mapping", KindUsers, "username,email\nann,a@x\n", SplitOptions{Mapping: map[string]string{"a": "b"}}, `"b" is not a column of users`},
	}
	for _, test := range tests {
		_, _, err := read(test.kind, strings.NewReader(test.file), test.opts)
		var formatErr *FormatError
		if !errors.As(err, &formatErr) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want a FormatError with %q", test.name, err, test.want)
		}
	}
	if _, err := NewSplitter(strings.NewReader("x"), "links", SplitOptions{}); err == nil {
		t.Error("NewSplitter takes an unknown kind")
	}
}

func TestFoundIsShort(t *testing.T) {
	t.Parallel()
	header := strings.Repeat("long name\x07 "+strings.Repeat("ä", 60)+",", 100)
	_, _, err := read(KindUsers, strings.NewReader(header+"\n"), SplitOptions{})
	var formatErr *FormatError
	if !errors.As(err, &formatErr) {
		t.Fatal(err)
	}
	if len(formatErr.Found) != 21 || strings.Contains(err.Error(), "\x07") || len(err.Error()) > 3000 {
		t.Errorf("message of %d bytes: %v", len(err.Error()), err)
	}
}

func TestReaderErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection lost")
	for _, text := range []string{"", "username", "username,email\n", "username,email\nann,a@x\nbob,"} {
		_, _, err := read(KindUsers, io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), SplitOptions{})
		if !errors.Is(err, broken) {
			t.Errorf("after %q: %v, want %v", text, err, broken)
		}
	}
	// The text is behind the part that is sniffed.
	long := "username,email\n" + strings.Repeat("ann,a@x\n", 2000)
	s, err := NewSplitter(io.MultiReader(strings.NewReader(long), iotest.ErrReader(broken)), KindUsers, SplitOptions{ChunkRows: 1000})
	for err == nil {
		_, err = s.Next()
	}
	if !errors.Is(err, broken) || s.Rows() < 1000 {
		t.Errorf("%v after %d rows", err, s.Rows())
	}
	if _, again := s.Next(); !errors.Is(again, broken) {
		t.Errorf("a second call says %v", again)
	}
}

// endless is a reader that returns one line without an end.
type endless struct{ bytes int }

func (e *endless) Read(p []byte) (int, error) {
	if e.bytes <= 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = 'x'
	}
	e.bytes -= len(p)
	return len(p), nil
}

// Memory must not grow with the length of a line (I7): a chunk stores a bounded part of
// it, and nothing else is stored.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	file := io.MultiReader(strings.NewReader(defaultUsers), &endless{bytes: 32 << 20}, strings.NewReader("\n2,bob,b@x\n"))
	s, err := NewSplitter(file, KindUsers, SplitOptions{})
	require.NoError(t, err)
	size := len(s.buf)
	chunk, err := s.Next()
	require.NoError(t, err)
	if chunk.Rows != 2 || len(chunk.Data) > DefaultMaxRecord+64 || len(s.buf) != size {
		t.Errorf("%d rows in %d bytes, a buffer of %d after %d", chunk.Rows, len(chunk.Data), len(s.buf), size)
	}
}

func TestBlankLinesTakeNoMemory(t *testing.T) {
	t.Parallel()
	file := defaultUsers + "1,ann,a@x\n" + strings.Repeat("\n", 100_000) + "2,bob,b@x\n"
	s, err := NewSplitter(strings.NewReader(file), KindUsers, SplitOptions{ChunkBytes: 1000})
	require.NoError(t, err)
	for _, line := range []int64{2, 100_003} {
		chunk, err := s.Next()
		if err != nil || chunk.FirstLine != line || chunk.Rows != 1 || len(chunk.Data) > 1000 {
			t.Errorf("chunk of %d rows, %d bytes from line %d, %v, want line %d", chunk.Rows, len(chunk.Data), chunk.FirstLine, err, line)
		}
	}
}

func TestChunks(t *testing.T) {
	t.Parallel()
	file := sample(KindUsers, 1000)
	s, err := NewSplitter(bytes.NewReader(file), KindUsers, SplitOptions{ChunkRows: 300, ChunkBytes: 10_000})
	require.NoError(t, err)
	all := []byte(defaultUsers[:len(defaultUsers)-1] + ",created_at\n")
	line, rows := int64(2), 0
	for seq := 0; ; seq++ {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if chunk.Seq != seq || chunk.FirstLine != line || chunk.Rows > 300 || len(chunk.Data) > 10_000 {
			t.Fatalf("chunk %d of %d rows and %d bytes from line %d, want %d from line %d",
				chunk.Seq, chunk.Rows, len(chunk.Data), chunk.FirstLine, seq, line)
		}
		line += int64(chunk.Rows)
		rows += chunk.Rows
		all = append(all, chunk.Data...)
	}
	if rows != 1000 || s.Rows() != 1000 || !bytes.Equal(all, file) {
		t.Errorf("%d rows, %d bytes of %d", rows, len(all), len(file))
	}
}
