package csvimport

import (
	"bytes"
	"strings"
)

// A Preview is what the beginning of a file tells about it. It is found by the same code
// that reads the whole file, so that an import of it finds the same.
type Preview struct {
	Layout Layout
	// Fault says why the file cannot be imported with these options, such as a column that
	// is missing; nil if it can.
	Fault    error
	Rows     []PreviewRow // the first ones, at most MaxPreviewRows
	Read     int64        // rows of the sample
	Rejected int64        // rows of the sample that are wrong in themselves
	Problems []Problem    // of all rows of the sample
}

// A PreviewRow is one of the first rows of a file.
type PreviewRow struct {
	Line   int64
	Cells  []string // shortened; one cell with the whole record if it cannot be cut
	Reject *Reject  // why the row is wrong in itself; nil if it is not
}

const (
	// MaxPreviewRows is how many rows a Preview shows.
	MaxPreviewRows = 8
	// maxPreviewCell is how many characters of a cell are shown, and maxPreviewCells how
	// many cells of a row.
	maxPreviewCell, maxPreviewCells = 80, 50
	// maxUnreadable is how many records are looked at to guess an encoding.
	maxUnreadable = 20
)

// GuessKind returns the kind of a file by its beginning: the first one of which it has
// all columns, or else links, whose columns may have any names.
func GuessKind(sample []byte, opts SplitOptions) Kind {
	for _, kind := range []Kind{KindUsers, KindLinks, KindEvents} {
		if _, err := NewSplitter(bytes.NewReader(sample), kind, opts); err == nil {
			return kind
		}
	}
	return KindLinks
}

// NewPreview reads the beginning of a file. whole says that it is all of it; otherwise its
// last record may be cut, and is left out. The error is a *FormatError if nothing can be
// shown, since the sample is no CSV file or has no column that the options name.
func NewPreview(sample []byte, whole bool, kind Kind, opts SplitOptions, rules Rules, policy Policy) (Preview, error) {
	s, best, err := begin(bytes.NewReader(sample), kind, opts)
	if err != nil {
		return Preview{}, err
	}
	var p Preview
	if p.Fault = best.check(kind, s.opts); p.Fault != nil {
		p.Fault = s.withEncoding(p.Fault)
	}
	if best.ext.fault != sound {
		return Preview{}, p.Fault
	}
	if best.match.format == nil {
		best.match = matchHeader(ownFormat(kind), best.fields, opts.foldedMapping())
	}
	s.use(kind, best)
	p.Layout = s.layout
	p.read(s, whole, rules, policy)
	return p, nil
}

// read looks at the rows of the sample.
func (p *Preview) read(s *Splitter, whole bool, rules Rules, policy Policy) {
	var groups []Problem
	var unreadable []string
	parser := p.Layout.Parser(rules)
	data, eof := s.ahead(len(s.buf))
	for record := range p.Layout.records(data, s.line, eof && whole) {
		p.Read++
		reject, notice := record.Fault, (*Notice)(nil)
		if p.Fault == nil {
			reject, notice = parser.check(p.Layout.Kind, record)
		}
		if len(p.Rows) < MaxPreviewRows {
			p.Rows = append(p.Rows, previewRow(record, reject))
		}
		switch {
		case reject != nil:
			p.Rejected++
			groups = group(groups, Problem{Outcome: OutcomeRejected, Column: reject.Column, Kind: reject.Kind, Reason: reject.Reason, Rows: 1, Line: reject.Line})
			if reject.Kind == ProblemEncoding && len(unreadable) < maxUnreadable {
				unreadable = append(unreadable, reject.Raw)
			}
		case notice != nil:
			groups = group(groups, Problem{Outcome: OutcomeImported, Column: notice.Column, Kind: notice.Kind, Reason: notice.Reason, Rows: 1, Line: notice.Line})
		}
	}
	p.Problems = p.Layout.Problems(groups, unreadable, policy)
}

// check returns why a record is wrong in itself, or what is to be known of it.
func (p *Parser) check(kind Kind, record Record) (reject *Reject, notice *Notice) {
	switch kind {
	case KindUsers:
		_, reject = p.User(record)
	case KindLinks:
		var link Link
		if link, reject = p.Link(record); reject == nil {
			notice = link.Notice()
		}
	default:
		_, reject = p.Event(record)
	}
	return reject, notice
}

// group adds a problem to those of its column and kind whose reasons begin alike, as the
// database does during an import.
func group(groups []Problem, one Problem) []Problem {
	for i := range groups {
		g := &groups[i]
		if g.Outcome == one.Outcome && g.Column == one.Column && g.Kind == one.Kind && beginning(g.Reason) == beginning(one.Reason) {
			g.Rows++
			return groups
		}
	}
	return append(groups, one)
}

func beginning(reason string) string {
	if i := strings.IndexAny(reason, `0123456789"`); i >= 0 {
		return reason[:i]
	}
	return reason
}

func previewRow(record Record, reject *Reject) PreviewRow {
	row := PreviewRow{Line: record.Line, Reject: reject}
	cells := record.Fields
	if cells == nil {
		cells = []string{record.Raw}
	}
	for _, cell := range cells[:min(len(cells), maxPreviewCells)] {
		row.Cells = append(row.Cells, shorten(cell, maxPreviewCell))
	}
	return row
}

// PreviewColumns returns the first columns of the file, as a Preview shows them: their
// names in the file, and the canonical names that they are read as, "" for none.
func (l Layout) PreviewColumns() (names, readAs []string) {
	readAs = l.Columns[:min(len(l.Columns), maxPreviewCells)]
	names = make([]string, len(readAs))
	if l.Header != nil {
		for i, name := range l.Header[:len(readAs)] {
			names[i] = strings.TrimSpace(strings.ToValidUTF8(name, "\uFFFD"))
		}
	}
	return names, readAs
}

// Mappable lists the canonical columns that a mapping of kind may name, the required ones
// first.
func Mappable(kind Kind) []string { return mappable(kind) }
