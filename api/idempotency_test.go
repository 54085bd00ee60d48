package api

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// sameAnswer fails the test unless two answers look the same to a client.
func sameAnswer(t *testing.T, what string, first, second answer) {
	t.Helper()
	for _, header := range []string{"Location", "Content-Type"} {
		if got, want := second.header.Get(header), first.header.Get(header); got != want || got == "" {
			t.Errorf("%s: %s is %q, was %q", what, header, got, want)
		}
	}
	if first.status != second.status || string(first.raw) != string(second.raw) {
		t.Errorf("%s: answered %d %s, the first time %d %s", what, second.status, second.raw, first.status, first.raw)
	}
}

// A repeated request is done once and answered in the same way, even if it could not be
// done again.
func TestRepeatedRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.user("owner")
	for path, body := range map[string]object{
		"/users": {"username": "ann", "email": "ann&co@example.com"},
		"/urls":  {"user_id": owner, "original_url": "https://example.com/?a=<b>&c", "tags": []string{"x"}},
	} {
		first := b.want(201, RoleAdmin, "POST", path, body, "Idempotency-Key", "k 1")
		sameAnswer(t, path, first, b.want(201, RoleAdmin, "POST", path, body, "Idempotency-Key", "k 1"))
		b.want(204, RoleAdmin, "DELETE", first.header.Get("Location"), nil)
		sameAnswer(t, path+" of what is gone", first, b.want(201, RoleAdmin, "POST", path, body, "Idempotency-Key", "k 1"))
		table := path[1:]
		b.wantCount(0, "SELECT count(*) FROM "+table+" WHERE id = $1", first.id())
		body["extra"] = 1 // the field is ignored, but makes it another body
		a := b.want(400, RoleAdmin, "POST", path, body, "Idempotency-Key", "k 1")
		if a.fields()["Idempotency-Key"] == "" {
			t.Errorf("%s: %s does not blame the key", path, a.raw)
		}
		if again := b.want(201, RoleAdmin, "POST", path, body, "Idempotency-Key", "k 2"); again.id() == first.id() {
			t.Errorf("%s: another key had the first one's answer", path)
		}
	}
	b.wantCount(5, "SELECT count(*) FROM events WHERE event_type = 'created'")
}

// Keys belong to a token and a route.
func TestKeysOfOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.user("owner")
	link := object{"user_id": owner, "original_url": "https://example.com/"}
	ids := map[int64]bool{}
	for _, role := range []Role{RoleAdmin, RoleEditor} {
		ids[b.want(201, role, "POST", "/urls", link, "Idempotency-Key", "k").id()] = true
	}
	if len(ids) != 2 {
		t.Error("a token was answered what another one had asked")
	}
	b.want(201, RoleAdmin, "POST", "/users", object{"username": "ann", "email": "ann@example.com"}, "Idempotency-Key", "k")
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv", "Idempotency-Key", "k")
	b.want(202, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv", "Idempotency-Key", "k")
	b.wantCount(2, "SELECT count(*) FROM imports")
}

func TestWrongKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []string{"ä", strings.Repeat("k", 256), "a\tb"} {
		for path, body := range map[string]any{"/users": object{"username": "ann", "email": "ann@example.com"}, "/users/bulk": csvOfUsers} {
			contentType := map[bool]string{true: "application/json", false: "text/csv"}[path == "/users"]
			a := b.want(400, RoleAdmin, "POST", path, body, "Idempotency-Key", key, "Content-Type", contentType)
			if a.fields()["Idempotency-Key"] == "" {
				t.Errorf("%s: %s does not blame the key %q", path, a.raw, key)
			}
		}
	}
}

// A request that failed leaves its key free.
func TestKeyOfAFailedRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := object{"username": "ann", "email": "ann@example.com"}
	id := b.user("ann")
	b.want(409, RoleAdmin, "POST", "/users", ann, "Idempotency-Key", "k")
	b.want(400, RoleAdmin, "POST", "/users", object{}, "Idempotency-Key", "k")
	b.want(204, RoleAdmin, "DELETE", fmt.Sprint("/users/", id), nil)
	first := b.want(201, RoleAdmin, "POST", "/users", ann, "Idempotency-Key", "k")
	sameAnswer(t, "after all", first, b.want(201, RoleAdmin, "POST", "/users", ann, "Idempotency-Key", "k"))
}

