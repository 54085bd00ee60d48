package links

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTarget is the greatest length of a target in bytes, both as it is stored and as it
// is sent (see [Location]). With it, the head of a redirect fits into the buffers of
// proxies.
const MaxTarget = 8192

// CleanTarget takes off characters that pasting leaves at both ends of a target
// (blanks, line ends, zero-width characters). It checks whether the rest may be a
// link's target: an absolute http or https URL whose host is a DNS name, an IPv4 or an
// IPv6 address. The rest may hold characters that are not allowed in a URL, such as
// spaces and letters of any script; [Location] writes them as a browser does. It must
// not hold anything that a browser reads differently from a person: user names,
// backslashes before the query, control characters and those that change the direction
// of text.
//
// Links of this service itself are refused, since they would redirect in circles. own
// are the hosts on which this service answers, custom domains included.
//
// The first result is always the target as it is to be stored. The error is nil, one of
// the ErrTarget values, or a [SchemeError]. For a target in plain ASCII, CleanTarget
// does not allocate.
func CleanTarget(raw string, own Hosts) (string, error) {
	target := strings.TrimFunc(raw, surrounds)
	return target, checkTarget(target, own)
}

// surrounds reports whether r is a character that is left at the ends of a target by
// mistake.
func surrounds(r rune) bool {
	switch r {
	case '\u180e', '\u200b', '\u200c', '\u200d', '\u2060', '\ufeff': // zero width
		return true
	}
	return unicode.IsSpace(r) || unicode.Is(unicode.Bidi_Control, r)
}

func checkTarget(target string, own Hosts) error {
	if target == "" {
		return ErrTargetEmpty
	}
	if len(target) > MaxTarget {
		return ErrTargetLength
	}
	if err := checkCharacters(target); err != nil {
		return err
	}
	scheme, rest, found := strings.Cut(target, "://")
	if !found || !isWeb(scheme) {
		return schemeFault(target, own)
	}
	authority, _ := cutAuthority(rest)
	if strings.Contains(authority, "@") {
		return ErrTargetUserinfo
	}
	host, port, err := splitAuthority(authority)
	if err != nil {
		return err
	}
	location := Location(target)
	if len(location) > MaxTarget {
		return ErrTargetLength
	}
	if own.leadTo(location, scheme, host, port) {
		return ErrTargetOwn
	}
	return nil
}

// checkCharacters refuses characters that no part of a target may hold, and backslashes
// where a browser takes them for slashes.
func checkCharacters(target string) error {
	ascii, ended := true, false
	for i := range len(target) {
		switch c := target[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
		case c < ' ' || c == 0x7f:
			return ErrTargetControl
		case c == '?' || c == '#':
			ended = true
		case c == '\\' && !ended:
			return ErrTargetBackslash
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(target) {
		return ErrTargetEncoding
	}
	for _, r := range target {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\ufeff' {
			return ErrTargetControl
		}
	}
	return nil
}

func isWeb(scheme string) bool {
	// The long s is equal to an s here, but it has two bytes.
	return len(scheme) <= len("https") && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// cutAuthority splits the text after "://" into host and port, and the rest.
func cutAuthority(rest string) (authority, tail string) {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return rest[:i], rest[i:]
	}
	return rest, ""
}

// A SchemeError is an ErrTargetScheme for a target that is valid except for its scheme.
type SchemeError struct {
	Suggestion string // the target with its scheme
}

func (e SchemeError) Error() string {
	return ErrTargetScheme.Error() + ", such as " + e.Suggestion
}

// Is makes errors.Is find an ErrTargetScheme.
func (e SchemeError) Is(err error) bool { return err == ErrTargetScheme }

// maxSuggestion bounds the length of a suggestion in bytes, because a person reads the
// message.
const maxSuggestion = 255

// schemeFault returns the error of a target that does not begin with http:// or
// https://.
func schemeFault(target string, own Hosts) error {
	prefix, rest := "https://", strings.TrimPrefix(strings.TrimPrefix(target, ":"), "//")
	if scheme, after := cutScheme(target); scheme != "" {
		switch {
		case isWeb(scheme): // https:/example.com
			prefix, rest = strings.ToLower(scheme)+"://", strings.TrimLeft(after, "/")
		case !isSite(scheme) || after == "" || !isDigit(after[0]): // not example.com:8080
			return ErrTargetOther
		}
	}
	suggestion := prefix + rest
	authority, _ := cutAuthority(rest)
	host, _, err := splitAuthority(authority)
	if err != nil || !isSite(host) || len(suggestion) > maxSuggestion || checkTarget(suggestion, own) != nil {
		return ErrTargetScheme
	}
	return SchemeError{suggestion}
}

// cutScheme splits a target at its first colon if the text before it is a scheme (RFC
// 3986, section 3.1). Otherwise scheme is "".
func cutScheme(target string) (scheme, rest string) {
	scheme, rest, found := strings.Cut(target, ":")
	if !found || scheme == "" || isDigit(scheme[0]) || strings.ContainsAny(scheme[:1], "+-.") {
		return "", target
	}
	for i := range len(scheme) {
		if c := scheme[i]; !isLetter(c) && !isDigit(c) && c != '+' && c != '-' && c != '.' {
			return "", target
		}
	}
	return scheme, rest
}

// isSite reports whether a person who writes host without a scheme means a site.
func isSite(host string) bool {
	return strings.ContainsAny(host, ".:") || strings.EqualFold(host, "localhost")
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
