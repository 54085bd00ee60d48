package clicks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawClick draws a click as it comes back from the spool.
func drawClick(t *rapid.T) Click {
	text := func(limit int, label string) string {
		s := rapid.OneOf(rapid.String(), rapid.Just(""), rapid.StringMatching(`[ -~]{0,60}`)).Draw(t, label)
		return Clean(s, limit)
	}
	c := Click{
		At:        time.UnixMicro(rapid.Int64().Draw(t, "at")).UTC(),
		URLID:     rapid.Int64().Draw(t, "url"),
		UserID:    rapid.Int64Range(0, 3).Draw(t, "user"),
		UserAgent: text(MaxUserAgent, "agent"),
		Referrer:  text(MaxReferrer, "referrer"),
	}
	switch rapid.IntRange(0, 2).Draw(t, "family") {
	case 1:
		c.IP = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
	case 2:
		c.IP = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6"))).Unmap()
	}
	return c
}

func TestBatchRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawClick), 0, 50).Draw(t, "clicks")
		payload := EncodeBatch(want)
		got, err := DecodeBatch(payload)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if !bytes.Equal(EncodeBatch(got), payload) {
			t.Fatal("encoded again it differs")
		}
	})
}

// Whatever changes in a payload is noticed.
func TestBatchDamage(t *testing.T) {
	t.Parallel()
	payload := EncodeBatch(sampleClicks(20))
	for i := range payload {
		damaged := bytes.Clone(payload)
		damaged[i] ^= 1
		if _, err := DecodeBatch(damaged); !errors.Is(err, ErrBadBatch) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := DecodeBatch(payload[:i]); !errors.Is(err, ErrBadBatch) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeBatch(append(bytes.Clone(payload), 0)); !errors.Is(err, ErrBadBatch) {
		t.Errorf("garbage behind: %v", err)
	}
}

// sealPayload makes a payload of any columns, checksum included.
func sealPayload(clicks, size uint64, frame []byte) []byte {
	p := binary.AppendUvarint([]byte{batchVersion}, clicks)
	p = binary.AppendUvarint(p, size)
	at := len(p)
	p = append(append(p, 0, 0, 0, 0), frame...)
	binary.LittleEndian.PutUint32(p[at:], batchChecksum(p, at))
	return p
}

// Payloads whose checksum is right and whose contents are not.
func TestBatchHostile(t *testing.T) {
	t.Parallel()
	zip := func(b []byte) []byte { return batchEncoder().EncodeAll(b, nil) }
	columns := encodeColumns(sampleClicks(3))
	bomb := make([]byte, maxBatchBytes+1)
	for name, p := range map[string][]byte{
		"bomb":             sealPayload(1, maxBatchBytes, zip(bomb)),
		"bomb told":        sealPayload(1, maxBatchBytes+1, zip(bomb)),
		"too many clicks":  sealPayload(maxBatchClicks+1, uint64(len(columns)), zip(columns)),
		"huge count":       sealPayload(math.MaxUint64, uint64(len(columns)), zip(columns)),
		"more clicks":      sealPayload(4, uint64(len(columns)), zip(columns)),
		"fewer clicks":     sealPayload(2, uint64(len(columns)), zip(columns)),
		"wrong size":       sealPayload(3, uint64(len(columns))-1, zip(columns)),
		"trailing columns": sealPayload(3, uint64(len(columns))+1, zip(append(columns, 0))),
		"huge dictionary":  sealPayload(3, 10, zip([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0})),
		"no frame":         sealPayload(3, 0, nil),
		"no zstd":          sealPayload(3, 4, []byte("text")),
	} {
		if _, err := DecodeBatch(p); !errors.Is(err, ErrBadBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeBatch(sealPayload(3, uint64(len(columns)), zip(columns))); err != nil {
		t.Errorf("sound payload: %v", err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(EncodeBatch(nil))
	f.Add(EncodeBatch(sampleClicks(1)))
	f.Add(EncodeBatch(sampleClicks(50)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		checkDecoded(t, payload)
		// The checksum keeps a fuzzer out: let it in.
		if len(payload) > 3 {
			checkDecoded(t, sealPayload(uint64(payload[0]), uint64(len(payload)-1), batchEncoder().EncodeAll(payload[1:], nil)))
		}
	})
}

func checkDecoded(t *testing.T, payload []byte) {
	t.Helper()
	got, err := DecodeBatch(payload)
	if err != nil {
		if !errors.Is(err, ErrBadBatch) {
			t.Errorf("error %v does not wrap ErrBadBatch", err)
		}
		return
	}
	again, err := DecodeBatch(EncodeBatch(got))
	if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
		t.Errorf("decoded %v, then %v, %v", got, again, err)
	}
}
