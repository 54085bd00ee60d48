package clicks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// A batch that an earlier release shipped is read correctly.
func TestDecodeV1(t *testing.T) {
	t.Parallel()
	got, err := DecodeBatch("any id", readV1(t))
	if err != nil || len(got) != 200 {
		t.Fatalf("%d clicks, %v", len(got), err)
	}
	for i, c := range got {
		want := Click{
			At: time.Date(2026, 1, 31, 9, 5, 7, 0, time.UTC).Add(time.Duration(i) * 137 * time.Millisecond), URLID: int64(i%13 + 1), UserID: int64(i%3 + 1),
			IP:        []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), {}}[i%3],
			UserAgent: fmt.Sprintf("agent %d", i%7), Referrer: []string{"", "https://example.org/", "https://example.com/\u00e4"}[i%3],
		}
		if c != want {
			t.Fatalf("click %d: %+v, want %+v", i, c, want)
		}
	}
}

func TestDamageV1(t *testing.T) {
	t.Parallel()
	payload := readV1(t)
	for i := range payload {
		damaged := bytes.Clone(payload)
		damaged[i] ^= 4
		if _, err := DecodeBatch("", damaged); !errors.Is(err, ErrBadBatch) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := DecodeBatch("", payload[:i]); !errors.Is(err, ErrBadBatch) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// sealV1 makes a payload of version 1 with any frame, checksum included.
func sealV1(clicks, size uint64, frame []byte) []byte {
	p := binary.AppendUvarint([]byte{payloadV1}, clicks)
	p = binary.AppendUvarint(p, size)
	at := len(p)
	p = append(append(p, 0, 0, 0, 0), frame...)
	binary.LittleEndian.PutUint32(p[at:], checksumV1(p, at))
	return p
}

func TestHostileV1(t *testing.T) {
	t.Parallel()
	zip := func(b []byte) []byte { return payloadEncoder().EncodeAll(b, nil) }
	for name, p := range map[string][]byte{
		"bomb":            sealV1(1, maxPayloadBytes, zip(make([]byte, maxPayloadBytes+1))),
		"too many clicks": sealV1(maxBatchClicks+1, 10, zip(make([]byte, 10))),
		"huge dictionary": sealV1(3, 10, zip([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0})),
		"no frame":        sealV1(3, 0, nil),
		"no zstd":         sealV1(3, 4, []byte("text")),
	} {
		if _, err := DecodeBatch("", p); !errors.Is(err, ErrBadBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
