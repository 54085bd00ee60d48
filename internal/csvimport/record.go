package csvimport

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"
)

// A Record is one record of a file.
type Record struct {
	Line int64  // physical line it begins on
	Raw  string // as it is in the file, without its line end
	// Fields are the unquoted values by position. The slice is used again for
	// the next record; its strings may be kept.
	Fields []string
	Fault  *Reject // not nil if the record cannot be read; Fields is nil then
}

// Records walks the records of a chunk, or of any run of whole records, whose
// first one begins on line firstLine. Records broken in themselves (quotes,
// number of fields, length, NUL bytes, invalid UTF-8) carry a Fault. Blank lines
// are passed over.
func (l Layout) Records(data []byte, firstLine int64) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		var fields []string
		delim, line, text := l.delimiter(), firstLine, string(data)
		for pos := 0; pos < len(data); {
			ext, _ := measure(data[pos:], delim, l.limit(), true)
			record := Record{Line: line, Raw: text[pos : pos+ext.text]}
			pos += ext.size
			line += int64(ext.lines)
			// What is kept of an overlong line may be blank: it is a row all the same.
			if ext.fault == sound && blank(record.Raw, delim) {
				continue
			}
			record.Fault = l.fault(&record, ext)
			if record.Fault == nil {
				fields = splitFields(record.Raw, delim, fields[:0])
				record.Fields = fields
				record.Fault = l.check(&record)
			}
			if record.Fault != nil {
				record.Fields = nil
			}
			if !yield(record) {
				return
			}
		}
	}
}

func (l Layout) delimiter() byte {
	if l.Delimiter == "" {
		return ','
	}
	return l.Delimiter[0]
}

func (l Layout) limit() int {
	if l.MaxRecord == 0 {
		return DefaultMaxRecord
	}
	return l.MaxRecord
}

// fault turns what measure found into a Reject, or nil.
func (l Layout) fault(record *Record, ext extent) *Reject {
	switch ext.fault {
	case sound:
		return nil
	case faultLong:
		return record.reject("", l.reason(faultLong))
	default:
		return record.reject(l.columnName(ext.column), l.reason(ext.fault))
	}
}

// reason says what is wrong with a record that cannot be cut into fields.
func (l Layout) reason(fault int) string {
	switch fault {
	case faultLong:
		return fmt.Sprintf("is longer than %d bytes", l.limit())
	case faultBare:
		return "has a quote in a field that is not quoted"
	case faultJunk:
		return "has text after its closing quote"
	default:
		return fmt.Sprintf("has a quote that is not closed as it should be within %d bytes", l.limit())
	}
}

// check finds what is wrong with a record's fields whatever they mean. The two
// columns of a mended file are not counted.
func (l Layout) check(record *Record) *Reject {
	own := l.own(record.Fields)
	if l.Mended {
		if reject := l.asBefore(record, own); reject != nil {
			return reject
		}
	}
	if column, bad := l.columnWith(record, hasNUL); bad {
		return record.reject(column, "must not contain NUL bytes")
	}
	if column, bad := l.columnWith(record, invalid); bad {
		return record.reject(column, "must be valid UTF-8")
	}
	n, most := len(own), len(l.own(l.Columns))
	switch {
	case n == most, l.MinFields != 0 && n >= l.MinFields && n <= most:
		return nil
	case l.MinFields != 0:
		return record.reject("", reasonHeadless(n, l.MinFields, most))
	default:
		return record.reject("", fmt.Sprintf("has %d fields, the header has %d", n, most))
	}
}

func reasonHeadless(n, least, most int) string {
	return fmt.Sprintf("has %d fields, %d to %d are expected", n, least, most)
}

// columnWith returns the first column whose field has a fault.
func (l Layout) columnWith(record *Record, fault func(string) bool) (string, bool) {
	if !fault(record.Raw) {
		return "", false
	}
	for i, field := range record.Fields {
		if !l.skips(i) && fault(field) {
			return l.columnName(i), true
		}
	}
	return "", false
}

func hasNUL(s string) bool  { return strings.IndexByte(s, 0) >= 0 }
func invalid(s string) bool { return !utf8.ValidString(s) }

func (r *Record) reject(column, reason string) *Reject {
	return &Reject{Line: r.Line, Column: column, Reason: reason, Raw: r.Raw}
}

// blank reports whether a line holds nothing, so that it is no row.
func blank[T string | []byte](text T, delim byte) bool {
	for i := range len(text) {
		if c := text[i]; c != ' ' && (c != '\t' || delim == '\t') {
			return false
		}
	}
	return true
}

// splitFields appends the fields of a record that measure found sound.
func splitFields(text string, delim byte, fields []string) []string {
	if strings.IndexByte(text, '"') < 0 {
		return splitPlain(text, delim, fields)
	}
	for {
		if text == "" || text[0] != '"' {
			i := strings.IndexByte(text, delim)
			if i < 0 {
				return append(fields, text)
			}
			fields, text = append(fields, text[:i]), text[i+1:]
			continue
		}
		end := closingQuote(text)
		field := text[1:end]
		if strings.IndexByte(field, '"') >= 0 {
			field = strings.ReplaceAll(field, `""`, `"`)
		}
		fields = append(fields, field)
		if end+1 == len(text) {
			return fields
		}
		text = text[end+2:]
	}
}

func splitPlain(text string, delim byte, fields []string) []string {
	for {
		i := strings.IndexByte(text, delim)
		if i < 0 {
			return append(fields, text)
		}
		fields, text = append(fields, text[:i]), text[i+1:]
	}
}

