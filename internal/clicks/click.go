package clicks

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// Bounds of a click's text, in bytes. Longer values are cut at a rune
// boundary.
const (
	MaxUserAgent = 512
	MaxReferrer  = 1024
)

// Click is one followed link.
type Click struct {
	At        time.Time  // UTC; kept with microsecond precision
	URLID     int64      // the link
	UserID    int64      // the owner of the link
	IP        netip.Addr // zero when unknown; kept unmapped and without zone
	UserAgent string     // at most MaxUserAgent bytes
	Referrer  string     // the whole header, at most MaxReferrer bytes
	Prefetch  bool       // the browser loads ahead of a click that may never come
	Private   bool       // the visitor asks not to be tracked (DNT, Sec-GPC)
	Trigger   Trigger
}

// Trigger is how a short link was opened.
type Trigger uint8

// Triggers of clicks.
const (
	TriggerLink Trigger = iota
	TriggerQR

	triggers = iota // how many there are
)

// String returns the name of the trigger.
func (t Trigger) String() string {
	if t == TriggerQR {
		return "qr"
	}
	return "link"
}

// Clean returns s in a form that Postgres and people can read: at most limit bytes,
// valid UTF-8 (invalid bytes become U+FFFD), without NUL and other control characters.
// A value that is fine already, as nearly every header is, is returned as it is: it
// shares the memory of s and nothing is allocated.
func Clean(s string, limit int) string {
	if len(s) <= limit && printableASCII(s) {
		return s
	}
	if cut := s[:min(len(s), limit)]; printableASCII(cut) {
		return cut
	}
	return cleanSlow(s, limit)
}

func cleanSlow(s string, limit int) string {
	var b strings.Builder
	b.Grow(min(len(s), limit))
	for _, r := range s { // an invalid byte comes out as utf8.RuneError
		if unicode.IsControl(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printableASCII reports whether every byte of s is in 0x20..0x7E. It looks at
// eight bytes at a time, since it sees two headers of each redirect.
func printableASCII(s string) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		// With no high bit set the sums cannot carry from byte to byte:
		// +0x60 sets the high bit from 0x20 on, +0x01 sets it for 0x7F.
		if x&highs != 0 || (x+0x60*ones)&highs != highs || (x+ones)&highs != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}
