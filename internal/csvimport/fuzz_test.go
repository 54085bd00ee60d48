package csvimport

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var fuzzSeeds = []string{
	"1,ann,a@x\n2,bob,b@x\n",
	"1,\"a\nn\"\"n\",a@x\r\n\r\n \n2,bob,b@x",
	"1,\"ann,a@x\n2,\"bob\",b@x\n",
	"1,a\"b,x\r2,\"b\"x,y\r\r\n,,\n",
	"\"\n\"\n\"\"\"\n,\"\",\"\n",
	strings.Repeat("x", 70) + "\n,\"" + strings.Repeat("y\n", 40) + "\",\n",
	strings.Repeat(" ", 65) + "\n1,ann,a@x\n" + strings.Repeat("\t", 200) + "x\n",
	"1,\x00,\xff\n\"\x00\",\"\xff\",\n",
	" 1 ,\t\"an\"\"n\" ,a@x,, \n2\n\\N,NULL,\"NULL\" x\n3,6'5\",\" b \"\n",
	",,,\n1,ann,a@x\n , ,\t,\n,,\r\n;;;\n\t\t\n2,bob,b@x\n,,\n,\"\",\n,,",
	"1,\"say \\\"hi\\\"\",\"\\\\\"\n2,\"a\\\nb\",\"\\\n\n\\\"\",\\\"\n",
}

// FuzzSplitter splits a file in many ways. The records must always be the same as those
// of the file read in one piece, as those that encoding/csv reads if it can read them,
// and as those that are read after they were written again.
func FuzzSplitter(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed), byte(0), byte(1), byte(0))
		f.Add([]byte(seed), byte(2), byte(3), byte(1))
	}
	f.Fuzz(func(t *testing.T, body []byte, delim, rows, escape byte) {
		comma := ",;\t|"[delim%4]
		header := strings.ReplaceAll("id,username,email\n", ",", string(rune(comma)))
		file := append([]byte(header), body...)
		start := file[:min(len(file), sniffed)]
		if little, big := looksUTF16(start); little || big || looksBinary(start) {
			return
		}
		opts := SplitOptions{ChunkRows: 1 + int(rows%5), ChunkBytes: 1 + int(rows), MaxRecord: 64}
		opts.Escape = []string{"", EscapeNone, EscapeBackslash}[escape%3]
		got, layout, err := read(KindUsers, bytes.NewReader(file), opts)
		var formatErr *FormatError
		if err != nil && !errors.As(err, &formatErr) {
			t.Fatalf("error %v of a reader that has none", err)
		}
		slowly, _, _ := read(KindUsers, iotest.OneByteReader(bytes.NewReader(file)), opts)
		if !slices.Equal(got, slowly) {
			t.Fatalf("read in one piece %q, byte by byte %q", got, slowly)
		}
		if layout.Columns == nil {
			return // without rows, there is no layout to continue with
		}
		var whole []string
		line := int64(1)
		for record := range layout.Records(body, 2) {
			if record.Line <= line {
				t.Fatalf("line %d after line %d", record.Line, line)
			}
			line = record.Line
			whole = append(whole, describe(record))
		}
		if !slices.Equal(got, whole) {
			t.Fatalf("in chunks %q, in one piece %q", got, whole)
		}
		compareToLibrary(t, body, comma)
		checkWriting(t, layout, body)
	})
}

// checkWriting writes the cells of each record, and reads them again.
func checkWriting(t *testing.T, layout Layout, body []byte) {
	t.Helper()
	read, written := layout.dialect(), dialect{delim: ',', null: true}
	for record := range layout.Records(body, 2) {
		if record.Fault != nil {
			continue
		}
		cells := read.split([]byte(record.Raw), record.Raw, nil)
		if !slices.Equal(cells, record.Fields) {
			t.Fatalf("%q is cut into %q by itself, was %q", record.Raw, cells, record.Fields)
		}
		line := AppendRecord(nil, cells)
		ext, ok := written.measure(line, DefaultMaxRecord, true)
		if !ok || ext.fault != sound || ext.size != len(line) {
			t.Fatalf("%q is written as %q, which ends at %+v", cells, line, ext)
		}
		if again := written.split(line[:ext.text], string(line[:ext.text]), nil); !slices.Equal(again, cells) {
			t.Fatalf("%q is written as %q, and read as %q", cells, line, again)
		}
	}
}

// compareToLibrary compares the result of encoding/csv with Records, where the two
// agree on the meaning. encoding/csv takes neither a CR alone for a line end nor a line
// of spaces for a blank one. It does not know blanks around cells, words for empty
// values, and quoted empty cells. Records that consist of empty cells are no rows.
func compareToLibrary(t *testing.T, body []byte, comma byte) {
	t.Helper()
	if bytes.Contains(bytes.ReplaceAll(body, []byte("\r\n"), nil), []byte("\r")) {
		return
	}
	r := csv.NewReader(bytes.NewReader(body))
	r.Comma, r.FieldsPerRecord = rune(comma), -1
	var want [][]string
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return
		}
		if len(fields) == 1 && (dialect{delim: comma}).blank([]byte(fields[0])) {
			return
		}
		want = append(want, fields)
	}
	layout := Layout{Delimiter: string(rune(comma)), Columns: make([]string, 1<<16), MaxRecord: 1 << 20}
	if !bytes.ContainsAny(body, " \t") && !bytes.Contains(body, []byte(`\N`)) && !bytes.Contains(body, []byte("NULL")) &&
		!bytes.Contains(body, []byte(`""`)) {
		compareRecords(t, layout, body, slices.DeleteFunc(want, empty))
	}
}

