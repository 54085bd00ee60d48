package csvimport

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Bounds of a Splitter that are used where SplitOptions says nothing.
const (
	DefaultChunkRows  = 2000
	DefaultChunkBytes = 512 << 10
	DefaultMaxRecord  = 64 << 10
)

// SplitOptions says how to cut a file. The zero value is usable.
type SplitOptions struct {
	ChunkRows  int // most rows of a chunk; default DefaultChunkRows
	ChunkBytes int // most bytes of a chunk, unless one record has more; default DefaultChunkBytes
	MaxRecord  int // most bytes of a record; default DefaultMaxRecord
	// Format names the format of the file; "" recognizes it by the header.
	Format string
	// Mapping gives columns of the file their canonical names; "" ignores a column. Its
	// keys are compared like header names. It takes precedence over the format.
	Mapping map[string]string
	// Encoding says how the file's characters are written; "" finds it out from the
	// file.
	Encoding Encoding
	// Escape is EscapeNone or EscapeBackslash; "" finds it out from the beginning of
	// the file. Files of rejected rows have no escapes.
	Escape string
	// Timezone is the time zone of times that name none; "" is UTC (see [CheckTimezone]).
	Timezone string
	// Domain is the host of links whose row names no domain; "" is the main one.
	Domain string
}

func (o SplitOptions) withDefaults() SplitOptions {
	o.ChunkRows = cmp.Or(o.ChunkRows, DefaultChunkRows)
	o.ChunkBytes = cmp.Or(o.ChunkBytes, DefaultChunkBytes)
	o.MaxRecord = cmp.Or(o.MaxRecord, DefaultMaxRecord)
	return o
}

// A Chunk is a run of whole records of a file.
type Chunk struct {
	Seq       int   // position among the file's chunks, from 0
	FirstLine int64 // physical line that Data begins on
	Rows      int   // records in Data, broken ones included, blank ones not
	// Data is the records as they are in the file, in UTF-8, with their line
	// ends. A line longer than a record may be is cut, and still too long. The
	// caller owns it.
	Data []byte
}

// MaxSequenceID bounds how far an imported id moves the sequence that new ids are drawn
// from. Larger ids are kept, but the sequence never reaches them, so that one absurd id
// does not use up all ids that are left.
const MaxSequenceID = 1 << 51

// A Splitter cuts a file into chunks. Its memory is bounded by its options,
// whatever the file's size or lines. It is for one goroutine.
type Splitter struct {
	in         io.Reader
	opts       SplitOptions
	marked     bool // the file begins with a byte order mark
	layout     Layout
	dialect    dialect
	buf        []byte // buf[start:end] was read and not yet cut
	start, end int
	eof        bool
	line       int64 // line of buf[start]
	seq        int
	rows       int64
	discarding bool  // the rest of an overlong line is passed over
	room       int   // bytes that a chunk's Data is likely to need
	failed     error // of the reader, while there are bytes before it
	done       error
}

// NewSplitter reads the beginning of a file of kind: its encoding, delimiter and
// header. The error is a *FormatError if the file cannot be read as one of that kind,
// or else the error of r.
func NewSplitter(r io.Reader, kind Kind, opts SplitOptions) (*Splitter, error) {
	s, best, err := begin(r, kind, opts)
	if err != nil {
		return nil, err
	}
	if err := best.check(kind, s.opts); err != nil {
		return nil, s.withEncoding(err)
	}
	s.use(kind, best)
	return s, nil
}

// begin finds the header of a file. Whether the header is one of the kind is not checked.
func begin(r io.Reader, kind Kind, opts SplitOptions) (*Splitter, header, error) {
	if _, err := ParseKind(string(kind)); err != nil {
		return nil, header{}, err
	}
	if err := checkOptions(kind, opts); err != nil {
		return nil, header{}, err
	}
	in, encoding, marked, err := decode(r, opts.Encoding)
	if err != nil {
		return nil, header{}, err
	}
	opts = opts.withDefaults()
	opts.Encoding = encoding
	s := &Splitter{in: in, opts: opts, marked: marked, line: 1, buf: make([]byte, 2*opts.MaxRecord+16<<10)}
	best, err := s.findHeader(kind)
	if err != nil {
		return nil, header{}, s.withEncoding(err)
	}
	return s, best, nil
}

// withEncoding adds to an error about a header that the header is not UTF-8, if it is
// not: its columns may be right in its own encoding.
func (s *Splitter) withEncoding(err error) error {
	var format *FormatError
	if s.opts.Encoding != EncodingUTF8 || !errors.As(err, &format) {
		return err
	}
	line, _, lineErr := s.firstLine()
	if lineErr != nil || !invalid(line) {
		return err
	}
	format.Reason = "the first line is not UTF-8" + likely(GuessEncoding([]string{line})) + "; " + format.Reason
	return format
}

