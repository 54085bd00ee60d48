package csvimport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/text/transform"
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

// decode returns the contents of r as UTF-8 without a byte order mark, and the encoding
// that they were in. The encoding is the one that the byte order mark says, or without
// a mark the one given as as, or else the one that the first bytes look like. Bytes
// that are not text in that encoding come out as bytes that are not valid UTF-8, so
// that the row rules find them.
func decode(r io.Reader, as Encoding) (in io.Reader, encoding Encoding, marked bool, err error) {
	buffer := bufio.NewReaderSize(r, sniffed)
	sample, err := buffer.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", false, fmt.Errorf("read file: %w", err)
	}
	for _, magic := range magics {
		if bytes.HasPrefix(sample, []byte(magic.prefix)) {
			return nil, "", false, &FormatError{Reason: "the file is " + magic.name + ", not a CSV file"}
		}
	}
	if bytes.HasPrefix(sample, []byte("\xff\xfe\x00\x00")) || bytes.HasPrefix(sample, []byte("\x00\x00\xfe\xff")) {
		return nil, "", false, &FormatError{Reason: "the file is UTF-32: save it as UTF-8"}
	}
	mark, size := byteOrderMark(sample)
	_, _ = buffer.Discard(size) // peeked, so it is there
	if mark != "" {
		as = mark
	} else if as == "" || as == EncodingUTF16 {
		as = sniffEncoding(sample, as)
	}
	if (as != EncodingUTF16LE && as != EncodingUTF16BE) && looksBinary(sample) {
		return nil, "", false, &FormatError{Reason: "the file is binary, not a CSV file"}
	}
	return decoded(buffer, as), as, mark != "", nil
}

// byteOrderMark returns the encoding that a mark at the beginning of a file
// says, "" if there is none, and the length of the mark.
func byteOrderMark(sample []byte) (Encoding, int) {
	switch {
	case bytes.HasPrefix(sample, []byte("\xef\xbb\xbf")):
		return EncodingUTF8, 3
	case bytes.HasPrefix(sample, []byte("\xff\xfe")):
		return EncodingUTF16LE, 2
	case bytes.HasPrefix(sample, []byte("\xfe\xff")):
		return EncodingUTF16BE, 2
	}
	return "", 0
}

// sniffEncoding recognizes UTF-16 without a mark; everything else is taken for UTF-8.
// If the upload says UTF-16 and the file looks like neither byte order, it most likely
// has the one of Windows.
func sniffEncoding(sample []byte, as Encoding) Encoding {
	little, big := looksUTF16(sample)
	switch {
	case big:
		return EncodingUTF16BE
	case little || as == EncodingUTF16:
		return EncodingUTF16LE
	}
	return EncodingUTF8
}

func decoded(in io.Reader, as Encoding) io.Reader {
	switch as {
	case EncodingUTF8:
		return in
	case EncodingUTF16LE:
		return transform.NewReader(in, utf16Decoder{order: binary.LittleEndian})
	case EncodingUTF16BE:
		return transform.NewReader(in, utf16Decoder{order: binary.BigEndian})
	}
	return transform.NewReader(in, charmapDecoder{charmap: charmaps[as]})
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
