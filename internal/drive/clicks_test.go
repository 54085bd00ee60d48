package drive_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The account finds clicks that are missing, doubled, mistaken and unknown.
func TestClicks(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"error": "try again"}`, http.StatusServiceUnavailable)
			return
		}
		http.Redirect(w, r, "https://example.org/", http.StatusFound)
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	c := &drive.Clicks{Run: "run"}
	first, second := func() int { return 1 }, func() int { return 2 }
	for range 4 { // markers 0 to 3; the third is a robot
		if a := c.Follow(addr, "/link", first); a.Status != "302" || a.Location != "https://example.org/" {
			t.Fatalf("answer %+v", a)
		}
	}
	if a := c.Follow(addr, "/gone", second); a.Status != "503" || !a.Again || a.Says != "try again" {
		t.Fatalf("answer %+v", a)
	}
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // done with it
	_, err = conn.Exec(t.Context(), `INSERT INTO events (occurred_at, event_type, url_id, bot, referrer_host) VALUES
		(now(), 'clicked', 1, false, 'm0.run.example.org'), (now(), 'clicked', 1, false, 'm0.run.example.org'),
		(now(), 'clicked', 1, true, 'm1.run.example.org'), (now(), 'clicked', 1, true, 'm2.run.example.org'),
		(now(), 'clicked', 1, true, 'm9.run.example.org'), (now(), 'clicked', 1, true, 'm1.other.example.org'),
		(now(), 'clicked', 1, true, NULL)`)
	require.NoError(t, err)
	phases, unknown, err := c.Compare(t.Context(), conn)
	require.NoError(t, err)
	want := drive.Tally{Attempted: 4, Answered: 4, Counted: 4, Bots: 2, Missing: 1, Doubled: 1, Mistaken: 1}
	if phases[1] != want || phases[2] != (drive.Tally{Attempted: 1}) || unknown != 1 {
		t.Errorf("got %+v, %d unknown; want %+v, one unknown", phases, unknown, want)
	}
	if statuses, _ := c.Saw(); statuses["302"] != 4 || statuses["503"] != 1 || c.Answered() != 4 {
		t.Errorf("clients saw %v", statuses)
	}
}
