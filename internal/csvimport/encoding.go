package csvimport

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"
)

// An Encoding is how the characters of a file are written as bytes.
type Encoding string

// The encodings, as the API spells them. EncodingUTF16 is for a file whose first bytes
// say which of the two byte orders it has.
const (
	EncodingUTF8        Encoding = "utf-8"
	EncodingUTF16       Encoding = "utf-16"
	EncodingUTF16LE     Encoding = "utf-16le"
	EncodingUTF16BE     Encoding = "utf-16be"
	EncodingWindows1252 Encoding = "windows-1252"
	EncodingISO88591    Encoding = "iso-8859-1"
	EncodingISO885915   Encoding = "iso-8859-15"
	EncodingMacintosh   Encoding = "macintosh"
)

// encodings holds each encoding under the names that people, IANA, Python and the web
// use for it, folded. The web's own index of names (htmlindex) does not fit, because in
// it iso-8859-1 means windows-1252.
var encodings = map[string]Encoding{
	"utf8": EncodingUTF8, "utf8sig": EncodingUTF8, "utf8bom": EncodingUTF8, "ascii": EncodingUTF8, "usascii": EncodingUTF8,
	"utf16": EncodingUTF16, "unicode": EncodingUTF16, "ucs2": EncodingUTF16,
	"utf16le": EncodingUTF16LE, "utf16be": EncodingUTF16BE,
	"windows1252": EncodingWindows1252, "cp1252": EncodingWindows1252, "win1252": EncodingWindows1252,
	"1252": EncodingWindows1252, "xcp1252": EncodingWindows1252, "cswindows1252": EncodingWindows1252, "ansi": EncodingWindows1252,
	"iso88591": EncodingISO88591, "latin1": EncodingISO88591, "l1": EncodingISO88591,
	"isolatin1": EncodingISO88591, "csisolatin1": EncodingISO88591, "cp819": EncodingISO88591,
	"iso885915": EncodingISO885915, "latin9": EncodingISO885915, "l9": EncodingISO885915, "csiso885915": EncodingISO885915,
	"macintosh": EncodingMacintosh, "mac": EncodingMacintosh, "macroman": EncodingMacintosh,
	"xmacroman": EncodingMacintosh, "csmacintosh": EncodingMacintosh, "cp10000": EncodingMacintosh,
}

// charmaps are the encodings of one byte a character.
var charmaps = map[Encoding]*charmap.Charmap{
	EncodingWindows1252: charmap.Windows1252,
	EncodingISO88591:    charmap.ISO8859_1,
	EncodingISO885915:   charmap.ISO8859_15,
	EncodingMacintosh:   charmap.Macintosh,
}

// ParseEncoding returns the encoding that s names; case, hyphens and underscores do not
// matter. For "" the encoding is found out from the file. The error is fit for users.
func ParseEncoding(s string) (Encoding, error) {
	if s == "" {
		return "", nil
	}
	fold := func(c rune) rune {
		if c == '-' || c == '_' || c == ' ' {
			return -1
		}
		return c
	}
	if encoding, ok := encodings[strings.Map(fold, strings.ToLower(s))]; ok {
		return encoding, nil
	}
	return "", fmt.Errorf("must be %s, %s, %s, %s, %s or %s", EncodingUTF8, EncodingUTF16,
		EncodingWindows1252, EncodingISO88591, EncodingISO885915, EncodingMacintosh)
}

// notText is the byte that a decoder writes in place of bytes that are no character in
// the file's encoding. It is never valid in UTF-8, so the row is rejected. The decoders
// of x/text write U+FFFD instead, and such a row would be imported.
const notText = 0xff

// notRune is returned by a decoder for bytes that are no character. U+FFFD cannot serve
// for that: it is a character, and a file may hold it.
const notRune rune = -1

// A charmapDecoder turns an encoding of one byte a character into UTF-8.
type charmapDecoder struct {
	transform.NopResetter
	charmap *charmap.Charmap
}

// Transform implements [transform.Transformer].
func (d charmapDecoder) Transform(dst, src []byte, _ bool) (nDst, nSrc int, err error) {
	for _, c := range src {
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		r := d.charmap.DecodeByte(c)
		if r == utf8.RuneError {
			r = notRune
		}
		nDst += put(dst[nDst:], r)
		nSrc++
	}
	return nDst, nSrc, nil
}

// A utf16Decoder turns UTF-16 into UTF-8. A surrogate without its partner and a
// last odd byte become notText.
type utf16Decoder struct {
	transform.NopResetter
	order binary.ByteOrder
}

// Transform implements [transform.Transformer].
func (d utf16Decoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		r, size := d.decode(src[nSrc:])
		if size == 0 && !atEOF {
			return nDst, nSrc, transform.ErrShortSrc
		}
		nDst += put(dst[nDst:], r)
		nSrc += cmp.Or(size, len(src)-nSrc)
	}
	return nDst, nSrc, nil
}

// decode returns the character at the start of src, or notRune, and its size. The size
// is 0 if src ends in the middle of a character.
func (d utf16Decoder) decode(src []byte) (r rune, size int) {
	if len(src) < 2 {
		return notRune, 0
	}
	unit := rune(d.order.Uint16(src))
	switch {
	case !utf16.IsSurrogate(unit):
		return unit, 2
	case unit >= lowSurrogates:
		return notRune, 2
	case len(src) < 4:
		return notRune, 0
	}
	if pair := utf16.DecodeRune(unit, rune(d.order.Uint16(src[2:]))); pair != utf8.RuneError {
		return pair, 4
	}
	return notRune, 2
}

// lowSurrogates is the first of the low surrogates, which come second in a pair.
const lowSurrogates = 0xdc00

// put writes r to dst and returns its size in bytes. It writes notRune as notText.
func put(dst []byte, r rune) int {
	if r == notRune {
		dst[0] = notText
		return 1
	}
	return utf8.EncodeRune(dst, r)
}