// If many equal requests come at once, one of them is done. The others get its answer,
// or are told to ask again.
func TestKeyRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for path, body := range map[string]any{"/users": object{"username": "ann", "email": "ann@example.com"}, "/imports?kind=users": csvOfUsers} {
		contentType := map[bool]string{true: "application/json", false: "text/csv"}[path == "/users"]
		answers := make([]answer, 24)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				a, err := b.try(RoleAdmin, "POST", path, body, "Idempotency-Key", "k", "Content-Type", contentType)
				assert.NoErrorf(t, err, "%s", path)
				answers[i] = a
			})
		}
		wg.Wait()
		first := b.do(RoleAdmin, "POST", path, body, "Idempotency-Key", "k", "Content-Type", contentType)
		if first.status >= 300 {
			t.Fatalf("%s: %d %s after the race", path, first.status, first.raw)
		}
		for _, a := range answers {
			switch {
			case a.status < 400:
				sameAnswer(t, path, first, a)
			case a.header.Get("Retry-After") == "", a.status == 409 && a.fields()["Idempotency-Key"] == "",
				a.status != 409 && a.status != 429: // of uploads, more came than one token may send at once
				t.Errorf("%s: %d %s does not say to ask again", path, a.status, a.raw)
			}
		}
	}
	b.wantCount(1, "SELECT count(*) FROM users")
	b.wantCount(1, "SELECT count(*) FROM imports")
	b.wantCount(1, "SELECT count(*) FROM river_job")
}

// While the first request is under way, the second is told so at once. If the first
// dies in the database, nothing is left of it, not even the key.
func TestKeyOfARequestUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := object{"username": "ann", "email": "ann@example.com"}
	for _, killed := range []bool{false, true} {
		holder, err := b.pool.BeginTx(t.Context(), pgx.TxOptions{})
		require.NoError(t, err)
		// The first request cannot know whether the name is taken before this ends.
		pgtest.Exec(t, holder, "INSERT INTO users (username, email) VALUES ('ann', 'other@example.com')")
		done := make(chan answer, 1)
		go func() {
			a, _ := b.try(RoleAdmin, "POST", "/users", ann, "Idempotency-Key", fmt.Sprint(killed))
			done <- a
		}()
		b.until("the first request waits", func() bool {
			return b.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
		})
		a := b.want(409, RoleAdmin, "POST", "/users", ann, "Idempotency-Key", fmt.Sprint(killed))
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s does not say when to ask again", a.raw)
		}
		if killed {
			b.count(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		}
		if !killed {
			_ = holder.Rollback(t.Context())
		}
		first := <-done
		if want := map[bool]int{false: 201, true: 503}[killed]; first.status != want {
			t.Errorf("killed %t: the first request was answered %d %s, want %d", killed, first.status, first.raw, want)
		}
		if killed {
			_ = holder.Rollback(t.Context())
			b.until("the server has ended the killed session", func() bool {
				first, _ = b.try(RoleAdmin, "POST", "/users", ann, "Idempotency-Key", fmt.Sprint(killed))
				return first.status != 409
			})
			require.Equal(t, 201, first.status, "%s", first.raw)
		}
		sameAnswer(t, "later", first, b.want(201, RoleAdmin, "POST", "/users", ann, "Idempotency-Key", fmt.Sprint(killed)))
		b.want(204, RoleAdmin, "DELETE", first.header.Get("Location"), nil)
	}
}

