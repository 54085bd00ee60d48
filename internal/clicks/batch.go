package clicks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A payload is, in order:
//
//	1 byte   version of the format, 1
//	uvarint  number of clicks
//	uvarint  size of the columns before compression, in bytes
//	4 bytes  CRC-32C of everything else, little endian
//	rest     the columns, one zstd frame
//
// The columns, each for all clicks in order: times (zigzag varint of the
// difference in microseconds to the click before), links, address lengths,
// addresses, user agents, referrers. Links, user agents and referrers are
// numbers into dictionaries of the distinct values, which precede the columns.
// zstd then squeezes the numbers by their frequency.
const (
	batchVersion = 1
	// maxBatchClicks and maxBatchBytes bound what DecodeBatch unpacks. A
	// segment never holds more.
	maxBatchClicks = 1 << 18
	maxBatchBytes  = 32 << 20
)

// ErrBadBatch is what DecodeBatch returns, wrapped, for a payload that
// EncodeBatch of this or an earlier release did not make. Trying again is
// pointless.
var ErrBadBatch = errors.New("malformed click batch")

var batchEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), // the payload has a checksum of its own
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(fmt.Sprintf("clicks: zstd encoder options: %v", err))
	}
	return e
})

var batchDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxBatchBytes))
	if err != nil {
		panic(fmt.Sprintf("clicks: zstd decoder options: %v", err))
	}
	return d
})

// EncodeBatch packs clicks, at most 262,144 of them with bounded texts, as
// Read does. The order is kept. Safe for concurrent use.
func EncodeBatch(clicks []Click) []byte {
	columns := encodeColumns(clicks)
	p := make([]byte, 0, 64+len(columns)/3)
	p = append(p, batchVersion)
	p = binary.AppendUvarint(p, uint64(len(clicks)))
	p = binary.AppendUvarint(p, uint64(len(columns)))
	at := len(p)
	p = append(p, 0, 0, 0, 0)
	p = batchEncoder().EncodeAll(columns, p)
	binary.LittleEndian.PutUint32(p[at:], batchChecksum(p, at))
	return p
}

func batchChecksum(p []byte, at int) uint32 {
	return crc32.Update(crc32.Checksum(p[:at], castagnoli), castagnoli, p[at+4:])
}

// link is what nearly always comes together.
type link struct{ url, user int64 }

// dictionary numbers distinct values in the order they are met.
type dictionary[T comparable] struct {
	number map[T]uint64
	values []T
}

func (d *dictionary[T]) add(v T) uint64 {
	n, known := d.number[v]
	if !known {
		n = uint64(len(d.values))
		d.number[v] = n
		d.values = append(d.values, v)
	}
	return n
}

func newDictionary[T comparable]() dictionary[T] {
	return dictionary[T]{number: make(map[T]uint64, 64)}
}

func encodeColumns(clicks []Click) []byte {
	links, agents, referrers := newDictionary[link](), newDictionary[string](), newDictionary[string]()
	var times, link0, sizes, addrs, agent0, referrer0 []byte
	last := int64(0)
	for i := range clicks {
		c := &clicks[i]
		at := c.At.UnixMicro()
		times = binary.AppendVarint(times, at-last) // wraps, and wraps back
		last = at
		link0 = binary.AppendUvarint(link0, links.add(link{c.URLID, c.UserID}))
		agent0 = binary.AppendUvarint(agent0, agents.add(c.UserAgent))
		referrer0 = binary.AppendUvarint(referrer0, referrers.add(c.Referrer))
		addr := len(addrs)
		addrs = appendAddr(addrs, c.IP)
		sizes = append(sizes, addrs[addr])
		addrs = append(addrs[:addr], addrs[addr+1:]...)
	}
	out := make([]byte, 0, len(times)+len(link0)+len(sizes)+len(addrs)+len(agent0)+len(referrer0)+4096)
	out = binary.AppendUvarint(out, uint64(len(links.values)))
	for _, l := range links.values {
		out = binary.AppendUvarint(out, uint64(l.url))
		out = binary.AppendUvarint(out, uint64(l.user))
	}
	out = appendTexts(out, agents.values)
	out = appendTexts(out, referrers.values)
	for _, column := range [][]byte{times, link0, sizes, addrs, agent0, referrer0} {
		out = append(out, column...)
	}
	return out
}

