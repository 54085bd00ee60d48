package csvimport

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	// maxDetails is the greatest length of an event's details in bytes, as jsonb writes
	// them: with a space after each comma and colon, and numbers in full. Exported
	// details are of that length, so all that was exported can be imported.
	//
	// The largest details that Signpost writes are a change of everything about a link:
	// three targets, two titles and two lists of tags, 36 KiB in all. As a cell with
	// doubled quotes they are half as long again, which still fits a record
	// (DefaultMaxRecord).
	maxDetails = 40 << 10
	// maxDepth is how deep details may be nested.
	maxDepth = 32
	// maxDigits is the greatest length of a number that is written in full. It is
	// within what a Postgres numeric holds.
	maxDigits = 1000
)

// checkDetails returns the fault of an event's details, "" if there is none.
// All that it accepts, Postgres accepts as jsonb, which is stricter than JSON: no
// NUL, no half of a surrogate pair, no number beyond all measure.
func checkDetails(details string) string {
	body := strings.TrimLeft(details, " \t\r\n")
	if body == "" || body[0] != '{' || !json.Valid([]byte(details)) {
		return "must be a JSON object"
	}
	depth, quoted, written := 0, false, 0
	for i := 0; i < len(body); i++ {
		start, size := i, 0 // size counts bytes that are written in addition to the characters themselves
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			skip, ok := checkEscape(body[i:])
			if !ok {
				return "must not contain \\u0000 or half of a surrogate pair"
			}
			i += skip
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return "must not be nested more than " + strconv.Itoa(maxDepth) + " deep"
			}
		case c == '}' || c == ']':
			depth--
		case c == ',' || c == ':':
			size = 1
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			size = -1
		case c == '-' || c-'0' <= 9:
			number := leadingNumber(body[i:])
			i += len(number) - 1
			size = inFull(number) - len(number)
			if size+len(number) > maxDigits {
				return "must not contain numbers of more than " + strconv.Itoa(maxDigits) + " digits"
			}
		}
		written += i + 1 - start + size
	}
	if written > maxDetails {
		return "must be at most " + strconv.Itoa(maxDetails) + " bytes, written with a space after each comma and colon and with numbers in full"
	}
	return ""
}

// checkEscape checks the escape sequence at the start of s, which is valid JSON, and
// returns how many bytes follow its backslash.
func checkEscape(s string) (skip int, ok bool) {
	if s[1] != 'u' {
		return 1, true
	}
	unit := hexUnit(s[2:6])
	if unit == 0 {
		return 5, false
	}
	if !utf16.IsSurrogate(unit) {
		return 5, true
	}
	if len(s) < 12 || s[6] != '\\' || s[7] != 'u' {
		return 5, false
	}
	return 11, utf16.DecodeRune(unit, hexUnit(s[8:12])) != '\ufffd'
}

func hexUnit(s string) rune {
	unit, _ := strconv.ParseUint(s, 16, 16) // valid JSON has four hexadecimal digits here
	return rune(unit)
}

// leadingNumber returns the number that valid JSON has at the start of s.
func leadingNumber(s string) string {
	n := 0
	for n < len(s) && (s[n]-'0' <= 9 || strings.IndexByte("+-.eE", s[n]) >= 0) {
		n++
	}
	return s[:n]
}

// inFull returns the length of a number as jsonb writes it, without an
// exponent; more than maxDigits if it is too long to be told.
func inFull(number string) int {
	mantissa, power, _ := strings.Cut(strings.ToLower(number), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	exponent := 0
	if power != "" {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil || max(exponent, -exponent) > maxDetails {
			return maxDigits + 1
		}
	}
	sign := len(whole) - len(strings.TrimPrefix(whole, "-"))
	size := sign + max(1, len(whole)-sign+exponent)
	if decimals := len(fraction) - exponent; decimals > 0 {
		size += 1 + decimals
	}
	return size
}
