package linkcache

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (b *bundle) domain(t *testing.T, host string) (id int64) {
	t.Helper()
	err := b.pool.QueryRow(context.Background(),
		"INSERT INTO domains (host, root_url) VALUES ($1, 'https://example.com/root') RETURNING id", host).Scan(&id)
	require.NoError(t, err)
	return id
}

// A host is found in any spelling, and an unknown host counts as the main domain.
func TestDomainOfAHost(t *testing.T) { //nolint:paralleltest // counts allocations
	b := setup(t, Options{})
	if d := b.Domain("go.example"); d.ID != MainDomain {
		t.Errorf("before anything was read it is %+v", d)
	}
	id := b.domain(t, "go.example")
	b.run(t)
	b.following(t)
	for host, want := range map[string]int64{
		"go.example": id, "GO.Example": id, "go.example:8080": id, "go.example.": id, "go.example.:443": id,
		"": MainDomain, "example": MainDomain, "x.go.example": MainDomain, "[::1]:80": MainDomain, "go.example..": MainDomain,
	} {
		if d := b.Domain(host); d.ID != want {
			t.Errorf("%q is domain %d, want %d", host, d.ID, want)
		}
	}
	if allocs := testing.AllocsPerRun(1000, func() { b.Domain("GO.example:8080") }); allocs >= 1 {
		t.Errorf("%v allocations", allocs)
	}
}

// A change of a domain is seen as soon as a change of a link, and not before it is
// committed.
func TestDomainsFollowChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.run(t)
	b.following(t)
	id := b.domain(t, "go.example")
	becomes := func(what string, ok func() bool) {
		t.Helper()
		began := time.Now()
		eventually(t, what, ok)
		t.Logf("%s after %s", what, time.Since(began))
	}
	becomes("a domain is there", func() bool { return b.Domain("go.example").ID == id })
	b.exec(t, "UPDATE domains SET expired_url = 'https://example.com/over' WHERE id = $1", id)
	becomes("it leads elsewhere", func() bool { return b.Domain("go.example").ExpiredURL == "https://example.com/over" })
	b.exec(t, "UPDATE domains SET not_found_url = 'https://example.com/none' WHERE id = 1")
	becomes("so does the main one", func() bool { return b.Domain("").NotFoundURL == "https://example.com/none" })
	b.exec(t, "DELETE FROM domains WHERE id = $1", id)
	becomes("it is gone", func() bool { return b.Domain("go.example").ID == MainDomain })
}

// The same code leads to another target on each domain. A link that moves is gone from
// its old domain.
func TestCodesOfDomains(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	id := b.domain(t, "go.example")
	b.link(t, "same")
	b.exec(t, "INSERT INTO urls (user_id, domain_id, short_code, original_url) VALUES ($1, $2, 'same', 'https://example.org/')", b.user, id)
	b.run(t)
	b.following(t)
	leads := func(c *bundle, domain int64) string {
		link, err := c.Lookup(t.Context(), NewKey(domain, "same"), c.now())
		if err != nil {
			return err.Error()
		}
		return link.Target
	}
	for domain, want := range map[int64]string{MainDomain: "https://example.com/same", id: "https://example.org/", 99: ErrNotFound.Error()} {
		if got := leads(b, domain); got != want {
			t.Errorf("on domain %d it leads to %s, want %s", domain, got, want)
		}
	}
	b.exec(t, "DELETE FROM urls WHERE domain_id = 1")
	b.exec(t, "UPDATE urls SET domain_id = 1 WHERE short_code = 'same'")
	eventually(t, "it has moved", func() bool {
		return leads(b, MainDomain) == "https://example.org/" && leads(b, id) == ErrNotFound.Error()
	})
	b.save(t)
	b.exec(t, "UPDATE domains SET expired_url = 'https://example.com/over' WHERE id = $1", id)
	eventually(t, "the domain leads elsewhere", func() bool { return b.Domain("go.example").ExpiredURL != "" })

	// A process that starts while Postgres is away knows domains and links, including
	// changes after the last snapshot.
	after := b.restart(t)
	if got := leads(after, MainDomain); got != "https://example.org/" {
		t.Errorf("after a restart it leads to %s", got)
	}
	if d := after.Domain("go.example"); d.ID != id || d.RootURL != "https://example.com/root" || d.ExpiredURL != "https://example.com/over" {
		t.Errorf("after a restart the domain is %+v", d)
	}
}
