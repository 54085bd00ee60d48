package clicks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

const testSegment = "20260131t090507-0f1e2d3c4b5a6978-0000000003"

// scanAll returns every whole record.
func scanAll(id string, data []byte) (found []Click, damaged map[string]int) {
	_, damaged = scan(id, data, func(c *Click) { found = append(found, *c) })
	return found, damaged
}

func total(damaged map[string]int) (n int) {
	for _, d := range damaged {
		n += d
	}
	return n
}

func TestScanRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawClick), 0, 30).Draw(t, "clicks")
		records := encodeRecords(testSegment, want)
		records = append(records, make([]byte, rapid.IntRange(0, 5000).Draw(t, "zeros"))...)
		got, damaged := scanAll(testSegment, records)
		if len(damaged) != 0 || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v and damage %v, want %v", got, damaged, want)
		}
	})
}

// However a segment is damaged, each whole record is found, in order, and nothing is
// found that was not written.
func TestScanDamage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		clicks := rapid.SliceOfN(rapid.Custom(drawClick), 1, 30).Draw(t, "clicks")
		var ends []int
		for i := range clicks {
			ends = append(ends, len(encodeRecords(testSegment, clicks[:i+1])))
		}
		records := encodeRecords(testSegment, clicks)
		sound := bytes.Clone(records)
		for range rapid.IntRange(1, 5).Draw(t, "wounds") {
			at := rapid.IntRange(0, len(records)-1).Draw(t, "at")
			n := min(rapid.SampledFrom([]int{1, 2, 8, 100, 4096}).Draw(t, "length"), len(records)-at)
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				clear(records[at : at+n])
			case 1:
				copy(records[at:at+n], rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "noise"))
			case 2:
				records[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
		}
		if rapid.Bool().Draw(t, "cut") {
			records = records[:rapid.IntRange(0, len(records)).Draw(t, "cut at")]
		}
		var want []Click
		for i, end := range ends {
			start := 0
			if i > 0 {
				start = ends[i-1]
			}
			if end <= len(records) && bytes.Equal(records[start:end], sound[start:end]) {
				want = append(want, clicks[i])
			}
		}
		got, _ := scanAll(testSegment, records)
		if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("found %d clicks, want %d of %d", len(got), len(want), len(clicks))
		}
	})
}

func TestScanCountsDamage(t *testing.T) {
	t.Parallel()
	clicks := sampleClicks(5)
	sound := encodeRecords(testSegment, clicks)
	second := len(encodeRecords(testSegment, clicks[:1]))
	third := len(encodeRecords(testSegment, clicks[:2]))
	last := len(encodeRecords(testSegment, clicks[:4]))
	for _, tt := range []struct {
		name   string
		damage func(b []byte) []byte
		whole  int
		want   string
	}{
		{"sound", func(b []byte) []byte { return b }, 5, "map[]"},
		{"empty", func([]byte) []byte { return nil }, 0, "map[]"},
		{"all zeros", func(b []byte) []byte { clear(b); return b }, 0, "map[]"},
		{"zeros behind", func(b []byte) []byte { return append(b, make([]byte, 9000)...) }, 5, "map[]"},
		{"bit in a body", func(b []byte) []byte { b[second+20] ^= 1; return b }, 4, "map[checksum:1]"},
		{"bit in a length", func(b []byte) []byte { b[second+6] ^= 1; return b }, 4, "map[checksum:1]"},
		{"bit in a mark", func(b []byte) []byte { b[second] ^= 1; return b }, 4, "map[garbage:1]"},
		{"record zeroed", func(b []byte) []byte { clear(b[second:third]); return b }, 4, "map[zeroed:1]"},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, 4, "map[truncated:1]"},
		{"cut in a head", func(b []byte) []byte { return b[:last+3] }, 4, "map[truncated:1]"},
		{"cut between", func(b []byte) []byte { return b[:last] }, 4, "map[]"},
		{"text behind", func(b []byte) []byte { return append(b, "foreign"...) }, 5, "map[garbage:1]"},
		{"all shifted", func(b []byte) []byte { return append([]byte{1}, b...) }, 0, "map[garbage:1]"},
		{"record removed", func(b []byte) []byte { return append(b[:second], b[third:]...) }, 1, "map[checksum:1]"},
		{"record doubled", func(b []byte) []byte { return append(b, b[last:]...) }, 5, "map[checksum:1]"},
		{"foreign", func([]byte) []byte { return bytes.Repeat([]byte("foreign\n"), 100) }, 0, "map[garbage:1]"},
		{"no longer flagged", func(b []byte) []byte {
			b[last+1] ^= markPlain ^ markFlagged
			stamp(b[last:], seedFor(testSegment), int64(last))
			return b
		}, 4, "map[malformed:1]"},
		{"not a click", func(b []byte) []byte { return appendRaw(b, []byte("this is not a click")) }, 5, "map[malformed:1]"},
	} {
		got, damaged := scanAll(testSegment, tt.damage(bytes.Clone(sound)))
		if len(got) != tt.whole || fmt.Sprint(damaged) != tt.want {
			t.Errorf("%s: %d clicks and %v, want %d and %s", tt.name, len(got), damaged, tt.whole, tt.want)
		}
	}
}

