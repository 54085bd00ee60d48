package csvimport

import (
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

// Records yields the records of a chunk, or of any other run of whole records; the
// first one begins on line firstLine. A record that cannot be read (because of quotes,
// number of fields, length, NUL bytes or invalid UTF-8) has a Fault. Blank records are
// left out.
func (l Layout) Records(data []byte, firstLine int64) iter.Seq[Record] {
	return l.records(data, firstLine, true)
}

// records is Records for data that may go on; eof says that it does not. A record whose
// end is not in data is left out.
func (l Layout) records(data []byte, firstLine int64, eof bool) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		var fields []string
		d, line, text := l.dialect(), firstLine, string(data)
		var broken ProblemKind // of text that is none; "" until there is some
		for pos := 0; pos < len(data); {
			ext, ok := d.measure(data[pos:], l.limit(), eof)
			if !ok {
				return
			}
			raw := data[pos : pos+ext.text]
			record := Record{Line: line, Raw: text[pos : pos+ext.text]}
			pos += ext.size
			line += int64(ext.lines)
			// The part of an overlong line that is kept may be blank; it is a row all
			// the same.
			if ext.fault == sound && d.blank(raw) {
				continue
			}
			record.Fault = l.fault(&record, ext)
			if record.Fault == nil {
				fields = d.split(raw, record.Raw, fields[:0])
				record.Fields = fields
				record.Fault = l.check(&record)
			}
			if record.Fault != nil && record.Fault.Kind == ProblemEncoding {
				if broken == "" {
					broken = l.brokenText(text)
				}
				record.Fault.Kind = broken
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

// brokenText returns the kind of problem that a chunk's bytes which are not text belong
// to. They are stray bytes if the chunk was converted from another encoding, or if its
// other characters show that it is UTF-8.
func (l Layout) brokenText(chunk string) ProblemKind {
	if l.recoded() || damagedUTF8(chunk) {
		return ProblemBytes
	}
	return ProblemEncoding
}

// notText returns the reason for rejecting a value with bytes that are not characters.
func (l Layout) notText() string {
	if l.recoded() {
		return "has bytes that are no characters in " + string(l.Encoding)
	}
	return "must be valid UTF-8"
}

// recoded reports whether chunks were converted from another encoding.
func (l Layout) recoded() bool { return l.Encoding != "" && l.Encoding != EncodingUTF8 }

func (l Layout) limit() int {
	if l.MaxRecord == 0 {
		return DefaultMaxRecord
	}
	return l.MaxRecord
}

// fault returns the Reject for the fault that measure found, or nil.
func (l Layout) fault(record *Record, ext extent) *Reject {
	reason := "has text after its closing quote"
	switch ext.fault {
	case sound:
		return nil
	case faultLong:
		return record.reject("", ProblemLength, fmt.Sprintf("is longer than %d bytes", l.limit()))
	case faultUnended:
		reason = fmt.Sprintf("has a quote that is not closed as it should be within %d bytes", l.limit())
	}
	if l.Escape != EscapeBackslash && strings.Contains(record.Raw, `\"`) {
		reason += hintEscape
	}
	return record.reject(l.columnName(ext.column), ProblemQuotes, reason)
}

const (
	// reasonSurplus is the beginning of the reason of a record with too many fields.
	reasonSurplus = "has text behind its last column"
	// hintEscape ends the reason of a record whose quotes do not match, and that has
	// a backslash before one.
	hintEscape = ` (a file that writes quotes as \" is read with escape=backslash)`
)

// check returns the first fault of a record's fields that does not depend on their
// meaning. The two extra columns of a mended file are not counted.
func (l Layout) check(record *Record) *Reject {
	if column, bad := l.columnWith(record, hasNUL); bad {
		return record.reject(column, ProblemValue, "must not contain NUL bytes")
	}
	if column, bad := l.columnWith(record, invalid); bad {
		return record.reject(column, ProblemEncoding, l.notText())
	}
	return l.surplus(record, l.own(record.Fields), len(l.own(l.Columns)))
}

// surplus rejects a record with text behind the last column. Empty cells there, and
// missing cells at the end, are not a fault.
func (l Layout) surplus(record *Record, own []string, most int) *Reject {
	for i, cell := range own[min(most, len(own)):] {
		if l.restores() {
			cell = Restore(cell)
		}
		if cell = trim(cell); cell != "" {
			return record.reject("", ProblemCells, fmt.Sprintf("%s: it has %d fields, %d are expected, and field %d is \"%s\"",
				reasonSurplus, len(own), most, most+i+1, shown(cell)))
		}
	}
	return nil
}

// columnWith returns the first column whose field has a fault.
func (l Layout) columnWith(record *Record, fault func(string) bool) (string, bool) {
	if !fault(record.Raw) {
		return "", false
	}
	for i, field := range record.Fields {
		if i >= l.added() && fault(field) {
			return l.columnName(i), true
		}
	}
	return "", false
}

func hasNUL(s string) bool  { return strings.IndexByte(s, 0) >= 0 }
func invalid(s string) bool { return !utf8.ValidString(s) }

func (r *Record) reject(column string, kind ProblemKind, reason string) *Reject {
	return &Reject{Line: r.Line, Column: column, Kind: kind, Reason: reason, Raw: r.Raw}
}

// field returns the value at position, "" if the record has none.
func (r *Record) field(position int) string {
	if position < 0 || position >= len(r.Fields) {
		return ""
	}
	return r.Fields[position]
}

// HighestID returns the highest id in the rows of a chunk, up to [MaxSequenceID]; 0 if
// there is none.
func (l Layout) HighestID(data []byte) (highest int64) {
	position := l.position(colID)
	if position < 0 {
		return 0
	}
	for record := range l.Records(data, 1) {
		if id, ok := parseID(record.field(position)); ok && id <= MaxSequenceID {
			highest = max(highest, id)
		}
	}
	return highest
}
