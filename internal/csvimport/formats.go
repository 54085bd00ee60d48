package csvimport

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// FormatSignpost is the name of Signpost's own formats.
const FormatSignpost = "signpost"

// Canonical names of columns, as the API calls the fields.
const (
	colID             = "id"
	colUsername       = "username"
	colEmail          = "email"
	colCreatedAt      = "created_at"
	colUserID         = "user_id"
	colDomain         = "domain"
	colShortCode      = "short_code"
	colOriginalURL    = "original_url"
	colTitle          = "title"
	colTags           = "tags"
	colIsActive       = "is_active"
	colExpiresAt      = "expires_at"
	colRedirectStatus = "redirect_status"
	colForwardQuery   = "forward_query"
	colImportedClicks = "imported_clicks"
	colUpdatedAt      = "updated_at"
	colURLID          = "url_id"
	colEventType      = "event_type"
	colTimestamp      = "timestamp"
	colDetails        = "details"
)

// Canonical names of the columns, beside short_code, that a short code is taken from. A
// file may have several of them. The code is taken from the first in this order that a
// record fills.
const (
	colSlug      = "slug"             // a path: /code/
	colCustomURL = "custom_short_url" // a short URL with a code that someone chose
	colShortURL  = "short_url"        // a short URL
)

// A format is a kind of file, recognized by its header.
type format struct {
	name string
	kind Kind
	// columns maps folded header names to canonical ones; those in ignored are
	// known and not read.
	columns map[string]string
	ignored []string
	// required lists the canonical columns that every row needs.
	required []string
	// marks are folded header names that tell this format from others: the header must
	// have all of them. Signpost's own formats have none and are tried last.
	marks []string
	// sure are folded header names that decide on their own: a header that has all of
	// them is of this format, whatever marks of other formats it has. Empty for none.
	sure []string
	// headless: the file has no header, and these columns in this order.
	headless bool
	// expected lists the columns that a message names, the required ones first.
	expected []string
}

// formats is in the order of recognition: those with marks before Signpost's own.
var formats = append(ofLinks(foreign),
	own(KindUsers,
		[]string{colUsername, colEmail},
		[]string{colID, colCreatedAt}),
	own(KindLinks,
		[]string{colOriginalURL},
		[]string{
			colUserID, colShortCode, colTitle, colTags, colIsActive, colExpiresAt, colRedirectStatus,
			colForwardQuery, colImportedClicks, colID, colCreatedAt, colUpdatedAt, colDomain,
		},
		"clicks", "shorturl"),
	own(KindEvents,
		[]string{colURLID, colEventType, colTimestamp},
		[]string{colID, colUserID, colDetails}),
)

// ofLinks completes the formats of other shorteners: all are of links, which need a
// target.
func ofLinks(formats []format) []format {
	for i := range formats {
		formats[i].kind, formats[i].required = KindLinks, []string{colOriginalURL}
	}
	return formats
}

func own(kind Kind, required, optional []string, ignored ...string) format {
	expected := append(slices.Clone(required), optional...)
	columns := make(map[string]string, len(expected))
	for _, name := range expected {
		columns[fold(name)] = name
	}
	f := format{
		name: FormatSignpost, kind: kind, columns: columns, ignored: ignored,
		required: required, expected: expected,
	}
	if kind == KindLinks {
		// Other formats call at least one of the two something else. A path, source or
		// target column beside both of them is one that the user added.
		f.sure = []string{fold(colOriginalURL), fold(colShortCode)}
	}
	return f
}

// fold returns the form in which header names are compared: case, spaces, underscores
// and hyphens make no difference.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || unicode.IsSpace(r) || r == '\ufeff' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// shown makes a header name fit for a message.
func shown(name string) string {
	name = strings.TrimSpace(strings.ToValidUTF8(name, "?"))
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
	return shorten(name, 40)
}

// shorten returns at most so many characters of a text, and always valid UTF-8.
func shorten(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}

func shownAll(header []string) []string {
	const limit = 20
	names := make([]string, 0, min(len(header), limit+1))
	for i, name := range header {
		if i == limit {
			return append(names, fmt.Sprintf("and %d more", len(header)-limit))
		}
		if name = shown(name); name == "" {
			name = fmt.Sprintf("(column %d has no name)", i+1)
		}
		names = append(names, name)
	}
	return names
}