// appendRaw adds a record with a valid checksum and any body.
func appendRaw(b, body []byte) []byte {
	at := len(b)
	b = append(b, markFirst, markPlain, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, body...)
	stamp(b[at:], seedFor(testSegment), int64(at))
	return b
}

// A record without flags is the one of the previous release, byte for byte, and flags
// cost one byte. Flags of a later release make a record malformed, so that the batch is
// held rather than counted without them.
func TestFlagsOfRecords(t *testing.T) {
	t.Parallel()
	plain := sampleClicks(1)[0]
	record := encodeRecords(testSegment, []Click{plain})
	if !bytes.HasPrefix(record, []byte{0xf7, 0xff}) {
		t.Errorf("a record without flags begins with %x", record[:2])
	}
	for flags := range 256 {
		c := plain
		c.Prefetch, c.Private, c.Trigger = flags&1 != 0, flags&2 != 0, Trigger(flags/4)
		flagged := encodeRecords(testSegment, []Click{c})
		got, damaged := scanAll(testSegment, flagged)
		switch {
		case flags == 0:
			if !bytes.Equal(flagged, record) {
				t.Errorf("without flags the record is %x, want %x", flagged, record)
			}
		case flags < 8:
			if len(got) != 1 || !reflect.DeepEqual(got[0], c) || len(flagged) != len(record)+1 || flagged[1] != 0xfe {
				t.Errorf("flags %d come back as %+v", flags, got)
			}
		case len(got) != 0 || damaged[damageMalformed] != 1:
			t.Errorf("unknown flags %d are read as %+v, damage %v", flags, got, damaged)
		}
	}
}

// The clicks before and after one with flags do not get them.
func TestFlagsAreOfOneRecord(t *testing.T) {
	t.Parallel()
	want := sampleClicks(3)
	want[1].Prefetch, want[1].Private, want[1].Trigger = true, true, TriggerQR
	if got, damaged := scanAll(testSegment, encodeRecords(testSegment, want)); !reflect.DeepEqual(got, want) || len(damaged) != 0 {
		t.Errorf("got %+v and damage %v, want %+v", got, damaged, want)
	}
}

// In a segment under another name, nothing is counted twice.
func TestScanOtherName(t *testing.T) {
	t.Parallel()
	records := encodeRecords(testSegment, sampleClicks(5))
	if got, _ := scanAll("20260131t090507-0f1e2d3c4b5a6978-0000000004", records); len(got) != 0 {
		t.Errorf("%d clicks found", len(got))
	}
}

// No header that a client can send holds a record.
func TestTextHoldsNoMark(t *testing.T) {
	t.Parallel()
	forged := encodeRecords(testSegment, sampleClicks(1))
	if got := Clean(string(forged), MaxUserAgent); nextMark([]byte(got), 0) < len(got) {
		t.Errorf("%q contains a mark", got)
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add(encodeRecords(testSegment, sampleClicks(3)), uint16(2))
	f.Add(appendRaw(nil, []byte("this is not a click")), uint16(0))
	f.Add([]byte{0xf7, 0xf7, 0xfe, 0xf7, 0xff}, uint16(1))
	f.Fuzz(func(t *testing.T, noise []byte, offset uint16) {
		// The noise alone may be anything; behind whole records it must not cost any of
		// them.
		got, damaged := scanAll(testSegment, noise)
		if len(got) == 0 && total(damaged) == 0 && !isZero(noise) {
			t.Errorf("%x is neither clicks nor damage", noise)
		}
		records := encodeRecords(testSegment, sampleClicks(3))
		got, _ = scanAll(testSegment, append(bytes.Clone(records), noise...))
		if len(got) < 3 {
			t.Errorf("%d of 3 clicks found before %x", len(got), noise)
		}
		// A body with a valid checksum must be parsed or counted.
		if len(noise) <= maxBody {
			got, damaged = scanAll(testSegment, appendRaw(nil, noise))
			if len(got)+total(damaged) != 1 {
				t.Errorf("%d clicks and damage %v in one record", len(got), damaged)
			}
			flagged := appendRaw(nil, noise)
			flagged[1] = markFlagged
			stamp(flagged, seedFor(testSegment), 0)
			if got, damaged = scanAll(testSegment, flagged); len(got)+total(damaged) != 1 {
				t.Errorf("%d clicks and damage %v in one record with flags", len(got), damaged)
			}
		}
		copy(records[int(offset)%len(records):], noise)
		scanAll(testSegment, records)
	})
}
