package csvimport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// sniffed is how much of a file is looked at to recognize its encoding.
const sniffed = 4096

// magics are the first bytes of files that people upload in place of a CSV.
var magics = []struct{ prefix, name string }{
	{"PK\x03\x04", "a ZIP archive or an XLSX workbook"},
	{"PK\x05\x06", "an empty ZIP archive"},
	{"\x1f\x8b", "gzip-compressed"},
	{"\x28\xb5\x2f\xfd", "zstd-compressed"},
	{"BZh", "bzip2-compressed"},
	{"\xfd7zXZ\x00", "xz-compressed"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"},
	{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook"},
	{"%PDF-", "a PDF document"},
	{"\x89PNG\r\n\x1a\n", "a PNG image"},
	{"PAR1", "a Parquet file"},
	{"SQLite format 3\x00", "an SQLite database"},
}

// decode returns what r holds as UTF-8 without a byte order mark. Bytes that
// are not valid in the file's encoding stay invalid, for the row rules to find.
func decode(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, sniffed)
	sample, err := in.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read file: %w", err)
	}
	for _, magic := range magics {
		if bytes.HasPrefix(sample, []byte(magic.prefix)) {
			return nil, &FormatError{Reason: "the file is " + magic.name + ", not a CSV file"}
		}
	}
	switch {
	case bytes.HasPrefix(sample, []byte("\xff\xfe\x00\x00")), bytes.HasPrefix(sample, []byte("\x00\x00\xfe\xff")):
		return nil, &FormatError{Reason: "the file is UTF-32: save it as UTF-8"}
	case bytes.HasPrefix(sample, []byte("\xef\xbb\xbf")):
		_, _ = in.Discard(3) // peeked, so it is there
		return in, nil
	case bytes.HasPrefix(sample, []byte("\xff\xfe")):
		_, _ = in.Discard(2)
		return &utf16Reader{in: in}, nil
	case bytes.HasPrefix(sample, []byte("\xfe\xff")):
		_, _ = in.Discard(2)
		return &utf16Reader{in: in, bigEndian: true}, nil
	}
	little, big := looksUTF16(sample)
	switch {
	case little || big:
		return &utf16Reader{in: in, bigEndian: big}, nil
	case looksBinary(sample):
		return nil, &FormatError{Reason: "the file is binary, not a CSV file"}
	}
	return in, nil
}

// looksUTF16 tells UTF-16 without a byte order mark by its zero bytes: the
// header is ASCII, so nearly every other byte is zero, and hardly one between.
func looksUTF16(sample []byte) (little, big bool) {
	sample = sample[:min(len(sample), 256)&^1]
	if len(sample) < 4 {
		return false, false
	}
	zeros := [2]int{}
	for i, c := range sample {
		if c == 0 {
			zeros[i%2]++
		}
	}
	units := len(sample) / 2
	enough, few := units*3/5, units/16
	return zeros[1] > enough && zeros[0] <= few, zeros[0] > enough && zeros[1] <= few
}

func looksBinary(sample []byte) bool {
	control := 0
	for _, c := range sample {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			control++
		}
	}
	return control > len(sample)/10
}

// A utf16Reader turns UTF-16 into UTF-8. A surrogate without its partner and a
// last odd byte become the byte 0xff, which is valid nowhere in UTF-8.
type utf16Reader struct {
	in        io.Reader
	bigEndian bool
	raw       [4096]byte
	rest      int  // bytes at the start of raw that are not a whole unit yet
	high      rune // a high surrogate that waits for its partner, or 0
	out       []byte
	ready     []byte // part of out that was not read yet
	err       error
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	for len(u.ready) == 0 {
		if u.err != nil {
			return 0, u.err
		}
		u.refill()
	}
	n := copy(p, u.ready)
	u.ready = u.ready[n:]
	return n, nil
}

func (u *utf16Reader) refill() {
	n, err := u.in.Read(u.raw[u.rest:])
	n += u.rest
	u.out = u.out[:0]
	for i := 0; i+1 < n; i += 2 {
		unit := rune(u.raw[i]) | rune(u.raw[i+1])<<8
		if u.bigEndian {
			unit = rune(u.raw[i])<<8 | rune(u.raw[i+1])
		}
		u.decode(unit)
	}
	if u.rest = n & 1; u.rest == 1 {
		u.raw[0] = u.raw[n-1]
	}
	if err != nil {
		u.err = err
		if u.rest == 1 || u.high != 0 {
			u.out = append(u.out, 0xff)
		}
	}
	u.ready = u.out
}

func (u *utf16Reader) decode(unit rune) {
	if u.high != 0 {
		pair := utf16.DecodeRune(u.high, unit)
		u.high = 0
		if pair != utf8.RuneError {
			u.out = utf8.AppendRune(u.out, pair)
			return
		}
		u.out = append(u.out, 0xff)
	}
	switch {
	case unit >= 0xd800 && unit < 0xdc00:
		u.high = unit
	case utf16.IsSurrogate(unit):
		u.out = append(u.out, 0xff)
	default:
		u.out = utf8.AppendRune(u.out, unit)
	}
}
