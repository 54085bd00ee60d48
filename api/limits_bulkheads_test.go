package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// Whatever the size of the pool, lists, exports and imports together leave connections
// for other requests, as soon as the pool is large enough.
func TestBulkheadsOfAPool(t *testing.T) {
	t.Parallel()
	for conns := 2; conns <= 100; conns++ {
		s := newBulkheads(nil, conns)
		lists, exports, imports := cap(s.lists.places), cap(s.exports.places), cap(s.imports.places)
		if lists < 1 || exports < 1 || imports < 1 {
			t.Errorf("%d connections: %d lists, %d exports and %d imports; each must have one", conns, lists, exports, imports)
		}
		// Imports use their connections only briefly.
		slow, left := conns-lists-exports, conns-lists-exports-imports
		if slow < min(conns-2, writeConns) || conns > 3 && left < 1 || conns > 5 && left < writeConns {
			t.Errorf("%d connections: %d lists, %d exports and %d imports leave %d", conns, lists, exports, imports, left)
		}
	}
}

// Pieces of exports that take long, for example because a table is locked, do not keep
// uploads out.
func TestSlowExportsLeaveRoomForUploads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range cap(b.api.bulkheads.exports.places) {
		leave, err := b.api.bulkheads.exports.enter(t.Context())
		require.NoError(t, err)
		defer leave()
	}
	b.want(http.StatusAccepted, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv")
	b.want(http.StatusServiceUnavailable, RoleReader, "GET", "/users?format=csv", nil) // it waits until the deadline
}

// Statistics and the beginning of listening to clicks wait for the same places as lists,
// and files of statistics for those of exports.
func TestStatisticsTakePlaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, _ := b.insertLink(testLink{code: "one", target: "https://example.org/"})
	paths := []string{"/stats", "/stats/countries", "/stats/links?range=all", "/live", "/tags"}
	for _, path := range []string{"/stats", "/stats/referrers", "/live"} {
		paths = append(paths, fmt.Sprintf("/urls/%d%s", id, path))
	}
	for places, paths := range map[*bulkhead][]string{
		b.api.bulkheads.lists: paths, b.api.bulkheads.exports: {"/stats?format=csv", "/stats/links?format=ndjson"},
	} {
		var held []func()
		for range cap(places.places) {
			leave, err := places.enter(t.Context())
			require.NoError(t, err)
			held = append(held, leave)
		}
		var wait sync.WaitGroup
		for _, path := range paths {
			wait.Go(func() {
				a := b.do(RoleReader, "GET", path, nil)
				assert.Equal(t, http.StatusServiceUnavailable, a.status, path)
				assert.NotEmpty(t, a.header.Get("Retry-After"), path)
			})
		}
		wait.Wait()
		for _, leave := range held {
			leave()
		}
	}
	b.want(200, RoleReader, "GET", "/stats", nil)
}

func TestABulkheadIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBulkhead(nil, "test", 2, 1, time.Second)
		enter := func() error { _, err := s.enter(t.Context()); return err }
		for range 2 {
			require.NoError(t, enter())
		}
		began := time.Now()
		if err := enter(); !errors.Is(err, errBusy) || time.Since(began) != time.Second {
			t.Errorf("one that waits in vain: %v after %v, want errBusy after a second", err, time.Since(began))
		}
		inLine := make(chan error)
		go func() { inLine <- enter() }()
		synctest.Wait()
		began = time.Now()
		if err := enter(); !errors.Is(err, errBusy) || time.Since(began) != 0 {
			t.Errorf("one that finds the line full: %v after %v, want errBusy at once", err, time.Since(began))
		}
		s.leave()
		assert.NoError(t, <-inLine, "one that waits for its turn")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.enter(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("one whose client left: %v, want the error of its context", err)
		}
		if refused, waiting := testutil.ToFloat64(s.refused), s.waiting.Load(); refused != 2 || waiting != 0 {
			t.Errorf("%v refused and %d waiting, want 2 and none", refused, waiting)
		}
	})
}

// However many lists hang, further lists are refused and the rest of the management API
// still works.
func TestSlowListsLeaveRoomForWrites(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 5, KeepCanceled: true, ShortQueries: true})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	b := setupOn(t, pool)
	unlock := lockTable(t, pgtest.Open(t, url), "users")
	var lists sync.WaitGroup
	var mu sync.Mutex
	refused, ended := 0, 0
	for range 2 * maxWaitingLists {
		lists.Go(func() {
			a := b.do(RoleAdmin, "GET", "/users", nil)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("a list of a table that is locked: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
			}
			mu.Lock()
			defer mu.Unlock()
			switch a.body["error"] {
			case errBusy.Message:
				refused++
			case "the database did not answer in time, try again shortly or ask for less":
				ended++
			}
		})
	}
	for range 5 {
		b.want(http.StatusCreated, RoleAdmin, "POST", "/tokens", `{"name":"while lists hang","role":"reader"}`)
	}
	lists.Wait()
	if most := 2*maxWaitingLists - maxWaitingLists - cap(b.api.bulkheads.lists.places); refused < most {
		t.Errorf("%d lists were refused, want at least the %d that found no place in the line", refused, most)
	}
	if ended == 0 {
		t.Error("no list was told that the database did not answer in time")
	}
	unlock()
	b.want(http.StatusOK, RoleAdmin, "GET", "/users", nil)
	if n := pool.Stat().NewConnsCount(); n > 5 {
		t.Errorf("lists that took too long cost sessions: %d were opened for a pool of 5", n)
	}
}

// lockTable keeps everyone from a table until unlock.
func lockTable(t *testing.T, pool *pgxpool.Pool, table string) (unlock func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	unlock = sync.OnceFunc(func() { _ = tx.Rollback(context.Background()) })
	t.Cleanup(unlock)
	pgtest.Exec(t, tx, "LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE")
	return unlock
}
