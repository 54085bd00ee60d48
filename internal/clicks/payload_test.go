package clicks

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawClick draws a click in the form in which the spool returns it.
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
	if rapid.Bool().Draw(t, "flagged") {
		c.Prefetch, c.Private = rapid.Bool().Draw(t, "prefetch"), rapid.Bool().Draw(t, "private")
		c.Trigger = Trigger(rapid.IntRange(0, triggers-1).Draw(t, "trigger"))
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
		got, err := DecodeBatch(testSegment, EncodeBatch(testSegment, want))
		require.NoError(t, err)
		if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// A change of any byte of a payload is noticed, and so is a payload under the id of
// another batch.
func TestBatchDamage(t *testing.T) {
	t.Parallel()
	payload := EncodeBatch(testSegment, sampleClicks(20))
	for i := range payload {
		damaged := bytes.Clone(payload)
		damaged[i] ^= 1
		if got, err := DecodeBatch(testSegment, damaged); !errors.Is(err, ErrBadBatch) && len(got) != 20 {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := DecodeBatch(testSegment, payload[:i]); !errors.Is(err, ErrBadBatch) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeBatch(testSegment, append(bytes.Clone(payload), 0)); !errors.Is(err, ErrBadBatch) {
		t.Errorf("garbage behind: %v", err)
	}
	if _, err := DecodeBatch(nextID(testSegment), payload); !errors.Is(err, ErrBadBatch) {
		t.Errorf("of another batch: %v", err)
	}
}

// A payload consists of the bytes of its segment, damage included: the sender and the
// receiver skip the same stretches.
func TestBatchOfDamagedSegment(t *testing.T) {
	t.Parallel()
	want := sampleClicks(20)
	records := encodeRecords(testSegment, want)
	second := len(encodeRecords(testSegment, want[:1]))
	records[second+recordHead] ^= 1
	records = append(records, "behind"...)
	clicks := 0
	end, damaged := scan(testSegment, records, func(*Click) { clicks++ })
	got, err := DecodeBatch(testSegment, encodePayload(records[:end], clicks))
	if want := slices.Delete(want, 1, 2); err != nil || !reflect.DeepEqual(got, want) || total(damaged) != 2 {
		t.Errorf("got %d clicks, want %d; damage %v, %v", len(got), len(want), damaged, err)
	}
}

// These payloads are valid as frames but not as batches.
func TestBatchHostile(t *testing.T) {
	t.Parallel()
	records := encodeRecords(testSegment, sampleClicks(3))
	later := bytes.Clone(records) // a layout of records that this release does not know
	later[1] = 0xfd
	for name, p := range map[string][]byte{
		"nothing":         nil,
		"version only":    {payloadVersion},
		"no frame":        {payloadVersion, 3},
		"later version":   {payloadVersion + 1, 0},
		"bomb":            encodePayload(make([]byte, maxPayloadBytes+1), 1),
		"huge count":      encodePayload(records, 1<<40),
		"more clicks":     encodePayload(records, 4),
		"fewer clicks":    encodePayload(records, 2),
		"no records":      encodePayload([]byte("text"), 1),
		"unknown records": encodePayload(later, 3),
	} {
		if _, err := DecodeBatch(testSegment, p); !errors.Is(err, ErrBadBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeBatch(testSegment, encodePayload(records, 3)); err != nil {
		t.Errorf("sound payload: %v", err)
	}
}

// A payload with more records than its header promises costs no more memory than its
// bytes.
func TestBatchBoundsMemory(t *testing.T) { // not parallel: it counts what the process allocates
	records := encodeRecords(testSegment, make([]Click, maxPayloadBytes/(recordHead+minBody)/2))
	payload := encodePayload(records, 1)
	_, _ = DecodeBatch(testSegment, payload) // makes the decoder
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodeBatch(testSegment, payload)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrBadBatch) || used > 4*maxPayloadBytes {
		t.Errorf("%v took %d bytes", err, used)
	}
}

// readV1 returns a payload of 200 clicks that an earlier release made.
func readV1(tb testing.TB) []byte {
	tb.Helper()
	payload, err := os.ReadFile("testdata/payload-v1")
	require.NoError(tb, err)
	return payload
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(EncodeBatch(testSegment, nil))
	f.Add(EncodeBatch(testSegment, sampleClicks(50)))
	f.Add(readV1(f))
	f.Fuzz(func(t *testing.T, payload []byte) {
		checkDecoded(t, payload)
		// A fuzzer does not find its way into a frame, so this makes one for it.
		if len(payload) > 3 {
			checkDecoded(t, encodePayload(payload[1:], int(payload[0])))
			checkDecoded(t, sealV1(uint64(payload[0]), uint64(len(payload)-1), payloadEncoder().EncodeAll(payload[1:], nil)))
		}
	})
}

func checkDecoded(t *testing.T, payload []byte) {
	t.Helper()
	got, err := DecodeBatch(testSegment, payload)
	if err != nil {
		if !errors.Is(err, ErrBadBatch) {
			t.Errorf("error %v does not wrap ErrBadBatch", err)
		}
		return
	}
	again, err := DecodeBatch(testSegment, EncodeBatch(testSegment, got))
	if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
		t.Errorf("decoded %v, then %v, %v", got, again, err)
	}
}
