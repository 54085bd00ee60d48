package linkcache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// These are codes with something glued to them. Postgres is asked once for both.
func TestLookupEither(t *testing.T) {
	t.Parallel()
	var loads atomic.Int64
	now := time.Now()
	b := setup(t, Options{Pool: afterLoads(t, func() { loads.Add(1) }), Now: func() time.Time { return now }})
	for _, code := range []string{"spring", "summer.", "both", "both."} {
		b.link(t, code)
	}
	tests := []struct {
		code, other, target string
		loads               int64
	}{
		{"none.", "none", "", 1},
		{"none.", "none", "", 0},
		{"spring.", "spring", "spring", 1},
		{"spring.", "spring", "spring", 0},
		{"spring!", "spring", "spring", 1},
		{"summer.", "summer", "summer.", 1},
		{"summer.", "summer", "summer.", 0},
		{"both.", "both", "both.", 1},
		{"both", "", "both", 0},
	}
	for _, test := range tests {
		before := loads.Load()
		link, err := b.LookupEither(t.Context(), k(test.code), k(test.other), b.now())
		switch {
		case test.target == "":
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%q or %q: %v, %v, want none", test.code, test.other, link, err)
			}
		case err != nil || link.Target != "https://example.com/"+test.target:
			t.Errorf("%q or %q leads to %v, %v, want %q", test.code, test.other, link, err, test.target)
		}
		if got := loads.Load() - before; got != test.loads {
			t.Errorf("%q or %q took %d loads, want %d", test.code, test.other, got, test.loads)
		}
	}
}

// While Postgres is away, a cached link is still found by its code with something glued
// to it.
func TestLookupEitherWithoutPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "spring")
	wantTarget(t, b, "spring", "https://example.com/spring")
	b.pool.Close()
	link, err := b.LookupEither(t.Context(), k("spring."), k("spring"), b.now())
	if err != nil || link.Target != "https://example.com/spring" {
		t.Errorf("spring. leads to %v, %v", link, err)
	}
	if link, err := b.LookupEither(t.Context(), k("summer."), k("summer"), b.now()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("summer. leads to %v, %v", link, err)
	}
}

// A flood of such codes costs one load each, and takes no places of links.
func TestFloodOfGluedCodes(t *testing.T) {
	t.Parallel()
	var loads atomic.Int64
	b := setup(t, Options{Pool: afterLoads(t, func() { loads.Add(1) })})
	b.link(t, "spring")
	if _, err := b.Lookup(t.Context(), k("spring"), b.now()); err != nil {
		t.Fatal(err)
	}
	loads.Store(0)
	const n = 500
	for i := range n {
		if _, err := b.LookupEither(context.Background(), k(fmt.Sprintf("no%d.", i)), k(fmt.Sprintf("no%d", i)), time.Now()); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if got := loads.Load(); got != n {
		t.Errorf("%d loads for %d codes", got, n)
	}
	if b.Len() != 1 || !b.isCached("spring") {
		t.Errorf("%d links are cached, want 1", b.Len())
	}
}
