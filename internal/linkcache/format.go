package linkcache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/signpost/signpost/internal/links"
)

// The snapshot file: a magic string, then frames. A frame is the length of its
// payload, the payload's CRC-32C and the CRC-32C of those eight bytes (4 bytes
// each, big endian), then the payload, whose first byte is its kind:
//
//	head   once, first: how far the feed had come
//	links  any number: cached links
//	end    once: the snapshot is whole
//	log    any number: changes that were learnt since
//
// Integers are varints, strings have their length before them, times are unix
// times. Another layout takes another magic string.
const magic = "signpost links 3\n"

// magicBefore begins a file of the release before this one, which differs in the
// head: it knew its position in another way. What such a file tells is used, but
// the feed begins anew.
const magicBefore = "signpost links 2\n"

const (
	frameHead byte = iota + 1
	frameLinks
	frameEnd
	frameLog
)

const (
	frameHeader = 12
	// fullFrame is the payload at which a frame is written; maxFrame is more
	// than what comes of that.
	fullFrame = 64 << 10
	maxFrame  = 1 << 20
	// maxRunning is more than the transactions that a server can have at once.
	maxRunning = 1 << 18
	// maxText bounds a code or target. The schema bounds a target in the bytes it
	// is kept in, each of which becomes three at most.
	maxText = 3 * links.MaxTarget
)

var (
	errForeign = errors.New("not a link snapshot of this release")
	errDamaged = errors.New("link snapshot is damaged")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A mark is how far the feed had come at some time.
type mark struct {
	position position
	followed int64
	epoch    uint64 // entries of this epoch were right as of followed
}

// A savedLink is a cached link in the file, or a change of one in its log.
type savedLink struct {
	code string
	link *Link // nil in the log: forget the code
	// validAt is when the link was asked of the database, or in the log when
	// the query that told of the change began.
	validAt int64
	// current says that the link was also right as of the head's followed; not
	// used in the log.
	current bool
}

// A frameWriter collects records and writes them as frames of one kind.
type frameWriter struct {
	w   io.Writer
	buf []byte // a frame header to be filled in, then the payload
}

func (f *frameWriter) begin(kind byte) {
	f.buf = append(f.buf[:0], make([]byte, frameHeader)...)
	f.buf = append(f.buf, kind)
}

// frame completes the frame and returns it; it is valid until the next begin.
func (f *frameWriter) frame() []byte {
	payload := f.buf[frameHeader:]
	binary.BigEndian.PutUint32(f.buf, uint32(len(payload))) //nolint:gosec // at most maxFrame
	binary.BigEndian.PutUint32(f.buf[4:], crc32.Checksum(payload, castagnoli))
	binary.BigEndian.PutUint32(f.buf[8:], crc32.Checksum(f.buf[:8], castagnoli))
	return f.buf
}

func (f *frameWriter) flush() error {
	_, err := f.w.Write(f.frame())
	return err
}

func (f *frameWriter) writeHead(m *mark) error {
	if _, err := io.WriteString(f.w, magic); err != nil {
		return err
	}
	f.begin(frameHead)
	f.buf = appendMark(f.buf, m)
	return f.flush()
}

// add appends a link to the frame that was begun, and starts another when it
// is full.
func (f *frameWriter) add(l savedLink) error {
	f.buf = appendLink(f.buf, l)
	if len(f.buf) < fullFrame {
		return nil
	}
	kind := f.buf[frameHeader]
	if err := f.flush(); err != nil {
		return err
	}
	f.begin(kind)
	return nil
}

func appendMark(b []byte, m *mark) []byte {
	if m == nil {
		return append(b, 0)
	}
	p := m.position
	b = append(b, 1)
	b = binary.AppendVarint(b, m.followed)
	b = appendText(b, p.history)
	b = binary.AppendVarint(b, p.id)
	b = binary.AppendVarint(b, p.anchor)
	for _, v := range [...]int64{p.oldest, p.low, p.sure, p.closes, p.seen.xmax} {
		b = binary.AppendVarint(b, v)
	}
	b = binary.AppendUvarint(b, uint64(len(p.seen.running)))
	for _, xid := range p.seen.running {
		b = binary.AppendVarint(b, xid)
	}
	if p.installation != "" {
		b = appendText(b, p.installation)
	}
	return b
}

const (
	flagLink = 1 << iota
	flagCurrent
	flagActive
	flagForwardQuery
	flagExpires
)

func appendLink(b []byte, l savedLink) []byte {
	b = appendText(b, l.code)
	if l.link == nil {
		return append(b, 0)
	}
	flags := byte(flagLink) |
		flagIf(flagCurrent, l.current) |
		flagIf(flagActive, l.link.Active) |
		flagIf(flagForwardQuery, l.link.ForwardQuery) |
		flagIf(flagExpires, !l.link.ExpiresAt.IsZero())
	b = append(b, flags)
	b = binary.AppendVarint(b, l.validAt)
	b = binary.AppendVarint(b, l.link.ID)
	b = binary.AppendVarint(b, l.link.UserID)
	b = binary.AppendVarint(b, l.link.Version)
	b = binary.AppendVarint(b, int64(l.link.Status))
	b = appendText(b, l.link.Target)
	if flags&flagExpires != 0 {
		b = binary.AppendVarint(b, l.link.ExpiresAt.UnixMicro())
	}
	return b
}

func flagIf(flag byte, set bool) byte {
	if set {
		return flag
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// A snapshotReader gets what a file holds, in the order of the file.
type snapshotReader struct {
	head   func(*mark)     // nil if the feed had never begun
	cached func(savedLink) // a link of the snapshot
	learnt func(savedLink) // a change of the log
	before bool            // the file is of the release before this one
}

// read reads a file and returns how many bytes of it are whole: a process that
// was killed may have left part of a frame at the end of the log. Any other
// fault is an error, and then nothing that was read may be used.
func (s snapshotReader) read(file io.Reader) (size int64, err error) {
	r := bufio.NewReaderSize(file, fullFrame)
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r, start); err != nil || string(start) != magic && string(start) != magicBefore {
		return 0, errForeign
	}
	s.before = string(start) == magicBefore
	size = int64(len(magic))
	last := byte(0) // kind of the frame before
	var payload []byte
	for {
		payload, err = readFrame(r, payload)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case ended && (last == frameEnd || last == frameLog):
			return size, nil
		case err != nil:
			return 0, fmt.Errorf("%w: %w", errDamaged, err)
		case !follows(payload[0], last):
			return 0, fmt.Errorf("%w: frame of kind %d after kind %d", errDamaged, payload[0], last)
		}
		if err := s.take(payload); err != nil {
			return 0, err
		}
		last = payload[0]
		size += int64(frameHeader + len(payload))
	}
}

func follows(kind, last byte) bool {
	switch kind {
	case frameHead:
		return last == 0
	case frameLinks, frameEnd:
		return last == frameHead || last == frameLinks
	case frameLog:
		return last == frameEnd || last == frameLog
	default:
		return false
	}
}

// readFrame returns the payload of the next frame, at least one byte, in buf if
// it is large enough.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return buf, err
	}
	if crc32.Checksum(header[:8], castagnoli) != binary.BigEndian.Uint32(header[8:]) {
		return buf, errors.New("wrong checksum of a header")
	}
	n := binary.BigEndian.Uint32(header[:])
	if n == 0 || n > maxFrame {
		return buf, errors.New("impossible frame length")
	}
	if uint32(cap(buf)) < n { //nolint:gosec // never more than maxFrame
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, io.ErrUnexpectedEOF
	}
	if crc32.Checksum(buf, castagnoli) != binary.BigEndian.Uint32(header[4:]) {
		return buf, errors.New("wrong checksum")
	}
	return buf, nil
}

