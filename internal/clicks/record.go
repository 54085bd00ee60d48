package clicks

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"time"
	"unsafe"
)

const (
	recordHead = 8 // mark, checksum, length of the body
	// maxBody is the longest body: time, two ids, address, two texts with
	// their lengths, flags.
	maxBody   = 8 + 2*binary.MaxVarintLen64 + 1 + 16 + 2 + MaxUserAgent + 2 + MaxReferrer + 1
	maxRecord = recordHead + maxBody
	minBody   = 8 + 1 + 1 + 1 + 1 + 1
)

// Every record begins with a mark, which says whether its body ends with a byte of
// flags. The bytes of a mark cannot occur in UTF-8, and so in no text of a click. When
// the layout of the body changes, there has to be another mark.
const (
	markFirst   = 0xf7
	markPlain   = 0xff // no flag is set
	markFlagged = 0xfe
)

// Flags of a record. The bits above are of the trigger, of which this release knows
// those below [triggers].
const (
	flagPrefetch = 1 << iota
	flagPrivate
	flagsOfTrigger
)

// flagsOf returns the flags of a click, 0 for nearly all.
func flagsOf(c *Click) byte {
	flags := byte(c.Trigger) * flagsOfTrigger
	if c.Prefetch {
		flags |= flagPrefetch
	}
	if c.Private {
		flags |= flagPrivate
	}
	return flags
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord adds the click to buf as a record without a checksum: the checksum
// depends on the record's offset, and stamp adds it once that is known. agent and
// referrer, which must be clean, take the place of the texts of c.
func appendRecord(buf []byte, c *Click, agent, referrer string) []byte {
	start := len(buf)
	buf = append(buf, markFirst, markPlain, 0, 0, 0, 0, 0, 0)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(c.At.UnixMicro()))
	buf = binary.AppendUvarint(buf, uint64(c.URLID))
	buf = binary.AppendUvarint(buf, uint64(c.UserID))
	buf = appendAddr(buf, c.IP.Unmap())
	buf = binary.AppendUvarint(buf, uint64(len(agent)))
	buf = append(buf, agent...)
	buf = binary.AppendUvarint(buf, uint64(len(referrer)))
	buf = append(buf, referrer...)
	if flags := flagsOf(c); flags != 0 {
		buf[start+1] = markFlagged
		buf = append(buf, flags)
	}
	binary.LittleEndian.PutUint16(buf[start+6:], uint16(len(buf)-start-recordHead))
	return buf
}

func appendAddr(buf []byte, ip netip.Addr) []byte {
	switch {
	case ip.Is4():
		a := ip.As4()
		return append(append(buf, 4), a[:]...)
	case ip.Is6():
		a := ip.As16()
		return append(append(buf, 16), a[:]...)
	}
	return append(buf, 0)
}

// seedFor returns the seed for a segment's checksums, which makes them valid under its
// name only.
func seedFor(id string) uint32 { return crc32.Checksum([]byte(id), castagnoli) }

func checksum(seed uint32, offset int64, rest []byte) uint32 {
	return crc32.Update(seed^uint32(offset), castagnoli, rest)
}

// stamp adds the checksums to the records in buf, which appendRecord made, for the
// offset at which they are about to be written.
func stamp(buf []byte, seed uint32, offset int64) {
	for len(buf) > 0 {
		n := recordHead + int(binary.LittleEndian.Uint16(buf[6:]))
		binary.LittleEndian.PutUint32(buf[2:], checksum(seed, offset, buf[6:n]))
		buf = buf[n:]
		offset += int64(n)
	}
}

// encodeRecords returns the contents of a segment that holds these clicks.
func encodeRecords(id string, clicks []Click) []byte {
	var records []byte
	for i := range clicks {
		records = appendRecord(records, &clicks[i], clicks[i].UserAgent, clicks[i].Referrer)
	}
	stamp(records, seedFor(id), 0)
	return records
}

// Reasons for which a part of a segment counts as damaged. They are the values of the
// label "reason".
const (
	damageChecksum  = "checksum"  // a record whose bytes have changed
	damageTruncated = "truncated" // a record that the end of the file cuts
	damageGarbage   = "garbage"   // bytes that begin no record
	damageMalformed = "malformed" // intact, but not a click: another version's, or foreign
	damageZeroed    = "zeroed"    // zeros where records should follow
)

func damageReasons() []string {
	return []string{damageChecksum, damageTruncated, damageGarbage, damageMalformed, damageZeroed}
}