func empty(cells []string) bool { return strings.Join(cells, "") == "" }

func compareRecords(t *testing.T, layout Layout, body []byte, want [][]string) {
	t.Helper()
	var got [][]string
	for record := range layout.Records(body, 1) {
		if record.Fault != nil {
			if strings.Contains(record.Raw, "\x00") || strings.Contains(record.Fault.Reason, "UTF-8") {
				return // encoding/csv cannot judge this
			}
			t.Fatalf("encoding/csv reads %q, Records says %s", body, describe(record))
		}
		fields := slices.Clone(record.Fields)
		for i := range fields {
			fields[i] = strings.ReplaceAll(fields[i], "\r\n", "\n")
		}
		got = append(got, fields)
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("%q: got %q, encoding/csv reads %q", body, got, want)
	}
}

// FuzzRecords makes rows of any bytes. Rows that are not rejected must obey the rules
// on which a database relies, and rejections must always be complete.
func FuzzRecords(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	f.Add([]byte("1,2,abc,https://example.com,t,a|b,True,2025-01-01\n"))
	f.Add([]byte(`1,2,3,clicked,2025-01-01,"{""a"":1}"`))
	f.Add([]byte("1.0,\"2,345\",abc, https://example.com , \" t\",,,0000-00-00,302.0,,12.00,1714550400,5/1/2024\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range kinds {
			layout := Layout{Kind: kind, Format: FormatSignpost, Columns: columnNames(kind)}
			parser := layout.Parser(testRules)
			for record := range layout.Records(body, 2) {
				reject := parser.judge(kind, record)
				if reject != nil && (reject.Line != record.Line || reject.Reason == "" || reject.Raw != record.Raw) {
					t.Fatalf("%+v rejected as %+v", record, reject)
				}
				if reject == nil && (record.Fields == nil || strings.Contains(record.Raw, "\x00")) {
					t.Fatalf("%+v accepted", record)
				}
				// A record that is stored by itself is read as the same record.
				for again := range layout.Records([]byte(record.Raw), record.Line) {
					if record.Fault == nil && describe(again) != describe(record) {
						t.Fatalf("%s read again is %s", describe(record), describe(again))
					}
					break
				}
			}
		}
	})
}

// FuzzHeader opens any bytes as a file of each kind.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{"id,username,email\n1,a,b", "sep=;\n\"a;b\n", "\xff\xfei\x00d\x00", "PK\x03\x04", "https://a.b/,c\n", "\r\r\n\n\"\"", "username,email,\x00\na,b,c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, kind := range kinds {
			_, layout, err := read(kind, bytes.NewReader(file), SplitOptions{MaxRecord: 64})
			var formatErr *FormatError
			if err != nil && !errors.As(err, &formatErr) {
				t.Fatalf("%s: %v", kind, err)
			}
			if slices.ContainsFunc(layout.Header, hasNUL) {
				t.Fatalf("%s: Postgres refuses the header %q", kind, layout.Header)
			}
			if err == nil && (len(layout.Columns) == 0 || layout.Kind != kind || len(layout.Delimiter) != 1) {
				t.Fatalf("%s: layout %+v", kind, layout)
			}
		}
	})
}

// jsonbText writes a decoded value as jsonb does.
func jsonbText(value any) string {
	switch v := value.(type) {
	case map[string]any:
		var members []string
		for name, member := range v {
			members = append(members, jsonbText(name)+": "+jsonbText(member))
		}
		return "{" + strings.Join(members, ", ") + "}"
	case []any:
		var elements []string
		for _, element := range v {
			elements = append(elements, jsonbText(element))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case json.Number:
		mantissa, power, _ := strings.Cut(strings.ToLower(v.String()), "e")
		_, fraction, _ := strings.Cut(mantissa, ".")
		exponent, _ := strconv.Atoi(power) // 0 if there is no exponent
		number, _ := new(big.Rat).SetString(v.String())
		return number.FloatString(max(0, len(fraction)-exponent))
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // into memory
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSpace(text.String()))
}

// FuzzDetails compares with the result of the standard library. Accepted details must
// be an object in which nothing was replaced, which stays within the bound in the form
// in which Postgres writes it, and which is accepted again in that form.
func FuzzDetails(f *testing.F) {
	f.Add(`{"a":"\ud83d\ude00","b":[1e5,true]}`)
	f.Add(`{"\\u0000":"\\\u0000"}`)
	f.Add(`{"a":[1e999,-12.5E+3,0.50e-2,0e-9, 1.0,-0], "b" :{},"c":""}`)
	f.Add(`{"a":[` + strings.Repeat("1,", 10_900) + `0]}`)
	f.Add(`{"a":[` + strings.Repeat("1e999,", 40) + `0]}`)
	f.Fuzz(func(t *testing.T, details string) {
		if checkDetails(details) != "" {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(details), &object); err != nil || object == nil {
			t.Fatalf("%q is accepted, and no object: %v", details, err)
		}
		var value any
		decoder := json.NewDecoder(strings.NewReader(details))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&value))
		plain := utf8.ValidString(details) && !strings.Contains(details, "\ufffd") && !strings.Contains(strings.ToLower(details), `\ufffd`)
		if text := fmt.Sprint(value); plain && strings.ContainsAny(text, "\x00\ufffd") {
			t.Fatalf("%q is accepted, and holds %q", details, text)
		}
		text := jsonbText(value)
		if !utf8.ValidString(details) { // no row is like that
			return
		}
		if reason := checkDetails(text); len(text) > maxDetails || reason != "" {
			t.Fatalf("%q is accepted, and written in %d bytes as %q, which %s", details, len(text), text, reason)
		}
	})
}
