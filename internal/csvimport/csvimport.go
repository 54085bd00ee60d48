// Package csvimport reads CSV files of users, links and events: it recognizes
// a file's encoding, delimiter and columns, cuts it into chunks of whole
// records in bounded memory, and applies the row rules to each record. It knows
// neither HTTP nor a database.
//
// A [Splitter] cuts the upload. A worker later needs only a chunk's bytes and the
// file's [Layout]: with them [Layout.Records] reads the same records again, and a
// [Parser] makes rows of them. A wrong row is a [Reject]. Only a file that cannot be
// read as one of its kind at all is an error ([FormatError]).
package csvimport

import (
	"fmt"
	"strings"
)

// A Kind says whether the rows of a file are users, links or events.
type Kind string

// The kinds, as the API spells them.
const (
	KindUsers  Kind = "users"
	KindLinks  Kind = "urls"
	KindEvents Kind = "events"
)

// ParseKind returns the kind that s names.
func ParseKind(s string) (Kind, error) {
	switch kind := Kind(s); kind {
	case KindUsers, KindLinks, KindEvents:
		return kind, nil
	}
	return "", fmt.Errorf("kind must be %s, %s or %s", KindUsers, KindLinks, KindEvents)
}

// A Layout says how a file's records are to be read. It is stored with the
// import as JSON, and read by workers of this release and the next: fields are
// added, never changed.
type Layout struct {
	Kind   Kind   `json:"kind"`
	Format string `json:"format"` // name of the recognized format
	// Delimiter is one byte: comma, semicolon, tab or pipe.
	Delimiter string `json:"delimiter"`
	// Columns holds the canonical name of each position, "" for an ignored one.
	Columns []string `json:"columns"`
	// Header is the header as it is in the file; nil if the file has none. For a mended
	// file it is the header of the original file.
	Header []string `json:"header"`
	// Ignored names the first columns of the file that are not read, up to
	// maxIgnored. Imports of earlier releases have all of them.
	Ignored []string `json:"ignored"`
	// IgnoredTotal is how many columns are ignored, if Ignored does not name all of
	// them.
	IgnoredTotal int `json:"ignored_total,omitempty"`
	// Mapping is the mapping that the upload named (see [SplitOptions]).
	Mapping map[string]string `json:"mapping,omitempty"`
	// Lenient is always true. The previous release reads no other imports.
	Lenient bool `json:"lenient,omitempty"`
	// Escape is EscapeBackslash in a file that writes a quote within quotes as \".
	Escape string `json:"escape,omitempty"`
	// Timezone is the IANA name of the time zone of times that name none; "" is UTC.
	Timezone string `json:"timezone,omitempty"`
	// Domain is the host of links whose row names no domain; "" is the main one.
	Domain string `json:"domain,omitempty"`
	// Mended says that the file holds rejected rows that were given back to be mended
	// (see [Layout.MendHeader]): its cells are neutralized.
	Mended bool `json:"mended,omitempty"`
	// Encoding is the file's encoding; "" in imports of earlier releases, which do
	// not say. Chunks are in UTF-8 whatever it is.
	Encoding Encoding `json:"encoding,omitempty"`
	// Marked says that the file begins with a byte order mark.
	Marked bool `json:"marked,omitempty"`
	// MaxRecord is the greatest length of a record in bytes.
	MaxRecord int `json:"max_record"`
}

// maxIgnored is how many of the ignored columns are named: a file may have thousands.
const maxIgnored = 50

// IgnoredColumns names the first columns of the file that are not read, at most
// maxIgnored, and returns how many there are.
func (l Layout) IgnoredColumns() (first []string, total int) {
	if l.Ignored == nil {
		return []string{}, 0
	}
	return l.Ignored[:min(len(l.Ignored), maxIgnored)], max(len(l.Ignored), l.IgnoredTotal)
}

// Has reports whether the file has the column with this canonical name.
func (l Layout) Has(column string) bool { return l.position(column) >= 0 }

func (l Layout) position(column string) int {
	for i, name := range l.Columns {
		if name == column {
			return i
		}
	}
	return -1
}

// columnName is the name of a column in a Reject: its canonical name, else its name
// in the file.
func (l Layout) columnName(position int) string {
	switch {
	case position < len(l.Columns) && l.Columns[position] != "":
		return l.Columns[position]
	case position < len(l.Header) && strings.TrimSpace(l.Header[position]) != "":
		return shown(l.Header[position])
	}
	return fmt.Sprintf("column %d", position+1-l.added())
}

// A FormatError says why a file as a whole cannot be read: the content that was found
// and the content that is expected. Its text can be shown to users.
type FormatError struct {
	Reason   string   // such as "the file is empty"
	Field    string   // the option that is at fault, such as mapping; "" for the file
	Found    []string // columns found, shortened; nil if it did not come to that
	Expected []string // columns of the kind; the required ones first
}

func (e *FormatError) Error() string {
	text := e.Reason
	if e.Found != nil {
		text += "; found the columns " + strings.Join(e.Found, ", ")
	}
	if e.Expected != nil {
		text += "; expected " + strings.Join(e.Expected, ", ")
	}
	return text
}

// A Reject says why one row was not imported.
type Reject struct {
	Line int64 // physical line the record begins on; the first line is 1
	// Column is the canonical name of the first column at fault, or its name in the
	// file if it has no canonical one, or "" if the whole record is at fault.
	Column string
	Kind   ProblemKind
	Reason string // fit for users; follows the column's name
	// Raw is the record as it is in the file (in UTF-8), without its line end;
	// cut if it is longer than a record may be. It may be any bytes.
	Raw string
}
