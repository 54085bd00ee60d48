package linkcache

import (
	"context"
	"fmt"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

// A Domain is a host name of short links. Each of the URLs says where visitors are
// sent: those of the bare address, of a code without a link, and of a link that has
// ended. It is written as [links.Location] does, and empty if it is not set. The host of
// the main domain is empty.
type Domain struct {
	ID          int64  `cbor:"1,keyasint"`
	Host        string `cbor:"2,keyasint,omitempty"`
	RootURL     string `cbor:"3,keyasint,omitempty"`
	NotFoundURL string `cbor:"4,keyasint,omitempty"`
	ExpiredURL  string `cbor:"5,keyasint,omitempty"`
}

// domainTable holds all domains as of a version. It is never changed.
type domainTable struct {
	Version int64    `cbor:"1,keyasint"`
	All     []Domain `cbor:"2,keyasint,omitempty"`

	main  *Domain
	hosts map[string]*Domain // without the main one
}

func newDomainTable(version int64, all []Domain) *domainTable {
	t := &domainTable{Version: version, All: all, main: &Domain{ID: MainDomain}, hosts: make(map[string]*Domain, len(all))}
	for i := range all {
		if d := &all[i]; d.ID == MainDomain {
			t.main = d
		} else {
			t.hosts[d.Host] = d
		}
	}
	return t
}

// Domain returns the domain of a host as it is in a request: in any case, with or
// without a port. For an unknown host it returns the main domain. It answers from
// memory and allocates nothing. host may alias a buffer that is reused after the call.
// The domain is shared and must not be changed.
func (c *Cache) Domain(host string) *Domain {
	t := c.domains.Load()
	if len(t.hosts) == 0 {
		return t.main
	}
	var lower [links.MaxHost + len(":65535")]byte
	if len(host) > len(lower) {
		return t.main
	}
	name := lower[:0]
	for i := range len(host) {
		b := host[i]
		if b == ':' {
			break
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		name = append(name, b)
	}
	if n := len(name); n > 0 && name[n-1] == '.' { // the root of all names may be named
		name = name[:n-1]
	}
	if d := t.hosts[string(name)]; d != nil {
		return d
	}
	return t.main
}

// KnowsDomains reports whether this process has read the domains since its first start,
// or has them from its snapshot. Before that, [Cache.Domain] takes every host for the
// main domain.
func (c *Cache) KnowsDomains() bool { return c.domains.Load().Version != 0 }

// locationOf returns where a redirect to a URL leads, "" if there is no URL.
func locationOf(url string) string {
	if url == "" {
		return ""
	}
	return links.Location(url)
}

// readDomains reads all domains again.
func (c *Cache) readDomains(ctx context.Context, q *queries.Queries, version int64) error {
	rows, err := q.ListLinkDomains(ctx)
	if err != nil {
		return fmt.Errorf("read the domains: %w", err)
	}
	all := make([]Domain, len(rows))
	for i, r := range rows {
		all[i] = Domain{
			ID: r.ID, Host: r.Host, RootURL: locationOf(r.RootURL),
			NotFoundURL: locationOf(r.NotFoundURL), ExpiredURL: locationOf(r.ExpiredURL),
		}
	}
	table := newDomainTable(version, all)
	c.applying.Lock()
	defer c.applying.Unlock()
	if c.journal != nil {
		c.journal.append(encode(record{Domains: table}))
	}
	c.domains.Store(table)
	c.dirty.Store(true)
	return nil
}