// scan calls visit for every whole record of a segment, in order. It returns where
// the last of them ends, and the number of damaged stretches by reason: the bytes
// that have to be skipped to reach the next whole record are one stretch. Zeros at
// the end are no damage. The click that visit gets is overwritten by the next one;
// its texts are a part of data, which must not change as long as they are used.
func scan(id string, data []byte, visit func(*Click)) (end int, damaged map[string]int) {
	seed := seedFor(id)
	limit := len(bytes.TrimRight(data, "\x00")) // a record may reach beyond it
	lost := ""                                  // why the bytes being skipped are damaged
	var c Click
	for off := 0; off < limit; {
		n, why := recordAt(data, off, seed)
		if why != "" {
			if lost == "" {
				lost = why
			}
			off = nextMark(data, off+1)
			continue
		}
		damaged, lost = count(damaged, lost), ""
		if parseBody(data[off+recordHead:off+n], data[off+1] == markFlagged, &c) {
			end = off + n
			visit(&c)
		} else {
			damaged = count(damaged, damageMalformed)
		}
		off += n
	}
	return end, count(damaged, lost)
}

func count(m map[string]int, reason string) map[string]int {
	if reason == "" {
		return m
	}
	if m == nil {
		m = make(map[string]int)
	}
	m[reason]++
	return m
}

// recordAt returns the length of the whole record at off, or the reason why there is
// none.
func recordAt(data []byte, off int, seed uint32) (n int, why string) {
	rest := data[off:]
	if !startsRecord(rest) {
		if isZero(rest[:min(len(rest), recordHead)]) {
			return 0, damageZeroed
		}
		return 0, damageGarbage
	}
	if len(rest) < recordHead {
		return 0, damageTruncated
	}
	body := int(binary.LittleEndian.Uint16(rest[6:]))
	if body < minBody || body > maxBody {
		return 0, damageChecksum
	}
	n = recordHead + body
	if n > len(rest) {
		return 0, damageTruncated
	}
	if checksum(seed, int64(off), rest[6:n]) != binary.LittleEndian.Uint32(rest[2:]) {
		return 0, damageChecksum
	}
	return n, ""
}

// startsRecord reports whether data begins with a mark.
func startsRecord(data []byte) bool {
	return len(data) >= 2 && data[0] == markFirst && (data[1] == markPlain || data[1] == markFlagged)
}

// nextMark returns where the next mark in data is, or the end if there is none.
func nextMark(data []byte, from int) int {
	for {
		i := bytes.IndexByte(data[from:], markFirst)
		if i < 0 {
			return len(data)
		}
		if from += i; startsRecord(data[from:]) {
			return from
		}
		from++
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// parseBody reads the body of a record into c. The texts of c share the memory of the
// body.
func parseBody(body []byte, flagged bool, c *Click) (ok bool) {
	r := reader{rest: body}
	c.At = time.UnixMicro(int64(r.uint64())).UTC()
	c.URLID = int64(r.uvarint())
	c.UserID = int64(r.uvarint())
	c.IP = r.addr(r.bytes(1))
	c.UserAgent = r.text(MaxUserAgent)
	c.Referrer = r.text(MaxReferrer)
	c.Prefetch, c.Private, c.Trigger = false, false, TriggerLink
	if flagged {
		r.flags(c)
	}
	return !r.bad && len(r.rest) == 0
}

// flags reads the flags of a record. Flags that this release does not know are bad, and
// so are none at all: there is one form of each click.
func (r *reader) flags(c *Click) {
	b := r.bytes(1)
	if b == nil || b[0] == 0 || b[0] >= triggers*flagsOfTrigger {
		r.bad = true
		return
	}
	c.Prefetch, c.Private, c.Trigger = b[0]&flagPrefetch != 0, b[0]&flagPrivate != 0, Trigger(b[0]/flagsOfTrigger)
}

// reader takes values off the front of rest. After the first value that does not fit,
// bad is set and all further values are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// length reads a length that is at most limit.
func (r *reader) length(limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(v)
}

// addr reads an address; the single byte in size is its length.
func (r *reader) addr(size []byte) netip.Addr {
	if len(size) == 0 || size[0] == 0 {
		return netip.Addr{}
	}
	if size[0] != 4 && size[0] != 16 {
		r.bad = true
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(r.bytes(int(size[0])))
	return ip
}

// text reads a length and a text of that length, which shares the memory of rest.
func (r *reader) text(limit int) string {
	b := r.bytes(r.length(limit))
	return unsafe.String(unsafe.SliceData(b), len(b))
}
