package rollup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// entry is the changes of a row in a digest.
type entry struct {
	key
	digest int64 // its id, where it is merged
	owner  int64 // of the first click of a link
	last   int64 // the time of the last click that was added, in microseconds since 1970; 0 if none was
	// added and removed are stored days, nil if they have no clicks.
	added, removed []byte
}

// sides are clicks that are added to a row and taken away from it.
type sides struct{ added, removed Day }

func (s *sides) side(removed bool) *Day {
	if removed {
		return &s.removed
	}
	return &s.added
}

func (e *entry) pack(s *sides) { e.added, e.removed = packed(&s.added), packed(&s.removed) }

func packed(d *Day) []byte {
	if d.Empty() {
		return nil
	}
	return d.Append(nil)
}

// addTo adds the changes of the entry to those that are known already.
func (e *entry) addTo(s *sides) error {
	for _, removed := range []bool{false, true} {
		cells := e.added
		if removed {
			cells = e.removed
		}
		if cells == nil {
			continue
		}
		d, err := DecodeDay(cells)
		if err != nil {
			return &digestError{e.digest, err}
		}
		s.side(removed).Merge(d)
	}
	return nil
}

// A digest is, in order:
//
//	1 byte  version of the form, 1
//	rest    one zstd frame of entries, each: uvarint scope, varint day, varint owner,
//	        varint last, and added and removed, each as a uvarint length and the bytes
const (
	digestVersion  = 1
	maxDigestBytes = 512 << 20
)

var errDigest = errors.New("malformed digest of clicks")

// digestError says that a digest cannot be decoded.
type digestError struct {
	id  int64
	err error
}

func (e *digestError) Error() string { return fmt.Sprintf("digest %d: %v", e.id, e.err) }

func (e *digestError) Unwrap() error { return e.err }

var digestEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(fmt.Sprintf("rollup: zstd encoder options: %v", err))
	}
	return e
})

var digestDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxDigestBytes))
	if err != nil {
		panic(fmt.Sprintf("rollup: zstd decoder options: %v", err))
	}
	return d
})

func encodeDigest(entries []entry) []byte {
	var b []byte
	for i := range entries {
		e := &entries[i]
		b = binary.AppendUvarint(b, uint64(e.scope))
		b = binary.AppendVarint(b, int64(e.day))
		b = binary.AppendVarint(b, e.owner)
		b = binary.AppendVarint(b, e.last)
		for _, cells := range [][]byte{e.added, e.removed} {
			b = binary.AppendUvarint(b, uint64(len(cells)))
			b = append(b, cells...)
		}
	}
	return digestEncoder().EncodeAll(b, []byte{digestVersion})
}

// decodeDigest appends the entries of a digest to a list. They share memory.
func decodeDigest(to []entry, payload []byte) ([]entry, error) {
	if len(payload) == 0 || payload[0] != digestVersion {
		return nil, fmt.Errorf("%w: unknown version", errDigest)
	}
	b, err := digestDecoder().DecodeAll(payload[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDigest, err)
	}
	r := reader{rest: b}
	for len(r.rest) > 0 {
		e := entry{key: key{scope: int64(r.number(1 << 62)), day: int32(r.signed())}, owner: r.signed(), last: r.signed()}
		for _, cells := range []*[]byte{&e.added, &e.removed} {
			if n := r.number(uint64(len(r.rest))); n > 0 {
				*cells = r.bytes(int(n))
			}
		}
		if r.err != nil {
			return nil, errDigest
		}
		to = append(to, e)
	}
	return to, nil
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.rest)
	if r.err != nil || n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