// A match is how well a header fits a format.
type match struct {
	format  *format
	columns []string
	ignored []string
	known   int
	missing []string
	twice   string // message about a column that is there twice
}

// matchHeader reads header as one of format f. mapping has folded names and takes
// precedence over the format's own columns; "" in it ignores a column.
func matchHeader(f *format, header []string, mapping map[string]string) match {
	m := match{format: f, columns: make([]string, len(header))}
	first := map[string]string{}
	for i, name := range header {
		canonical, mapped := mapping[fold(name)]
		if !mapped {
			canonical = f.columns[fold(name)]
		}
		if canonical == "" {
			if slices.Contains(f.ignored, fold(name)) {
				m.known++
			}
			m.ignored = append(m.ignored, ignoredName(name, i))
			continue
		}
		if before, ok := first[canonical]; ok && m.twice == "" {
			m.twice = fmt.Sprintf("the columns %s and %s both mean %s", before, shown(name), canonical)
		}
		first[canonical] = shown(name)
		m.columns[i] = canonical
		m.known++
	}
	for _, name := range f.required {
		if !slices.Contains(m.columns, name) {
			m.missing = append(m.missing, name)
		}
	}
	return m
}

func ignoredName(name string, position int) string {
	if name = shown(name); name != "" {
		return name
	}
	return fmt.Sprintf("column %d", position+1)
}

// hasAll reports whether header has every one of the folded names.
func hasAll(header, names []string) bool {
	for _, want := range names {
		if !slices.ContainsFunc(header, func(name string) bool { return fold(name) == want }) {
			return false
		}
	}
	return true
}

// candidates returns the formats of kind that header may be: the one that the upload
// named, or else those whose marks the header has, in order of recognition.
func candidates(kind Kind, name string, header []string) []*format {
	var list []*format
	for i := range formats {
		f := &formats[i]
		switch {
		case f.kind != kind || f.headless:
		case name != "" && f.name != name:
		case name == "" && f.sure != nil && hasAll(header, f.sure):
			return []*format{f}
		case name != "" || hasAll(header, f.marks):
			list = append(list, f)
		}
	}
	return list
}

// foldedMapping is the mapping by folded names.
func (o SplitOptions) foldedMapping() map[string]string {
	mapping := make(map[string]string, len(o.Mapping))
	for name, canonical := range o.Mapping {
		mapping[fold(name)] = canonical
	}
	return mapping
}

// recognize returns the best match of header among the formats of kind. The match's
// missing and twice say if something is wrong with it.
func recognize(kind Kind, header []string, opts SplitOptions) match {
	mapping := opts.foldedMapping()
	var best match
	for _, f := range candidates(kind, opts.Format, header) {
		m := matchHeader(f, header, mapping)
		if best.format == nil || len(m.missing) < len(best.missing) {
			best = m
		}
	}
	return best
}

// isHeadless reports whether name is the name of a format without a header.
func isHeadless(name string) bool {
	return slices.ContainsFunc(formats, func(f format) bool { return f.headless && f.name == name })
}

// FormatNames lists the formats of kind, in the order of recognition.
func FormatNames(kind Kind) []string {
	var names []string
	for i := range formats {
		if formats[i].kind == kind && !slices.Contains(names, formats[i].name) {
			names = append(names, formats[i].name)
		}
	}
	return names
}

// ownFormat returns Signpost's own format of kind.
func ownFormat(kind Kind) *format {
	for i := range formats {
		if f := &formats[i]; f.kind == kind && f.name == FormatSignpost {
			return f
		}
	}
	return nil // never: each kind has one
}

// columnNames lists the canonical columns of kind.
func columnNames(kind Kind) []string { return ownFormat(kind).expected }

// mappable lists the canonical columns that a mapping may name.
func mappable(kind Kind) []string {
	names := columnNames(kind)
	if kind == KindLinks {
		names = append(slices.Clone(names), colShortURL, colSlug)
	}
	return names
}