func checkOptions(kind Kind, opts SplitOptions) error {
	if names := FormatNames(kind); opts.Format != "" && !slices.Contains(names, opts.Format) {
		return &FormatError{Field: "format", Reason: fmt.Sprintf("%q is not a format of %s; these are: %s",
			shown(opts.Format), kind, strings.Join(names, ", "))}
	}
	for _, canonical := range opts.Mapping {
		if names := mappable(kind); canonical != "" && !slices.Contains(names, canonical) {
			return &FormatError{
				Field: "mapping", Reason: fmt.Sprintf("%q is not a column of %s", shown(canonical), kind), Expected: names,
			}
		}
	}
	return nil
}

// Layout returns how the file's records are to be read.
func (s *Splitter) Layout() Layout { return s.layout }

// Rows returns how many rows the chunks so far have.
func (s *Splitter) Rows() int64 { return s.rows }

// delimiters are those that a file may have.
const delimiters = ",;\t|"

// findHeader finds the header and the delimiter that matches the most columns. It
// passes over blank records before the header and a spreadsheet's "sep=;" line.
func (s *Splitter) findHeader(kind Kind) (best header, err error) {
	delimiters, announced := delimiters, false
	for {
		text, size, err := s.firstLine()
		if err != nil {
			return header{}, err
		}
		if sep, ok := strings.CutPrefix(text, "sep="); ok && len(sep) == 1 && strings.Contains(delimiters, sep) {
			delimiters, announced = sep, true
		} else if strings.Trim(text, " \t"+delimiters) != "" {
			break
		}
		s.start += size
		s.line++
	}
	best, err = s.tryHeaders(kind, delimiters, announced, false)
	if err == nil && best.match.known == 0 && s.opts.Escape != EscapeNone {
		var escaped header
		if escaped, err = s.tryHeaders(kind, delimiters, announced, true); escaped.better(best) {
			best = escaped
		}
	}
	if err == nil {
		err = best.checkMapping(s.opts.Mapping)
	}
	return best, err
}

// firstLine returns the next line, and its size with the line end.
func (s *Splitter) firstLine() (string, int, error) {
	for {
		text, size, ok := lineEnd(s.buf[s.start:s.end], s.eof)
		switch {
		case s.start == s.end && s.eof:
			return "", 0, &FormatError{Reason: "the file is empty"}
		case ok && text <= s.opts.MaxRecord:
			return string(s.buf[s.start : s.start+text]), size, nil
		case ok || s.end-s.start > s.opts.MaxRecord+2:
			return "", 0, &FormatError{Reason: fmt.Sprintf(
				"the first line is longer than %d bytes, so it is no header of a CSV file", s.opts.MaxRecord)}
		}
		if err := s.fill(); err != nil {
			return "", 0, err
		}
	}
}

// tryHeaders reads the first record with each delimiter, and returns the best.
func (s *Splitter) tryHeaders(kind Kind, delimiters string, announced, escape bool) (best header, err error) {
	for i := range len(delimiters) {
		d := dialect{delim: delimiters[i], escape: escape}
		h, err := s.tryHeader(kind, d, announced)
		if err != nil {
			return best, err
		}
		if i == 0 || h.better(best) {
			best = h
		}
	}
	return best, nil
}

// A header is the first record, read in one dialect.
type header struct {
	dialect
	ext    extent
	fields []string // of a mended file, as they were before it was made
	mended bool
	match  match
}

// tryHeader reads the first record in a dialect. announced says that the file itself
// names the delimiter of the dialect.
func (s *Splitter) tryHeader(kind Kind, d dialect, announced bool) (header, error) {
	for {
		ext, ok := d.measure(s.buf[s.start:s.end], s.opts.MaxRecord, s.eof)
		if !ok {
			if err := s.fill(); err != nil {
				return header{}, err
			}
			continue
		}
		h := header{dialect: d, ext: ext}
		if ext.fault == sound {
			text := s.buf[s.start : s.start+ext.text]
			h.fields = d.split(text, string(text), nil)
			h.match = h.recognize(kind, s.opts)
			// URLs hold semicolons and pipes, so those two do not show that a file is a
			// list.
			if announced || d.delim == ',' || d.delim == '\t' {
				if list, ok := headless(kind, h.fields, s.opts.Format); ok {
					h.match = list
				}
			}
		}
		return h, nil
	}
}

