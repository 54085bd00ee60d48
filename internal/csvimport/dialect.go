package csvimport

import (
	"bytes"
	"strings"
)

// How quotes within quoted cells are written, beside doubled ones.
const (
	EscapeNone      = "none"
	EscapeBackslash = "backslash"
)

// A dialect is how a file writes its cells.
//
// A quoted cell begins with a quote, goes to the next one that is alone, and is
// text as it stands. Blanks around the quotes are no part of it. Any other cell goes
// to the next delimiter or line end, and is text without the blanks around it; a
// quote in it is a character like others.
type dialect struct {
	delim  byte
	escape bool // within quotes, a backslash makes a quote, or another backslash, a character
	null   bool // NULL, unquoted, is nothing; \N is it anyway
}

func (l Layout) dialect() dialect {
	d := dialect{delim: ',', escape: l.Escape == EscapeBackslash, null: l.Format != FormatSignpost}
	if l.Delimiter != "" {
		d.delim = l.Delimiter[0]
	}
	return d
}

// blanks are the characters that are cut off around a cell.
func (d dialect) blanks() string {
	if d.delim == '\t' {
		return " "
	}
	return " \t"
}

// skipBlanks returns the position of the first byte after the blanks at pos.
func (d dialect) skipBlanks(data []byte, pos int) int {
	for pos < len(data) && (data[pos] == ' ' || data[pos] == '\t' && d.delim != '\t') {
		pos++
	}
	return pos
}

// blank reports whether a record holds nothing, so that it is no row: blanks and
// delimiters alone, since spreadsheets leave such rows below the others.
func (d dialect) blank(text []byte) bool {
	for _, c := range text {
		if c != ' ' && c != '\t' && c != d.delim {
			return false
		}
	}
	return true
}

// split appends the cells of a record in which measure found no fault. data and text
// both hold the record; the cells share the memory of text.
func (d dialect) split(data []byte, text string, cells []string) []string {
	if bytes.IndexByte(data, '"') < 0 {
		return d.splitPlain(text, cells)
	}
	for pos := 0; ; {
		start, end := d.skipBlanks(data, pos), pos
		quoted := start < len(data) && data[start] == '"'
		if quoted {
			end = d.quoteEnd(data, start)
			cells = append(cells, d.quoted(text[start+1:end-1]))
		}
		next := bytes.IndexByte(data[end:], d.delim)
		switch {
		case next < 0 && quoted:
			return cells
		case next < 0:
			return append(cells, d.unquoted(text[pos:]))
		case !quoted:
			cells = append(cells, d.unquoted(text[pos:end+next]))
		}
		pos = end + next + 1
	}
}

func (d dialect) splitPlain(text string, cells []string) []string {
	for {
		i := strings.IndexByte(text, d.delim)
		if i < 0 {
			return append(cells, d.unquoted(text))
		}
		cells, text = append(cells, d.unquoted(text[:i])), text[i+1:]
	}
}

// unquoted returns the value of a cell without quotes; "" for a cell that stands for
// nothing, such as NULL.
func (d dialect) unquoted(cell string) string {
	if cell == "" {
		return cell
	}
	if cell[0] <= ' ' || cell[len(cell)-1] <= ' ' {
		cell = strings.Trim(cell, d.blanks())
	}
	if cell == `\N` || cell == "NULL" && d.null {
		return ""
	}
	return cell
}

// unescape undoes backslashes before quotes, themselves and, as MySQL writes them,
// line ends.
var unescape = strings.NewReplacer(`""`, `"`, `\"`, `"`, `\\`, `\`, "\\\n", "\n", "\\\r", "\r")

// quoted returns the value of a cell whose text between the quotes is given.
func (d dialect) quoted(cell string) string {
	switch {
	case d.escape && strings.IndexByte(cell, '\\') >= 0:
		return unescape.Replace(cell)
	case strings.IndexByte(cell, '"') >= 0:
		return strings.ReplaceAll(cell, `""`, `"`)
	}
	return cell
}

// Faults that a record's form can have.
const (
	sound        = iota
	faultLong    // longer than a record may be
	faultJunk    // text between a closing quote and the next delimiter
	faultUnended // a quoted field that goes over the line end and has no good end
)

// An extent says where a record ends. Of a record with a fault, only the first line is
// taken: reading goes on at the next line.
type extent struct {
	size   int // bytes, its line end included
	text   int // bytes without the line end; of an overlong line, the bytes that are kept
	lines  int // physical lines
	fault  int
	column int // position of the field at fault
	// endless says that the line end was not reached, although more data was to come:
	// what follows, up to the line end, still belongs to the record.
	endless bool
}

// measure finds the end of the record at the start of data, and takes at most limit
// bytes of text. eof says that nothing follows data. Without eof it may return false:
// the caller then has to call it again with more data. It never needs more than limit+3
// bytes.
//
// The result depends on nothing after the record, so that a chunk read by itself
// has the records of the file: a fault beyond the first line is always
// faultUnended, in the field that crosses the line end.
func (d dialect) measure(data []byte, limit int, eof bool) (extent, bool) {
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
	return d.measureQuoted(data, limit, eof, first)
}

// measureQuoted is measure for a record that has quotes. first is the extent
// of its first line.
func (d dialect) measureQuoted(data []byte, limit int, eof bool, first extent) (extent, bool) {
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
		pos = d.skipBlanks(data, pos)
		if pos < len(data) && data[pos] == '"' {
			end := d.quoteEnd(data, pos)
			if crossing < 0 && (end < 0 || end > first.text) {
				crossing = column
			}
			if end < 0 {
				return more()
			}
			pos = d.skipBlanks(data, end)
			if pos == len(data) && !eof {
				return more()
			}
			if pos < len(data) && !d.ends(data[pos]) {
				return failed(pos, faultJunk)
			}
		} else {
			for pos < len(data) && !d.ends(data[pos]) {
				pos++
			}
		}
		if pos < len(data) && data[pos] == d.delim {
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

// ends reports whether c is behind the end of an unquoted cell.
func (d dialect) ends(c byte) bool { return c == d.delim || c == '\n' || c == '\r' }

// quoteEnd returns the position after the quote that closes the one at pos, or
// -1 if data ends before it.
func (d dialect) quoteEnd(data []byte, pos int) int {
	for pos++; ; pos += 2 {
		i := d.indexQuote(data[pos:])
		if i < 0 {
			return -1
		}
		pos += i
		switch {
		case data[pos] == '\\' && pos+1 == len(data):
			return -1
		case data[pos] == '"' && (pos+1 == len(data) || data[pos+1] != '"'):
			return pos + 1
		}
	}
}

// indexQuote finds the first character that may end a quoted cell, or take part
// in an escaped one.
func (d dialect) indexQuote(data []byte) int {
	if d.escape {
		return bytes.IndexAny(data, `"\`)
	}
	return bytes.IndexByte(data, '"')
}

// lineEnd finds the first LF, CRLF or CR. It returns the length of the text before it,
// and the length of both together. It returns false if data ends before the line end
// can be told; both lengths are then the bytes that certainly belong to the text.
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
