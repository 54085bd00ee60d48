package csvimport

import "strconv"

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
// not read, all cells are restored, and a row that nobody mended is rejected again. (A
// record whose length was within a few hundred bytes of the limit may now be too long,
// because the reason stands before it.)
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
	reason := reject.Reason
	if reject.Column != "" {
		reason = reject.Column + " " + reason
	}
	cells := []string{strconv.FormatInt(reject.Line, 10), Neutralize(reason)}
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

// mendColumns is how many columns MendHeader puts before those of the file.
const mendColumns = 2

// added is how many columns at the beginning of the file an earlier mending put there.
func (l Layout) added() int {
	if l.Mended {
		return mendColumns
	}
	return 0
}

// own leaves out the cells of the columns that an earlier mending added.
func (l Layout) own(cells []string) []string { return cells[min(l.added(), len(cells)):] }

// mended reports whether a header is one that MendHeader made: it begins with the line
// and the reason, and the mapping ignores both.
func mended(header []string, opts SplitOptions) bool {
	mapping := opts.foldedMapping()
	return len(header) >= mendColumns && fold(header[0]) == MendLine && fold(header[1]) == MendReason &&
		mapping[MendLine] == "" && mapping[MendReason] == ""
}
