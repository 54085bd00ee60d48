package csvimport

import (
	"slices"
	"strconv"
	"strings"
)

// Columns that [Layout.MendHeader] puts before those of the file, and that a
// mended file still has.
const (
	MendLine   = "line"
	MendReason = "reason"
)

// MendHeader returns the header of the file in which the rejected rows of this file are
// given back to be mended. It has the line, the reason, and then the file's own
// columns. The two come first so that they stay in their place when a record has too
// few fields or too many. Cells are neutralized ([Neutralize]).
//
// If the file had a byte order mark, or was in another encoding than UTF-8, the first
// cell begins with a mark, so that naming the old encoding again does no harm. Of a
// file that was read as UTF-8 but is not, the original bytes are given back.
//
// The file of rejected rows can be uploaded again as it is: the line and the reason are
// not read, all cells are restored, and a row that nobody mended is rejected again for
// the same reason, in the same column. (A record whose length was within a few hundred
// bytes of the limit may now be too long, because the reason stands before it.)
func (l Layout) MendHeader() []string {
	names := l.Header
	if names == nil { // the file has none
		names = l.Columns
	}
	header := []string{MendLine, MendReason}
	if l.recoded() || l.Marked {
		header[0] = "\ufeff" + MendLine
	}
	for _, name := range l.own(names) {
		header = append(header, Neutralize(name))
	}
	return header
}

// MendRecord returns a rejected row as a record of the file that MendHeader describes.
//
// The record keeps all its cells, even if they are too many or too few. If it cannot be
// cut into cells, because of its quotes or its length, its whole text is put behind the
// last column, where text is refused until somebody has split it. Bytes that are not
// text stay as they are: if they were replaced, the row would be accepted.
func (l Layout) MendRecord(reject Reject) []string {
	cells := []string{strconv.FormatInt(reject.Line, 10), Neutralize(reject.text())}
	d := l.dialect()
	raw := []byte(reject.Raw)
	ext, _ := d.measure(raw, l.limit(), true)
	if ext.fault != sound || ext.text != len(reject.Raw) {
		cells = append(cells, make([]string, len(l.own(l.Columns)))...)
		return append(cells, Neutralize(reject.Raw))
	}
	for _, field := range l.own(d.split(raw, reject.Raw, nil)) {
		if l.restores() {
			field = Restore(field)
		}
		cells = append(cells, Neutralize(field))
	}
	return cells
}

// text returns the reason in the words in which it is given back.
func (r Reject) text() string {
	if r.Column == "" {
		return r.Reason
	}
	return r.Column + " " + r.Reason
}

// asBefore returns the reason for which a record of a mended file was rejected the
// first time, if the record itself cannot show that reason any more; otherwise nil. It
// cannot if it could not be cut into cells and is now all in one cell. own are its
// fields without line and reason.
//
// The reason is worked out anew where that is possible. Only the mended file knows
// which column the fault was in and whether a hint was given, because the dialect and
// header that the record was first read with are not known any more.
func (l Layout) asBefore(record *Record, own []string) *Reject {
	at := slices.IndexFunc(l.Header, func(name string) bool { return fold(name) == MendReason })
	if at < 0 || at >= len(record.Fields) {
		return nil
	}
	whole, ok := only(own)
	if !ok {
		return nil
	}
	said := Restore(record.Fields[at])
	for _, d := range mendDialects {
		ext, _ := d.measure([]byte(Restore(whole)), l.limit(), true)
		if ext.fault == sound {
			continue
		}
		reason := l.reason(ext.fault)
		if strings.HasSuffix(said, hintEscape) {
			reason += hintEscape
		}
		if said == reason {
			return record.reject("", faultKind(ext.fault), reason)
		}
		if column, ok := strings.CutSuffix(said, " "+reason); ok && column == shown(column) {
			return record.reject(column, faultKind(ext.fault), reason)
		}
	}
	return nil
}

// mendDialects are the dialects that a record which is given back may have been read
// in.
var mendDialects = func() (all []dialect) {
	for i := range len(delimiters) {
		all = append(all, dialect{delim: delimiters[i]}, dialect{delim: delimiters[i], escape: true},
			dialect{delim: delimiters[i]})
	}
	return all
}()

// only returns the one cell that is not empty.
func only(cells []string) (cell string, ok bool) {
	for _, c := range cells {
		switch {
		case c == "":
		case cell != "":
			return "", false
		default:
			cell = c
		}
	}
	return cell, cell != ""
}

// own leaves out the two cells that an earlier mending put before the file's own
// columns.
func (l Layout) own(fields []string) []string {
	if !l.Mended {
		return fields
	}
	kept := make([]string, 0, len(fields))
	for i, field := range fields {
		if !l.skips(i) {
			kept = append(kept, field)
		}
	}
	return kept
}

// skips reports whether the column at position is the line or the reason of a mended
// file. Only the first column of each name is, because the file may have had such a
// column itself.
func (l Layout) skips(position int) bool {
	if !l.Mended || position >= len(l.Header) {
		return false
	}
	name := fold(l.Header[position])
	return (name == MendLine || name == MendReason) &&
		!slices.ContainsFunc(l.Header[:position], func(cell string) bool { return fold(cell) == name })
}

// mended reports whether a header is one that MendHeader made: it has both columns, and
// the mapping ignores both.
func mended(header []string, opts SplitOptions) bool {
	mapping := opts.foldedMapping()
	for _, name := range []string{MendLine, MendReason} {
		there := slices.ContainsFunc(header, func(cell string) bool { return fold(cell) == name })
		if !there || mapping[name] != "" {
			return false
		}
	}
	return true
}
