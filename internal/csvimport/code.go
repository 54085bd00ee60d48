package csvimport

import (
	"errors"
	"net/url"
	"strings"

	"github.com/signpost/signpost/internal/links"
)

// codeColumns are the columns that a link's short code is taken from: the first of them
// that a record fills.
var codeColumns = [...]string{colShortCode, colSlug, colCustomURL, colShortURL}

// givenCode returns the short code of the record, which is not yet checked against the
// rules of codes, and the host of the short URL that the code was taken from; "" if the
// record has none. A short URL in which no code can be found is an error.
func (r *row) givenCode() (code, host string, err error) {
	for _, column := range codeColumns {
		value := r.text(column)
		if column != colShortCode {
			value = trim(value)
		}
		switch {
		case value == "":
			continue
		case column == colShortCode:
			return links.NormalCode(value), "", nil
		case column == colSlug:
			code = strings.Trim(value, "/")
		default:
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
