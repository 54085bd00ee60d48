package csvimport

import (
	"errors"
	"net/url"
	"strings"

	"github.com/signpost/signpost/internal/links"
)

// codeColumns are the positions that a link's short code may be read from.
type codeColumns struct {
	code, slug, custom, short int
}

func (l Layout) codeColumns() codeColumns {
	return codeColumns{
		code: l.position(colShortCode), slug: l.position(colSlug),
		custom: l.position(colCustomURL), short: l.position(colShortURL),
	}
}

// HasCodes reports whether the file has any column, under whatever name, that a link's
// short code is taken from.
func (l Layout) HasCodes() bool {
	return l.codeColumns() != codeColumns{code: -1, slug: -1, custom: -1, short: -1}
}

// of returns the short code of record, which is not yet checked against the rules of
// codes, and the host of the short URL that the code was taken from; "" if the record
// has none. A short URL in which no code can be found is an error.
func (c codeColumns) of(record Record, restore bool) (code, host string, err error) {
	if code := record.field(c.code); code != "" {
		if restore {
			code = Restore(code)
		}
		return links.NormalCode(code), "", nil
	}
	for _, position := range [...]int{c.slug, c.custom, c.short} {
		value := record.field(position)
		if restore {
			value = Restore(value)
		}
		if value = trim(value); value == "" {
			continue
		}
		code = strings.Trim(value, "/")
		if position != c.slug {
			code, host, err = codeIn(value)
		}
		if err == nil && code == "" {
			err = errNoCode
		}
		return links.NormalCode(code), host, err
	}
	return "", "", nil
}

var (
	errNoCode    = errors.New("must have a code, such as spring or https://sign.example/spring")
	errCodeQuery = errors.New("must have no ? or # behind its code: without what follows, it would be another link")
	errCodePath  = errors.New("must not contain a % without two hexadecimal digits after it")
)

// codeIn returns the code in a short URL and its host. The URL may lack its scheme, or
// everything but the code. All codes also answer under /r/, so an r/ before the code is
// not part of it.
func codeIn(value string) (code, host string, err error) {
	rest, isURL := strings.CutPrefix(value, "//")
	if !isURL {
		_, rest, isURL = strings.Cut(value, "://")
	}
	path := value
	if isURL {
		host, path, _ = strings.Cut(rest, "/")
	} else if strings.ContainsAny(value, "./") { // d.example is a host
		host, path, _ = strings.Cut(value, "/")
	}
	if strings.ContainsAny(path, "?#") {
		return "", "", errCodeQuery
	}
	code, err = url.PathUnescape(strings.TrimPrefix(strings.Trim(path, "/"), "r/"))
	if err != nil {
		return "", "", errCodePath
	}
	return code, host, nil
}
