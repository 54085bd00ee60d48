package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// packedWindow bounds the memory of the zstd decoder, in bytes. It is the size that
	// RFC 8878 recommends to support, and more than zstd -19 uses.
	packedWindow = 8 << 20
	packedBuffer = 32 << 10
)

const (
	codingGzip = "gzip"
	codingZstd = "zstd"
	// uploadCodings are the codings that the error for an unknown coding names.
	uploadCodings = codingGzip + ", " + codingZstd
)

// packedMagics are the first bytes of packed files.
var packedMagics = map[string]string{codingGzip: "\x1f\x8b", codingZstd: "\x28\xb5\x2f\xfd"}

// codingOf returns the coding that a Content-Encoding header names, "" for none.
func codingOf(header string) (string, error) {
	switch coding := strings.ToLower(strings.TrimSpace(header)); coding {
	case "", "identity":
		return "", nil
	case codingGzip, "x-gzip":
		return codingGzip, nil
	case codingZstd:
		return codingZstd, nil
	}
	return "", errUploadEncoding
}

// unpackFile returns the unpacked contents of a file, whose coding it recognizes by the
// first bytes. A file that is not packed is returned as it is.
func (u *fileUpload) unpackFile(file io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(file, packedBuffer)
	start, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, u.fault(err)
	}
	for coding, magic := range packedMagics {
		if bytes.HasPrefix(start, []byte(magic)) {
			return u.unpack(in, coding, u.api.ImportMaxBytes)
		}
	}
	return in, nil
}

// unpack returns the unpacked contents of in. At most limit bytes of them are read,
// because a small body may unpack to any size. With the coding "" it returns in.
func (u *fileUpload) unpack(in io.Reader, coding string, limit int64) (io.Reader, error) {
	p := &unpacked{upload: u, coding: coding, left: limit}
	switch coding {
	case codingGzip:
		members, err := gzip.NewReader(in)
		if err != nil {
			return nil, p.fault(err)
		}
		p.in = members
	case codingZstd:
		// Without concurrency the decoder reads only while our own reader is being
		// read, which the connection requires, and no goroutine is left when the upload
		// ends early.
		frames, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(packedWindow))
		if err != nil {
			return nil, p.fault(err)
		}
		p.in = frames
		u.closers = append(u.closers, frames.Close)
	default:
		return in, nil
	}
	return p, nil
}

// close frees the decoder's memory, and then the upload's place.
func (u *fileUpload) close() {
	for _, c := range slices.Backward(u.closers) {
		c()
	}
	u.closers = nil
}

// unpacked yields the unpacked contents of a body or file, up to a limit.
type unpacked struct {
	upload *fileUpload
	coding string
	in     io.Reader
	left   int64
}

// Read implements io.Reader.
func (p *unpacked) Read(buf []byte) (int, error) {
	n, err := p.in.Read(buf)
	if p.left -= int64(n); p.left < 0 {
		return 0, p.upload.tooLarge()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = p.fault(err)
	}
	return n, err
}

// fault distinguishes a damaged stream from one that was not received completely.
func (p *unpacked) fault(err error) error {
	reason := fmt.Sprintf("is not whole or not sound as %s", p.coding)
	switch {
	case worded(err):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		reason = fmt.Sprintf("is packed with a window of more than %d bytes: pack it without --ultra and --long", packedWindow)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		reason = "is packed with a dictionary: pack it without"
	}
	return badRequest("the file "+reason, FieldError{Field: "file", Message: reason})
}
