package csvimport

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	// maxDetails is the greatest length of an event's details in bytes.
	maxDetails = 32 << 10 // more than any change that the API records
	// maxDepth is how deep details may be nested.
	maxDepth = 32
	// maxExponent keeps numbers within what a Postgres numeric holds.
	maxExponent = 1000
)

// checkDetails says what is wrong with an event's details, "" if nothing is.
// What it accepts, Postgres accepts as jsonb, which is stricter than JSON: no
// NUL, no half of a surrogate pair, no number beyond all measure.
func checkDetails(details string) string {
	const reason = "must be a JSON object"
	if len(details) > maxDetails {
		return "must be at most " + strconv.Itoa(maxDetails) + " bytes"
	}
	body := strings.TrimLeft(details, " \t\r\n")
	if body == "" || body[0] != '{' || !json.Valid([]byte(details)) {
		return reason
	}
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
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
		case c == 'e' || c == 'E':
			if !smallExponent(body[i:]) {
				return "must not contain numbers with an exponent beyond " + strconv.Itoa(maxExponent)
			}
		}
	}
	return ""
}

// checkEscape judges the escape that valid JSON has at the start of s, and says
// how many bytes follow its backslash.
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

// smallExponent judges the e at the start of s: of a number, or of true or
// false, which have no digits after it.
func smallExponent(s string) bool {
	digits := strings.TrimLeft(s[1:], "+-")
	digits = strings.TrimLeft(digits, "0")
	n, exponent := 0, 0
	for n < len(digits) && digits[n]-'0' <= 9 {
		if exponent = exponent*10 + int(digits[n]-'0'); exponent > maxExponent {
			return false
		}
		n++
	}
	return true
}