// recognize finds the format that the fields are a header of. A mended file has a
// header even if the file that its rows are from had none, and then it is of another
// format.
func (h *header) recognize(kind Kind, opts SplitOptions) match {
	if h.mended = mended(h.fields, opts); !h.mended {
		return recognize(kind, h.fields, opts)
	}
	for i, name := range h.fields {
		h.fields[i] = Restore(name)
	}
	if isHeadless(opts.Format) {
		opts.Format = FormatSignpost
	}
	return recognize(kind, h.fields, opts)
}

// better reports whether h matches a format better than other does.
func (h header) better(other header) bool {
	switch {
	case h.ext.fault != sound || other.ext.fault != sound:
		return h.ext.fault == sound && other.ext.fault != sound
	case h.match.known != other.match.known:
		return h.match.known > other.match.known
	}
	return len(h.fields) > len(other.fields)
}

func (h header) check(kind Kind, opts SplitOptions) error {
	expected := columnNames(kind)
	m := h.match
	if m.format != nil {
		expected = m.format.expected
	}
	switch {
	case h.ext.fault != sound:
		return &FormatError{Reason: "the first line is no header of a CSV file: its quotes do not match", Expected: expected}
	case slices.ContainsFunc(h.fields, hasNUL) && !h.headless():
		i := slices.IndexFunc(h.fields, hasNUL)
		return &FormatError{
			Reason: fmt.Sprintf("the name of column %d, %s, has a NUL byte in it", i+1, shown(h.fields[i])),
			Found:  shownAll(h.fields), Expected: expected,
		}
	case m.format == nil || m.known == 0:
		reason := fmt.Sprintf("the first line names no column of %s", kind)
		if kind == KindLinks {
			reason += ", and is not the header of another shortener's export that is known"
		}
		return &FormatError{Reason: reason, Found: shownAll(h.fields), Expected: expected}
	case m.twice != "":
		return &FormatError{Reason: m.twice, Found: shownAll(h.fields)}
	case len(m.missing) > 0:
		return &FormatError{
			Reason: missingReason(kind, m.missing) + lookAlike(kind, h.fields, opts),
			Found:  shownAll(h.fields), Expected: expected,
		}
	}
	return nil
}

// checkMapping refuses a mapping of columns that the file does not have.
func (h header) checkMapping(mapping map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(mapping)) {
		if h.headless() || !slices.ContainsFunc(h.fields, func(field string) bool { return fold(field) == fold(name) }) {
			return &FormatError{
				Field: "mapping", Reason: fmt.Sprintf("the file has no column %q to map", shown(name)), Found: shownAll(h.fields),
			}
		}
	}
	return nil
}

func (h header) headless() bool { return h.match.format != nil && h.match.format.headless }

func missingReason(kind Kind, missing []string) string {
	if len(missing) == 1 {
		return fmt.Sprintf("a file of %s needs the column %s", kind, missing[0])
	}
	return fmt.Sprintf("a file of %s needs the columns %s", kind, strings.Join(missing, ", "))
}

// lookAlike returns the kind whose required columns header has.
func lookAlike(kind Kind, header []string, opts SplitOptions) string {
	opts.Format = ""
	for _, other := range []Kind{KindUsers, KindLinks, KindEvents} {
		if other == kind {
			continue
		}
		if m := recognize(other, header, opts); m.format != nil && len(m.missing) == 0 {
			return fmt.Sprintf(" (this looks like a file of %s)", other)
		}
	}
	return ""
}

// use takes h as the file's header and moves on to the record after it.
func (s *Splitter) use(kind Kind, h header) {
	s.layout = Layout{
		Kind: kind, Format: h.match.format.name, Delimiter: string(rune(h.delim)),
		Columns: h.match.columns, Header: h.fields, Ignored: h.match.ignored, MaxRecord: s.opts.MaxRecord,
		Lenient: true, Mapping: s.opts.Mapping, Timezone: s.opts.Timezone, Domain: s.opts.Domain, Mended: h.mended, Encoding: s.opts.Encoding, Marked: s.marked,
	}
	if total := len(h.match.ignored); total > maxIgnored {
		s.layout.Ignored, s.layout.IgnoredTotal = h.match.ignored[:maxIgnored:maxIgnored], total
	}
	if h.headless() {
		s.layout.Header = nil
	} else {
		s.start += h.ext.size
		s.line += int64(h.ext.lines)
	}
	if s.escapes(h) {
		s.layout.Escape = EscapeBackslash
	}
	s.dialect = s.layout.dialect()
}

// escapeSample is how many bytes are read to decide whether backslashes escape quotes.
// Nearly every first chunk is longer, so it does not have to wait for more of the file.
const escapeSample = 48 << 10

