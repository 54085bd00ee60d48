package csvimport

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Domains keep equal values of different columns apart.
const (
	domainUserID uint64 = iota + 1
	domainUsername
	domainEmail
	domainLinkID
	domainShortCode
	domainEventID
)

// KeysOf appends to dst the hashes of the unique keys that record claims: of a
// user the id, username and email; of a link the id and short code; of an event
// its source id. Values that the database could take for equal hash equal;
// others may, which only costs time. A broken record claims nothing, and
// neither does an empty or malformed value.
//
// Hashes are the same in every process and release that works on an import.
func (l Layout) KeysOf(record Record, dst []uint64) []uint64 {
	return l.keyColumns().appendTo(record, dst)
}

// keyColumns are the positions of a layout's unique columns, -1 for none.
type keyColumns struct {
	kind            Kind
	lenient         bool
	restore         bool
	id, name, email int
	code            codeColumns
}

func (l Layout) keyColumns() keyColumns {
	return keyColumns{
		kind: l.Kind, lenient: l.Lenient, restore: l.restores(), id: l.position(colID),
		name: l.position(colUsername), email: l.position(colEmail), code: l.codeColumns(),
	}
}

func (k keyColumns) appendTo(record Record, dst []uint64) []uint64 {
	if record.Fault != nil {
		return dst
	}
	switch k.kind {
	case KindUsers:
		dst = k.appendID(record, dst, domainUserID)
		dst = k.appendFolded(record, dst, domainUsername, k.name)
		return k.appendFolded(record, dst, domainEmail, k.email)
	case KindLinks:
		dst = k.appendID(record, dst, domainLinkID)
		if code, err := k.code.of(record, k.restore); err == nil && code != "" {
			dst = append(dst, hash(domainShortCode, code))
		}
		return dst
	default:
		return k.appendID(record, dst, domainEventID)
	}
}

func (k keyColumns) appendID(record Record, dst []uint64, domain uint64) []uint64 {
	id, ok := parseID(record.field(k.id), k.lenient)
	if !ok {
		return dst
	}
	return append(dst, mix(domain<<56^uint64(id)))
}

func (k keyColumns) appendFolded(record Record, dst []uint64, domain uint64, position int) []uint64 {
	value := record.field(position)
	if value == "" {
		return dst
	}
	if k.restore {
		value = Restore(value)
	}
	return append(dst, hashFolded(domain, value))
}

// field is the value at position, "" if the record has none.
func (r *Record) field(position int) string {
	if position < 0 || position >= len(r.Fields) {
		return ""
	}
	return r.Fields[position]
}

// FNV-1a, finished by the mixer of SplitMix64, since FNV alone leaves the high
// bits of short values alike, and Contended goes by ranges.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hash(domain uint64, value string) uint64 {
	h := uint64(fnvOffset) ^ domain
	for i := range len(value) {
		h = (h ^ uint64(value[i])) * fnvPrime
	}
	return mix(h)
}

// hashFolded hashes value so that case makes no difference.
func hashFolded(domain uint64, value string) uint64 {
	h := uint64(fnvOffset) ^ domain
	for i := range len(value) {
		c := value[i]
		if c >= utf8.RuneSelf {
			return hash(domain, foldText(value))
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * fnvPrime
	}
	return mix(h)
}

func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// foldText is coarser than any collation's lower(): compatibility
// decomposition without marks, and one letter for all cases of it.
func foldText(value string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.M, r) {
			return -1
		}
		return foldRune(r)
	}, norm.NFKD.String(value))
}

func foldRune(r rune) rune {
	if r == 'ı' {
		return 'i' // lower('I') in a Turkish locale
	}
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		return least + 'a' - 'A' // as hashFolded does with ASCII
	}
	return least
}

// chunkKeys returns the keys that the rows of a chunk claim, sorted, and the
// highest id that moves a sequence.
func (l Layout) chunkKeys(chunk Chunk) (keys []uint64, highest int64) {
	columns := l.keyColumns()
	keys = make([]uint64, 0, 3*chunk.Rows)
	for record := range l.Records(chunk.Data, chunk.FirstLine) {
		keys = columns.appendTo(record, keys)
		if id, ok := parseID(record.field(columns.id), l.Lenient); ok && record.Fault == nil && id <= MaxSequenceID {
			highest = max(highest, id)
		}
	}
	slices.Sort(keys)
	return keys, highest
}

