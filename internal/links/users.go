package links

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxUsername is the greatest length of a username in characters.
	MaxUsername = 64
	// MaxEmail is the greatest length of an e-mail address in bytes (RFC 5321).
	MaxEmail = 254
)

// CheckUsername returns nil if name may be a username, and otherwise ErrUsername. A
// username is 1 to MaxUsername printable characters of valid UTF-8, without a space at
// either end.
func CheckUsername(name string) error {
	if name == "" || longer(name, MaxUsername) || !utf8.ValidString(name) {
		return ErrUsername
	}
	if name[0] == ' ' || name[len(name)-1] == ' ' {
		return ErrUsername
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return ErrUsername
		}
	}
	return nil
}

// CheckEmail returns nil if email is an address by RFC 5322 and nothing else: no
// display name, no comment, no angle brackets, at most MaxEmail bytes. Otherwise it
// returns ErrEmail.
func CheckEmail(email string) error {
	if email == "" || len(email) > MaxEmail {
		return ErrEmail
	}
	if commonEmail(email) {
		return nil
	}
	if !utf8.ValidString(email) || strings.IndexFunc(email, unprintable) >= 0 {
		return ErrEmail
	}
	address, err := mail.ParseAddress(email)
	if err != nil || address.Name != "" {
		return ErrEmail
	}
	// Comments and folding white space are valid for the parser, but are not part of
	// address.Address.
	at := strings.LastIndexByte(address.Address, '@')
	if at < 1 || at == len(address.Address)-1 || address.Address != email {
		return ErrEmail
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// commonEmail reports whether email is of the plain kind that nearly all addresses are
// (dot-atoms of letters, digits and - _ +). An import then need not call the parser for
// them. net/mail accepts every address that commonEmail accepts.
func commonEmail(email string) bool {
	ats, atom := 0, 0
	for i := range len(email) {
		switch c := email[i]; {
		case codeByte[c] || c == '+':
			atom++
		case c == '.' && atom > 0:
			atom = 0
		case c == '@' && atom > 0:
			ats++
			atom = 0
		default:
			return false
		}
	}
	return ats == 1 && atom > 0
}