// escapes decides, once for the whole file, whether backslashes escape its quotes: they
// do if fewer of the first records have a fault when they are read that way.
func (s *Splitter) escapes(h header) bool {
	if h.mended || h.escape || s.opts.Escape != "" {
		return !h.mended && s.opts.Escape != EscapeNone
	}
	data, eof := s.ahead(escapeSample)
	if !bytes.Contains(data, []byte(`\"`)) {
		return false
	}
	standard, escaped := s.layout, s.layout
	escaped.Escape = EscapeBackslash
	return escaped.faults(data, eof) < standard.faults(data, eof)
}

// faults counts the broken records in data.
func (l Layout) faults(data []byte, eof bool) (n int) {
	for record := range l.records(data, 1, eof) {
		if record.Fault != nil {
			n++
		}
	}
	return n
}

// ahead returns the next n bytes, or fewer if the file ends or the buffer has no room.
// It waits for them, so that nothing depends on the pieces in which the file arrives.
// An error of the reader is kept until the records before it are cut.
func (s *Splitter) ahead(n int) (data []byte, eof bool) {
	n = min(n, len(s.buf))
	for !s.eof && s.failed == nil && s.end-s.start < n {
		s.failed = s.fill()
	}
	n = min(n, s.end-s.start)
	return s.buf[s.start : s.start+n], s.eof && n == s.end-s.start
}

// Next returns the next chunk, or io.EOF after the last one. A file without
// rows is a *FormatError. Errors of the reader come back wrapped.
func (s *Splitter) Next() (Chunk, error) {
	if s.done != nil {
		return Chunk{}, s.done
	}
	chunk, err := s.cut()
	if err == nil && chunk.Rows == 0 {
		err = io.EOF
		if s.rows == 0 {
			err = &FormatError{Reason: "the file has a header and no rows"}
		}
	}
	if err != nil {
		s.done = err
		return Chunk{}, err
	}
	s.seq++
	s.room = len(chunk.Data) + len(chunk.Data)/8
	s.rows += int64(chunk.Rows)
	return chunk, nil
}

// cut collects records until a chunk is full or the file ends.
func (s *Splitter) cut() (Chunk, error) {
	chunk := Chunk{Seq: s.seq}
	for chunk.Rows < s.opts.ChunkRows {
		ext, ok := s.record()
		if !ok {
			if s.eof && s.start == s.end {
				break
			}
			if err := s.fill(); err != nil {
				return Chunk{}, err
			}
			continue
		}
		text := s.buf[s.start : s.start+ext.text]
		empty := ext.fault == sound && s.dialect.blank(text)
		if chunk.Rows > 0 && len(chunk.Data)+ext.size > s.opts.ChunkBytes {
			break
		}
		// Blank records within a chunk are kept, because the line numbers after them
		// count them.
		if !empty || chunk.Rows > 0 {
			s.add(&chunk, ext, empty)
		}
		s.start += ext.size
		s.line += int64(ext.lines)
		s.discarding = ext.endless
	}
	return chunk, nil
}

// record measures the record at the start of the buffer. It first passes over the rest
// of an overlong line.
func (s *Splitter) record() (extent, bool) {
	if s.discarding {
		_, size, ok := lineEnd(s.buf[s.start:s.end], s.eof)
		s.start += size
		s.discarding = !ok
		if !ok {
			return extent{}, false
		}
	}
	if s.start == s.end {
		return extent{}, false
	}
	return s.dialect.measure(s.buf[s.start:s.end], s.opts.MaxRecord, s.eof)
}

func (s *Splitter) add(chunk *Chunk, ext extent, empty bool) {
	if chunk.Rows == 0 {
		chunk.FirstLine = s.line
		chunk.Data = make([]byte, 0, max(s.room, 16<<10))
	}
	if !empty {
		chunk.Rows++
	}
	record := s.buf[s.start:s.end]
	if ext.fault == faultLong {
		chunk.Data = append(chunk.Data, record[:ext.text]...)
		chunk.Data = append(chunk.Data, '\n')
		return
	}
	chunk.Data = append(chunk.Data, record[:ext.size]...)
}

// fill reads more into the buffer. It is called when the buffer begins with a record
// that is not whole and has room for the rest.
func (s *Splitter) fill() error {
	if s.eof {
		return errors.New("read CSV: record does not end with the file")
	}
	if s.failed != nil {
		return s.failed
	}
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	n, err := io.ReadAtLeast(s.in, s.buf[s.end:], 1)
	s.end += n
	if errors.Is(err, io.EOF) {
		s.eof = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read CSV: %w", err)
	}
	return nil
}