// EncodeKeys returns keys as bytes, to be stored; DecodeKeys is its inverse.
func EncodeKeys(keys []uint64) []byte {
	data := make([]byte, 0, 8*len(keys))
	for _, key := range keys {
		data = binary.BigEndian.AppendUint64(data, key)
	}
	return data
}

// DecodeKeys appends to dst the keys that EncodeKeys made data of.
func DecodeKeys(dst []uint64, data []byte) ([]uint64, error) {
	if len(data)%8 != 0 {
		return nil, errors.New("decode keys: length is no multiple of 8")
	}
	dst = slices.Grow(dst, len(data)/8)
	for ; len(data) > 0; data = data[8:] {
		dst = append(dst, binary.BigEndian.Uint64(data))
	}
	return dst, nil
}

// Lists gives yield the sorted keys of each chunk of an import, one after the
// other in any order, and stops with yield's error. yield keeps nothing. It is
// called as often as there are passes, and must give the same keys every time.
type Lists func(yield func(keys []uint64) error) error

// ContendedKeys are the contended keys of one range.
type ContendedKeys struct {
	Keys []uint64 // ascending, each once
	// Next is the first key behind the range, where a later walk can go on; 0
	// means that there is no more.
	Next uint64
}

// Contended finds the keys from from on that are in lists more than once,
// within a chunk or among several. It yields them by ranges in ascending order;
// what it yields is good until the next one. An error of lists ends it.
//
// About maxMemory bytes are used, at least 64 KiB: where the keys do not fit,
// lists is walked several times, once for each range.
func Contended(lists Lists, from uint64, maxMemory int) iter.Seq2[ContendedKeys, error] {
	return func(yield func(ContendedKeys, error) bool) {
		pass := keyPass{buf: make([]uint64, 0, max(maxMemory, 64<<10)/8), low: from, high: ^uint64(0)}
		for {
			if err := lists(pass.collect); err != nil {
				yield(ContendedKeys{}, err)
				return
			}
			found := ContendedKeys{Keys: pass.finish(), Next: pass.high + 1}
			if !yield(found, nil) || found.Next == 0 {
				return
			}
			pass.next()
		}
	}
}

// A keyPass collects the keys from low to high, both included, keeping at most
// two of a kind. When they do not fit, it gives up the upper half: high comes
// down, and a later pass begins behind it.
type keyPass struct {
	low, high uint64
	buf       []uint64
}

func (p *keyPass) next() {
	p.low, p.high, p.buf = p.high+1, ^uint64(0), p.buf[:0]
}

func (p *keyPass) collect(keys []uint64) error {
	from, _ := slices.BinarySearch(keys, p.low)
	for keys = keys[from:]; len(keys) > 0 && keys[0] <= p.high; {
		room := cap(p.buf) - len(p.buf)
		if room == 0 {
			p.compact()
			continue
		}
		part := keys[:min(room, len(keys))]
		keys = keys[len(part):]
		if part[len(part)-1] > p.high {
			past, _ := slices.BinarySearch(part, p.high+1)
			part, keys = part[:past], nil
		}
		p.buf = append(p.buf, part...)
	}
	return nil
}

// compact makes room: more than half of the buffer if it must.
func (p *keyPass) compact() {
	p.squeeze()
	half := cap(p.buf) / 2
	if len(p.buf) <= half {
		return
	}
	// At most two of a kind, so a key below the one in the middle is there.
	p.high = p.buf[half] - 1
	past, _ := slices.BinarySearch(p.buf, p.high+1)
	p.buf = p.buf[:past]
}

// squeeze sorts the buffer and keeps two of a kind.
func (p *keyPass) squeeze() {
	slices.Sort(p.buf)
	kept := p.buf[:0]
	for _, key := range p.buf {
		if n := len(kept); n >= 2 && kept[n-2] == key {
			continue
		}
		kept = append(kept, key)
	}
	p.buf = kept
}

// finish returns the keys of the pass that were there twice.
func (p *keyPass) finish() []uint64 {
	p.squeeze()
	found := p.buf[:0]
	for i := 1; i < len(p.buf); i++ {
		if p.buf[i] == p.buf[i-1] {
			found = append(found, p.buf[i])
		}
	}
	return found
}
