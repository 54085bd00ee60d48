package clicks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A payload is a segment on its way to a worker, in order:
//
//	1 byte   version of the format, 2
//	uvarint  number of clicks
//	rest     one zstd frame with a checksum: the segment's records as they are
//	         on disk, up to the end of the last whole one
//
// The number protects clicks from a worker of another release, which might not know a
// record and take it for damaged.
const (
	payloadVersion = 2
	// maxBatchClicks and maxPayloadBytes bound the clicks and bytes that
	// DecodeBatch unpacks. A segment never holds more.
	maxBatchClicks  = 1 << 18
	maxPayloadBytes = 32 << 20
)

// ErrBadBatch is wrapped by the error of DecodeBatch for a payload that was not made by
// Read of this release or the previous one.
var ErrBadBatch = errors.New("malformed click batch")

var payloadEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(fmt.Sprintf("clicks: zstd encoder options: %v", err))
	}
	return e
})

var payloadDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxPayloadBytes))
	if err != nil {
		panic(fmt.Sprintf("clicks: zstd decoder options: %v", err))
	}
	return d
})

// encodePayload packs records, which hold the given number of clicks. It may be called
// concurrently.
func encodePayload(records []byte, clicks int) []byte {
	p := make([]byte, 0, 64+len(records)/4)
	p = append(p, payloadVersion)
	p = binary.AppendUvarint(p, uint64(clicks))
	return payloadEncoder().EncodeAll(records, p)
}

// EncodeBatch returns the payload of a batch of these clicks. Their texts must have
// been through [Clean]. It is for tests and benchmarks of workers: a spool makes its
// payloads from the records on disk.
func EncodeBatch(id string, clicks []Click) []byte {
	return encodePayload(encodeRecords(id, clicks), len(clicks))
}

// DecodeBatch unpacks the payload of the batch with this id. If the payload is
// malformed, the error wraps ErrBadBatch. It never needs more than some tens of
// megabytes, whatever the input says. The texts of the clicks share memory. It may be
// called concurrently.
func DecodeBatch(id string, payload []byte) (clicks []Click, err error) {
	switch {
	case len(payload) == 0:
		err = errors.New("empty payload")
	case payload[0] == payloadVersion:
		clicks, err = decodePayload(id, payload)
	case payload[0] == payloadV1:
		clicks, err = decodeV1(payload)
	default:
		err = fmt.Errorf("unknown version %d", payload[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadBatch, err)
	}
	return clicks, nil
}

func decodePayload(id string, payload []byte) ([]Click, error) {
	r := reader{rest: payload[1:]}
	n := r.length(maxBatchClicks)
	if r.bad {
		return nil, errors.New("bad header")
	}
	records, err := payloadDecoder().DecodeAll(r.rest, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	clicks, found := make([]Click, 0, min(n, len(records)/(recordHead+minBody))), 0
	scan(id, records, func(c *Click) {
		if found++; found <= n { // more would need memory that the header did not ask for
			clicks = append(clicks, *c)
		}
	})
	if found != n {
		return nil, fmt.Errorf("%d of %d clicks can be read", found, n)
	}
	return clicks, nil
}
