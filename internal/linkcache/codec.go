package linkcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"strconv"

	"github.com/fxamacker/cbor/v2"
)

// Records of a snapshot and of Redis are CBOR behind a header of 12 bytes: the
// length of the record, its CRC-32C, and the CRC-32C of those eight bytes, so that a
// wrong length is not taken for a record that was cut off.
const (
	headerSize = 12
	maxRecord  = 64 << 20
)

var errDamaged = errors.New("record is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var encoding = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err) // the options are wrong
	}
	return mode
}()

// layout is a number that stands for the fields of records, so that those of other
// releases are recognized.
var layout = strconv.FormatUint(uint64(crc32.ChecksumIEEE([]byte(
	layoutOf(reflect.TypeFor[record]())+layoutOf(reflect.TypeFor[sharedLink]()),
))), 36)

// layoutOf returns the names of the fields of a type, and of the types of those fields.
func layoutOf(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // the others are named
	case reflect.Pointer, reflect.Slice:
		return layoutOf(t.Elem())
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[Link]().PkgPath() {
			return t.String()
		}
	default:
		return t.String()
	}
	text := t.Name() + "{"
	for i := range t.NumField() {
		f := t.Field(i)
		text += f.Name + " " + layoutOf(f.Type) + " " + string(f.Tag) + ";"
	}
	return text + "}"
}

// A record is a piece of a snapshot, or of the log of changes that follows it.
type record struct {
	Head    *head        `cbor:"1,keyasint,omitempty"` // of the first record
	Links   []savedLink  `cbor:"2,keyasint,omitempty"`
	Domains *domainTable `cbor:"3,keyasint,omitempty"`
	End     bool         `cbor:"4,keyasint,omitempty"` // the snapshot is complete; its log begins after this record
}

// A head says how far the feed had come.
type head struct {
	Position position `cbor:"1,keyasint"`
	Followed int64    `cbor:"2,keyasint"`

	epoch *epoch // entries of this epoch were right as of Followed
}

// A savedLink is a cached link, or a change of one in the log.
type savedLink struct {
	Domain int64  `cbor:"1,keyasint"`
	Code   string `cbor:"2,keyasint"`
	Link   *Link  `cbor:"3,keyasint,omitempty"` // nil in the log: the key is to be removed
	// ValidAt is when the database was asked for the link. In the log it is when the
	// query began that reported the change.
	ValidAt int64 `cbor:"4,keyasint"`
	// Current says that the link was also right as of the head's Followed.
	Current bool `cbor:"5,keyasint,omitempty"`
}

// encode returns a record with its header.
func encode(v any) []byte {
	body, err := encoding.Marshal(v)
	if err != nil {
		panic(err) // a type that cannot be encoded
	}
	return withHeader(body)
}

// withHeader returns a body after the header that says its size and checksums.
func withHeader(body []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(body))
	binary.BigEndian.PutUint32(b, uint32(len(body))) //nolint:gosec // at most maxRecord
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(body, castagnoli))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	return append(b, body...)
}

// decode reads the next record into v and returns its size. The error is [io.EOF] at
// the end of the data, and [io.ErrUnexpectedEOF] if the data ends within a record.
func decode(r io.Reader, v any) (size int, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if crc32.Checksum(header[:8], castagnoli) != binary.BigEndian.Uint32(header[8:]) || n == 0 || n > maxRecord {
		return 0, fmt.Errorf("%w: its header", errDamaged)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(header[4:]) {
		return 0, fmt.Errorf("%w: its checksum", errDamaged)
	}
	if err := cbor.Unmarshal(body, v); err != nil {
		return 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return headerSize + len(body), nil
}