// closingQuote returns the position of the quote that closes the field which
// text begins with.
func closingQuote(text string) int {
	i := 1
	for {
		i += strings.IndexByte(text[i:], '"')
		if i+1 == len(text) || text[i+1] != '"' {
			return i
		}
		i += 2
	}
}

// Faults that a record's form can have.
const (
	sound        = iota
	faultLong    // longer than a record may be
	faultBare    // a quote inside a field that does not begin with one
	faultJunk    // text between a closing quote and the next delimiter
	faultUnended // a quoted field that goes over the line end and has no good end
)

// An extent is where a record ends. A record with a fault is its first line:
// reading goes on at the next one.
type extent struct {
	size   int // bytes, its line end included
	text   int // bytes without the line end; of an overlong line, what is kept
	lines  int // physical lines
	fault  int
	column int // position of the field at fault
	// endless: the line end was not reached; what follows up to it belongs to
	// the record too. Only if there was more to come.
	endless bool
}

// measure finds the end of the record at the start of data, at most limit bytes
// of text. eof says that nothing follows data; without it the answer may be
// false: decide again with more data, which is never needed beyond limit+3
// bytes.
//
// What is found depends on nothing after the record, so that a chunk read by
// itself has the records of the file: a fault beyond the first line is always
// faultUnended, in the field that crosses the line end.
func measure(data []byte, delim byte, limit int, eof bool) (extent, bool) {
	text, size, ok := lineEnd(data, eof)
	if !ok && len(data) <= limit+1 {
		return extent{}, false
	}
	if !ok || text > limit {
		// One byte more than allowed is kept, to be found overlong again.
		return extent{size: size, text: limit + 1, lines: 1, fault: faultLong, endless: !ok}, true
	}
	if bytes.IndexByte(data[:text], '"') < 0 {
		return extent{size: size, text: text, lines: 1}, true
	}
	first := extent{size: size, text: text, lines: 1}
	if len(data) > limit+3 {
		data, eof = data[:limit+3], false
	}
	return measureQuoted(data, delim, limit, eof, first)
}

// measureQuoted is measure for a record that has quotes. first is the extent
// of its first line.
func measureQuoted(data []byte, delim byte, limit int, eof bool, first extent) (extent, bool) {
	column, crossing := 0, -1
	failed := func(at, fault int) (extent, bool) {
		first.fault, first.column = fault, column
		if at > first.text {
			first.fault, first.column = faultUnended, crossing
		}
		return first, true
	}
	more := func() (extent, bool) {
		if eof || len(data) >= limit+3 {
			return failed(len(data), faultUnended)
		}
		return extent{}, false
	}
	for pos := 0; ; column++ {
		if pos < len(data) && data[pos] == '"' {
			end := quoteEnd(data, pos)
			if crossing < 0 && (end < 0 || end > first.text) {
				crossing = column
			}
			if end < 0 {
				return more()
			}
			if end == len(data) && !eof {
				return more()
			}
			pos = end
			if pos < len(data) && data[pos] != delim && data[pos] != '\n' && data[pos] != '\r' {
				return failed(pos, faultJunk)
			}
		} else {
			for pos < len(data) && data[pos] != delim && data[pos] != '\n' && data[pos] != '\r' {
				if data[pos] == '"' {
					return failed(pos, faultBare)
				}
				pos++
			}
		}
		if pos < len(data) && data[pos] == delim {
			pos++
			continue
		}
		_, size, ok := lineEnd(data[pos:], eof)
		switch {
		case !ok && pos <= limit:
			return more()
		case pos > limit:
			return failed(pos, faultLong)
		}
		return extent{size: pos + size, text: pos, lines: 1 + countLines(data[first.text:pos])}, true
	}
}

// quoteEnd returns the position after the quote that closes the one at pos, or
// -1 if data ends before it.
func quoteEnd(data []byte, pos int) int {
	for pos++; ; pos += 2 {
		i := bytes.IndexByte(data[pos:], '"')
		if i < 0 {
			return -1
		}
		pos += i
		if pos+1 >= len(data) || data[pos+1] != '"' {
			return pos + 1
		}
	}
}

// lineEnd finds the first LF, CRLF or CR: the length of the text before it, and
// of both. False if data ends before that can be told; both are then what
// certainly belongs to the text.
func lineEnd(data []byte, eof bool) (text, size int, ok bool) {
	// In steps, so that a file without one of the two characters is not
	// searched for it to its end on every line.
	const step = 512
	for start := 0; start < len(data); start += step {
		part := data[start:min(start+step, len(data))]
		lf := bytes.IndexByte(part, '\n')
		if lf >= 0 {
			part = part[:lf]
		}
		cr := bytes.IndexByte(part, '\r')
		switch {
		case cr >= 0:
			return afterCR(data, start+cr, eof)
		case lf >= 0:
			return start + lf, start + lf + 1, true
		}
	}
	return len(data), len(data), eof
}

func afterCR(data []byte, cr int, eof bool) (text, size int, ok bool) {
	switch {
	case cr+1 < len(data) && data[cr+1] == '\n':
		return cr, cr + 2, true
	case cr+1 < len(data) || eof:
		return cr, cr + 1, true
	}
	return cr, cr, false
}

// countLines counts line ends in data.
func countLines(data []byte) int {
	lines := bytes.Count(data, []byte{'\n'})
	for {
		i := bytes.IndexByte(data, '\r')
		if i < 0 {
			return lines
		}
		data = data[i+1:]
		if len(data) == 0 || data[0] != '\n' {
			lines++
		}
	}
}