// An upload of the same file is the same request, however the file is packed.
func TestRepeatedUpload(t *testing.T) {
	t.Parallel()
	b := setup(t)
	send := func(status int, path, body, contentType string, header ...string) answer {
		t.Helper()
		return b.want(status, RoleAdmin, "POST", path, body, append(header, "Content-Type", contentType, "Idempotency-Key", "k")...)
	}
	first := send(202, "/imports?kind=users", csvOfUsers, "text/csv")
	form1, type1 := form(t, "file", "other.csv", csvOfUsers)
	form2, type2 := form(t, "file", "other.csv.gz", packed(t, codingGzip, csvOfUsers))
	sameAnswer(t, "as it was", first, send(202, "/imports?kind=users", csvOfUsers, "text/csv"))
	sameAnswer(t, "in a form", first, send(202, "/imports?kind=users", form1, type1))
	sameAnswer(t, "in another form", first, send(202, "/imports?kind=users", form2, type2))
	sameAnswer(t, "packed", first, send(202, "/imports?kind=users", packed(t, codingZstd, csvOfUsers), "text/csv", "Content-Encoding", "zstd"))
	for what, a := range map[string]answer{
		"other file":   send(400, "/imports?kind=users", csvOfUsers+"cy,cy@example.com\n", "text/csv"),
		"less of it":   send(400, "/imports?kind=users", csvOfUsers[:len(csvOfUsers)-1], "text/csv"),
		"other kind":   send(400, "/imports?kind=events", csvOfUsers, "text/csv"),
		"other policy": send(400, "/imports?kind=users&on_conflict=skip", csvOfUsers, "text/csv"),
		"dry run":      send(400, "/imports?kind=users&dry_run=true", csvOfUsers, "text/csv"),
		"format":       send(400, "/imports?kind=users&format=signpost", csvOfUsers, "text/csv"),
		"escape":       send(400, "/imports?kind=users&escape=none", csvOfUsers, "text/csv"),
		"time zone":    send(400, "/imports?kind=users&timezone=UTC", csvOfUsers, "text/csv"),
		"encoding":     send(400, "/imports?kind=users&encoding=latin1", csvOfUsers, "text/csv"),
		"mapping":      send(400, "/imports?kind=users&mapping=email:email", csvOfUsers, "text/csv"),
	} {
		if a.fields()["Idempotency-Key"] == "" {
			t.Errorf("%s: %s does not blame the key", what, a.raw)
		}
	}
	b.wantCount(2, "SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM river_job)")
}

// An upload under way holds its key. The key becomes free if the upload broke off, or
// if its API process is gone.
func TestKeyOfAnUploadUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file := "username,email\n" + rowsFrom(0)
	again := func(status int) answer {
		t.Helper()
		return b.want(status, RoleAdmin, "POST", "/imports?kind=users", file, "Content-Type", "text/csv", "Idempotency-Key", "k", "Authorization", "Bearer "+testAdminToken)
	}
	broken := keyedUpload(t, b)
	if a := again(409); a.header.Get("Retry-After") == "" {
		t.Errorf("%s does not say when to ask again", a.raw)
	}
	require.NoError(t, broken.Close())
	b.until("the import failed", func() bool { return b.count("SELECT count(*) FROM imports WHERE state = 'failed'") == 1 })

	silent := keyedUpload(t, b)
	again(409)
	// A worker does this with an upload that is no longer heard of.
	b.exec("UPDATE imports SET state = 'failed', finished_at = now() WHERE state = 'receiving'")
	first := again(202)
	sendChunk(t, silent, rowsFrom(3000))
	if line, err := bufio.NewReader(silent).ReadString('\n'); err != nil || !strings.Contains(line, " 409 ") {
		t.Errorf("the upload that was given up was answered %q, %v", line, err)
	}
	sameAnswer(t, "later", first, again(202))
	b.wantCount(1, "SELECT count(*) FROM imports WHERE state = 'queued'")
}

// keyedUpload begins an upload with a key. Its first chunk is stored when it returns.
func keyedUpload(t *testing.T, b *bundle) net.Conn {
	t.Helper()
	conn := slowUpload(t, b, "Idempotency-Key: k\r\n")
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool {
		return b.count("SELECT count(*) FROM import_chunks c JOIN imports i ON i.id = c.import_id WHERE i.state = 'receiving'") == 1
	})
	return conn
}
