package clicks

// This file reads payloads of the releases up to the one before this one, which
// a database may hold when it is upgraded. Delete it, its test and
// testdata/payload-v1 in the next release.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A payload of version 1 is, in order:
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
const payloadV1 = 1

func checksumV1(p []byte, at int) uint32 {
	return crc32.Update(crc32.Checksum(p[:at], castagnoli), castagnoli, p[at+4:])
}

// link is a link and its owner.
type link struct{ url, user int64 }

// decodeV1 unpacks a payload of version 1. It never needs more than some tens of
// megabytes, whatever the input says. The texts of the clicks share memory.
func decodeV1(payload []byte) ([]Click, error) {
	columns, n, err := openV1(payload)
	if err != nil {
		return nil, err
	}
	clicks, ok := decodeColumns(columns, n)
	if !ok {
		return nil, errors.New("columns do not fit")
	}
	return clicks, nil
}

func openV1(payload []byte) (columns []byte, n int, err error) {
	r := reader{rest: payload}
	r.bytes(1) // the version
	n, size := r.length(maxBatchClicks), r.length(maxPayloadBytes)
	at := len(payload) - len(r.rest)
	sum := r.bytes(4)
	if r.bad {
		return nil, 0, errors.New("bad header")
	}
	if binary.LittleEndian.Uint32(sum) != checksumV1(payload, at) {
		return nil, 0, errors.New("checksum differs")
	}
	columns, err = payloadDecoder().DecodeAll(r.rest, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("decompress: %w", err)
	}
	if len(columns) != size {
		return nil, 0, errors.New("size differs")
	}
	return columns, n, nil
}

func decodeColumns(columns []byte, n int) (clicks []Click, ok bool) {
	r := reader{rest: columns}
	links := decodeLinks(&r, n)
	agents := decodeTexts(&r, n, MaxUserAgent)
	referrers := decodeTexts(&r, n, MaxReferrer)
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

// decodeLinks reads a dictionary. It accepts at most one value for each click, which
// bounds the memory before any of the input has been checked.
func decodeLinks(r *reader, n int) []link {
	links := make([]link, r.length(n))
	for i := range links {
		links[i] = link{int64(r.uvarint()), int64(r.uvarint())}
	}
	return links
}

func decodeTexts(r *reader, n, limit int) []string {
	texts := make([]string, r.length(n))
	for i := range texts {
		texts[i] = r.text(limit)
	}
	return texts
}

// pick reads a number and returns the value of the dictionary that has it.
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