func (s snapshotReader) take(payload []byte) error {
	d := &decoder{b: payload[1:]}
	switch kind := payload[0]; kind {
	case frameHead:
		if s.before {
			s.head(d.markBefore())
			break
		}
		s.head(d.mark())
	case frameLinks, frameLog:
		for len(d.b) > 0 && !d.bad {
			l := d.link()
			switch {
			case d.bad:
			case kind == frameLog:
				s.learnt(l)
			case l.link == nil:
				d.bad = true // only the log has such
			default:
				s.cached(l)
			}
		}
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: impossible record", errDamaged)
	}
	return nil
}

// A decoder takes values off the front of b; bad is set when one cannot be.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) mark() *mark {
	if d.byte() == 0 || d.bad {
		return nil
	}
	m := &mark{followed: d.varint()}
	p := &m.position
	p.history = d.text()
	p.id, p.anchor = d.varint(), d.varint()
	p.oldest, p.low, p.sure, p.closes = d.varint(), d.varint(), d.varint(), d.varint()
	p.seen.xmax = d.varint()
	n := d.uvarint()
	if n > maxRunning {
		d.bad = true
		return nil
	}
	for range n {
		p.seen.running = append(p.seen.running, d.varint())
	}
	if len(d.b) > 0 { // a file of the release before does not say it
		p.installation = d.text()
	}
	return m
}

// markBefore reads a mark of the release before this one, and of its position
// only the history, as one that no log continues. Its gaps were at most 1,000
// times four numbers.
func (d *decoder) markBefore() *mark {
	if d.byte() == 0 || d.bad {
		return nil
	}
	m := &mark{followed: d.varint()}
	m.position.history = "before " + d.text()
	for range 3 {
		d.varint()
	}
	gaps := d.uvarint()
	if gaps > 1000 {
		d.bad = true
		return nil
	}
	for range 4 * gaps {
		d.varint()
	}
	return m
}

func (d *decoder) link() savedLink {
	l := savedLink{code: d.text()}
	flags := d.byte()
	if flags&flagLink == 0 {
		return l
	}
	l.current = flags&flagCurrent != 0
	l.validAt = d.varint()
	l.link = &Link{
		ID: d.varint(), UserID: d.varint(), Version: d.varint(), Status: int(d.varint()),
		// The release before this one kept targets as they are in the database.
		Target: links.Location(d.text()), Active: flags&flagActive != 0, ForwardQuery: flags&flagForwardQuery != 0,
	}
	if flags&flagExpires != 0 {
		l.link.ExpiresAt = time.UnixMicro(d.varint())
	}
	if l.link.Status < 300 || l.link.Status > 399 || len(l.link.Target) > maxText {
		d.bad = true // would be answered as it is
	}
	return l
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// text copies, so that the frame's buffer can be used again.
func (d *decoder) text() string {
	n := d.uvarint()
	if n == 0 || n > maxText || n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