func appendTexts(out []byte, texts []string) []byte {
	out = binary.AppendUvarint(out, uint64(len(texts)))
	for _, t := range texts {
		out = binary.AppendUvarint(out, uint64(len(t)))
		out = append(out, t...)
	}
	return out
}

// DecodeBatch unpacks what EncodeBatch packed. It returns an error that wraps
// ErrBadBatch for anything else, and never needs more than some tens of
// megabytes, whatever the input says. The texts of the clicks share memory.
// Safe for concurrent use.
func DecodeBatch(payload []byte) ([]Click, error) {
	columns, n, err := openBatch(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadBatch, err)
	}
	clicks, ok := decodeColumns(columns, n)
	if !ok {
		return nil, fmt.Errorf("%w: columns do not fit", ErrBadBatch)
	}
	return clicks, nil
}

func openBatch(payload []byte) (columns []byte, n int, err error) {
	r := reader{rest: payload}
	if v := r.bytes(1); v == nil || v[0] != batchVersion {
		return nil, 0, errors.New("unknown version")
	}
	n, size := r.length(maxBatchClicks), r.length(maxBatchBytes)
	at := len(payload) - len(r.rest)
	sum := r.bytes(4)
	if r.bad {
		return nil, 0, errors.New("bad header")
	}
	if binary.LittleEndian.Uint32(sum) != batchChecksum(payload, at) {
		return nil, 0, errors.New("checksum differs")
	}
	columns, err = batchDecoder().DecodeAll(r.rest, nil)
	if err != nil {
		return nil, 0, err
	}
	if len(columns) != size {
		return nil, 0, errors.New("size differs")
	}
	return columns, n, nil
}

func decodeColumns(columns []byte, n int) (clicks []Click, ok bool) {
	r := reader{rest: columns}
	links := decodeLinks(&r, n)
	text := string(columns)
	agents := decodeTexts(&r, n, text, MaxUserAgent)
	referrers := decodeTexts(&r, n, text, MaxReferrer)
	if r.bad || n > len(r.rest) { // each click has a byte in every column
		return nil, false
	}
	clicks = make([]Click, n)
	last := int64(0)
	for i := range clicks {
		last += r.varint()
		clicks[i].At = time.UnixMicro(last).UTC()
	}
	for i := range clicks {
		l := pick(&r, links)
		clicks[i].URLID, clicks[i].UserID = l.url, l.user
	}
	sizes := r.bytes(n)
	for i := range sizes {
		clicks[i].IP = r.addr(sizes[i : i+1])
	}
	for i := range clicks {
		clicks[i].UserAgent = pick(&r, agents)
	}
	for i := range clicks {
		clicks[i].Referrer = pick(&r, referrers)
	}
	return clicks, !r.bad && len(r.rest) == 0
}

// decodeLinks reads a dictionary. It has at most one value a click, which
// bounds the memory before anything is known to be true.
func decodeLinks(r *reader, n int) []link {
	links := make([]link, r.length(n))
	for i := range links {
		links[i] = link{int64(r.uvarint()), int64(r.uvarint())}
	}
	return links
}

func decodeTexts(r *reader, n int, whole string, limit int) []string {
	texts := make([]string, r.length(n))
	for i := range texts {
		texts[i] = r.text(whole, limit)
	}
	return texts
}

// pick reads a number and returns that value of the dictionary.
func pick[T any](r *reader, values []T) (v T) {
	n := r.uvarint()
	if r.bad || n >= uint64(len(values)) {
		r.bad = true
		return v
	}
	return values[n]
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
