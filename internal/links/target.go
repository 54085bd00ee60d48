package links

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTarget is the greatest length of a target in bytes, both as it is kept and
// as it is sent (see [Location]): with it the head of a redirect fits the buffers
// of proxies.
const MaxTarget = 8192

// CleanTarget takes off what pasting leaves at both ends of a target (blanks,
// line ends, zero-width characters) and reports whether the rest may be a link's
// target: an absolute http or https URL whose host is a DNS name, an IPv4 or an
// IPv6 address. Within, it may hold characters that have no place in a URL, such
// as spaces and letters of any script; [Location] writes them as a browser does.
// It may not hold anything that a browser reads differently from a person: user
// names, backslashes before the query, control characters and those that change
// the direction of text.
//
// Links of this service itself, which would redirect in circles, are refused:
// own are the hosts on which it answers, custom domains included.
//
// The result is the target as it is to be kept, in any case; beside it nil, one
// of the ErrTarget values or a [SchemeError]. For a target in plain ASCII it does
// not allocate.
func CleanTarget(raw string, own Hosts) (string, error) {
	target := strings.TrimFunc(raw, surrounds)
	return target, checkTarget(target, own)
}

// surrounds reports whether r is left at the ends of a target by mistake.
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

// checkCharacters refuses what no part of a target may hold, and backslashes
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
	// The long s folds to an s, and has two bytes.
	return len(scheme) <= len("https") && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// cutAuthority parts what follows "://" into host and port and all else.
func cutAuthority(rest string) (authority, tail string) {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return rest[:i], rest[i:]
	}
	return rest, ""
}

// A SchemeError is ErrTargetScheme about a target that is good but for its
// scheme.
type SchemeError struct {
	Suggestion string // the target with its scheme
}

func (e SchemeError) Error() string {
	return ErrTargetScheme.Error() + ", such as " + e.Suggestion
}

// Is makes it an ErrTargetScheme.
func (e SchemeError) Is(err error) bool { return err == ErrTargetScheme }

// maxSuggestion bounds how long a suggestion may be, in bytes: a message is read
// by a person.
const maxSuggestion = 255

// schemeFault says what is wrong with a target that does not begin with http://
// or https://.
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

// cutScheme parts a target at its first colon if a scheme is before it (RFC
// 3986, section 3.1); "" if there is none.
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

// isSite reports whether a person who writes host without a scheme means one.
func isSite(host string) bool {
	return strings.ContainsAny(host, ".:") || strings.EqualFold(host, "localhost")
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
