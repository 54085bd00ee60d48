package links

import "crypto/rand"

const (
	// MaxCode is the greatest length of a short code in bytes.
	MaxCode = 64
	// CodeLength is how long a generated code is unless the space fills.
	CodeLength = 7
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// CheckCode reports whether code may be a link's short code: ErrCode,
// ErrCodeReserved or nil. Codes are case-sensitive; reserved words are refused
// in any case.
func CheckCode(code string) error {
	if !IsCode(code) {
		return ErrCode
	}
	if Reserved(code) {
		return ErrCodeReserved
	}
	return nil
}

// IsCode reports whether code is 1 to MaxCode letters, digits, - or _: what a
// short code looks like, reserved or not.
func IsCode(code string) bool {
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

var codeByte = func() (set [256]bool) {
	for _, c := range []byte(base62 + "-_") {
		set[c] = true
	}
	return set
}()

// NewCode draws a random code of n characters of base 62, n from 1 to MaxCode
// (others are brought to the nearest bound). It is never a reserved word.
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
	// 248 is the greatest multiple of 62 that a byte holds: bytes from there
	// on are drawn again, since their remainders would favor the first digits.
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
