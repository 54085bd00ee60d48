package linkcache

import (
	"time"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

// A Link is the part of a link that a redirect needs. A Link that [Cache.Lookup]
// returned is shared and must not be changed.
//
// Snapshots and Redis store the fields under the numbers in the tags. When fields are
// added or removed, the layout changes, so that no release reads links of a release
// with other fields.
type Link struct {
	ID     int64 `cbor:"1,keyasint"`
	UserID int64 `cbor:"2,keyasint"`
	// Target is where the link leads, as [links.Location] writes it.
	Target string `cbor:"3,keyasint"`
	Active bool   `cbor:"4,keyasint"`
	// ExpiresAt is when the link ends; the zero time means never.
	ExpiresAt time.Time `cbor:"5,keyasint,omitzero"`
	// Status is the HTTP status of the redirect: 301, 302, 307 or 308.
	Status       int  `cbor:"6,keyasint"`
	ForwardQuery bool `cbor:"7,keyasint,omitempty"`
	// Version grows with every change of this link. If two links had the same code one
	// after the other, their versions do not say which of them is newer.
	Version int64 `cbor:"8,keyasint"`
}

// linkOf turns a row into its key and link. It is the only place that does.
func linkOf(row queries.ResolveLinksRow) (Key, *Link) {
	link := &Link{
		ID: row.ID, UserID: row.UserID, Target: links.Location(row.OriginalURL), Active: row.IsActive,
		Status: int(row.RedirectStatus), ForwardQuery: row.ForwardQuery, Version: row.Version,
	}
	if row.ExpiresAt != nil {
		link.ExpiresAt = *row.ExpiresAt
	}
	return NewKey(row.DomainID, row.ShortCode), link
}

// valid reports whether a link that was read from a file or from Redis may be served.
func (l *Link) valid() bool {
	return l != nil && l.Status >= 300 && l.Status <= 399 && l.Target != "" && len(l.Target) <= 3*links.MaxTarget
}
