package links

import (
	"crypto/rand"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// MaxCode is the greatest length of a short code in bytes.
	MaxCode = 255
	// CodeLength is the length of a generated code, unless codes of this length run
	// out.
	CodeLength = 7
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// CheckCode returns nil if a person may give code to a link of the main domain, and
// otherwise ErrCode, ErrCodeReserved or ErrCodeEnd. Codes are case-sensitive. code must
// have been through NormalCode.
func CheckCode(code string) error {
	if IsCode(code) && Reserved(code) {
		return ErrCodeReserved
	}
	return CheckDomainCode(code)
}

// CheckDomainCode is like CheckCode, for a link of a custom domain, where no words are
// reserved.
func CheckDomainCode(code string) error {
	switch {
	case !IsCode(code):
		return ErrCode
	case TrimCode(code) != code:
		return ErrCodeEnd
	}
	return nil
}

// CheckImportedCode returns nil if a link from a file may have code, and otherwise
// ErrCode. It accepts some codes that CheckCode refuses, because links that are printed
// already must keep theirs. code must have been through NormalCode.
func CheckImportedCode(code string) error {
	if !IsCode(code) {
		return ErrCode
	}
	return nil
}

// NormalCode returns code in the one spelling that is stored and looked up, which is
// NFC, because devices differ in how they write an accented letter. Each code that
// comes in passes through this first.
func NormalCode(code string) string { return norm.NFC.String(code) }

// IsPlainCode reports whether code has 1 to MaxCode letters and digits of ASCII, - or
// _, as nearly every short code does. It does not allocate.
func IsPlainCode(code string) bool {
	if len(code) < 1 || len(code) > MaxCode {
		return false
	}
	for i := range len(code) {
		if !codeByte[code[i]] {
			return false
		}
	}
	return true
}

var (
	codeByte    = bytesOf(base62 + "-_")
	segmentByte = bytesOf(base62 + "-_.~+@!$")
)

func bytesOf(text string) (set [256]bool) {
	for _, c := range []byte(text) {
		set[c] = true
	}
	return set
}

// IsCode reports whether code has the form of a short code, reserved or not: 1 to
// MaxCode bytes of NFC, in segments separated by slashes. A segment consists of
// letters, marks and digits of any script, emoji, and - _ . ~ + @ ! $. No segment is
// empty, and none is "." or "..", which browsers would resolve.
func IsCode(code string) bool {
	if IsPlainCode(code) {
		return true
	}
	if len(code) < 1 || len(code) > MaxCode || !utf8.ValidString(code) || !norm.NFC.IsNormalString(code) {
		return false
	}
	for segment := range strings.SplitSeq(code, "/") {
		if segment == "" || segment == "." || segment == ".." || !isSegment(segment) {
			return false
		}
	}
	return true
}

const (
	joiner    = '\u200d' // joins two emoji to one
	nonJoiner = '\u200c'
	asEmoji   = '\ufe0f' // asks for the colored form of the character before it
	keycap    = '\u20e3'
	blackFlag = '🏴' // the tag letters behind it name a country

	blankBraille, object = '\u2800', '\ufffc' // symbols that cannot be seen
)

func isSegment(segment string) bool {
	before := rune(0)
	for i, r := range segment {
		next, _ := utf8.DecodeRuneInString(segment[i+utf8.RuneLen(r):])
		var ok bool
		switch {
		case r < utf8.RuneSelf:
			ok = segmentByte[r]
		case r == asEmoji:
			ok = isEmoji(before) || '0' <= before && before <= '9' && next == keycap
		case r == joiner:
			ok = (isEmoji(before) || before == asEmoji) && isEmoji(next) || isVirama(before) && unicode.IsLetter(next)
		case r == nonJoiner:
			ok = (isVirama(before) || unicode.Is(unicode.Arabic, before)) && unicode.IsLetter(next)
		case isTag(r):
			ok = before == blackFlag || isTag(before)
		case unicode.Is(unicode.M, r):
			ok = before != 0 && !invisible(r)
		default:
			ok = (unicode.In(r, unicode.L, unicode.Nd) || isEmoji(r)) && !invisible(r)
		}
		if !ok {
			return false
		}
		before = r
	}
	return true
}

// isEmoji reports whether r is a symbol that can be seen. Most are in a category of
// their own, but Unicode also made emoji of some punctuation and arrows.
func isEmoji(r rune) bool {
	if unicode.Is(unicode.So, r) {
		return r != blankBraille && r != object && r != utf8.RuneError
	}
	return strings.ContainsRune("‼⁉ℹ↔◻◼◽◾⤴⤵〰〽🏻🏼🏽🏾🏿", r)
}

// isVirama reports whether r joins two letters to one, in scripts of India. A joiner
// behind it chooses the form of the result.
func isVirama(r rune) bool {
	const class = 9 // of combining marks
	return r >= utf8.RuneSelf && norm.NFC.PropertiesString(string(r)).CCC() == class
}

func isTag(r rune) bool { return 0xe0020 <= r && r <= 0xe007f }

func invisible(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// NewCode draws a random code of n characters of base 62. n should be from 1 to
// MaxCode; any other is replaced by the nearest bound. The code is never a reserved
// word.
func NewCode(n int) string {
	n = min(max(n, 1), MaxCode)
	for {
		if code := draw(n); !Reserved(code) {
			return code
		}
	}
}

// draw returns n characters of base 62, each equally likely.
func draw(n int) string {
	// 248 is the greatest multiple of 62 that a byte holds. Bytes from there on are
	// drawn again, since their remainders would make the first digits more likely.
	const unbiased = 248
	var pool [MaxCode]byte
	code := make([]byte, 0, MaxCode)
	for len(code) < n {
		random := pool[:n-len(code)]
		_, _ = rand.Read(random) // never fails: it ends the process instead
		for _, b := range random {
			if b < unbiased {
				code = append(code, base62[b%62])
			}
		}
	}
	return string(code)
}

// maxWords bounds a code that is made of words, in bytes.
const maxWords = 40

// CodeOf returns a code in the words of a title, or else of the last segment of the path of
// a target: small letters and digits of any script, and hyphens between them. It returns ""
// if neither has two of them in a row that are not all digits.
func CodeOf(title, target string) string {
	if code := wordsOf(title); code != "" {
		return code
	}
	u, err := url.Parse(strings.TrimSpace(target))
	if err != nil {
		return ""
	}
	segment := path.Base(strings.TrimRight(u.Path, "/"))
	return wordsOf(strings.TrimSuffix(segment, path.Ext(segment)))
}

// wordsOf returns the words of a text as a code. Words that would make it too long are left
// out.
func wordsOf(text string) string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
	code := ""
	for _, word := range words {
		next := NormalCode(strings.TrimPrefix(code+"-"+word, "-"))
		if len(next) > maxWords {
			break
		}
		code = next
	}
	if len(code) < 2 || !strings.ContainsFunc(code, unicode.IsLetter) || CheckDomainCode(code) != nil {
		return ""
	}
	return code
}
