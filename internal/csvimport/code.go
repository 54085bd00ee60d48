package csvimport

import "strings"

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

// HasCodes reports whether the file has a column that a link's short code is
// taken from, whatever it is called.
func (l Layout) HasCodes() bool {
	return l.codeColumns() != codeColumns{code: -1, slug: -1, custom: -1, short: -1}
}

// of returns the short code of record, unchecked; "" if it has none.
func (c codeColumns) of(record Record, restore bool) string {
	if code := record.field(c.code); code != "" {
		if restore {
			return Restore(code)
		}
		return code
	}
	for _, position := range [...]int{c.slug, c.custom, c.short} {
		value := record.field(position)
		if restore {
			value = Restore(value)
		}
		if value = trim(value); value != "" {
			return codeIn(value, position == c.slug)
		}
	}
	return ""
}

// codeIn returns the code in a short URL, with or without its scheme, or in a
// path. A URL without a code is given back, for the rules to refuse it.
func codeIn(value string, path bool) string {
	code := value
	if !path {
		if _, rest, ok := strings.Cut(code, "://"); ok {
			code = rest
		}
		_, code, _ = strings.Cut(code, "/")
		if i := strings.IndexAny(code, "?#"); i >= 0 {
			code = code[:i]
		}
	}
	if code = strings.Trim(code, "/"); code == "" {
		return value
	}
	return code
}
