package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/postgres"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`
		INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, country, browser, os, device, referrer_host, details, kind, trigger) VALUES
			(date_trunc('month', now()) + interval '1 s', 7, 3, 'clicked', true, 'DE', 'Firefox', 'Linux', 'desktop', 'news.example', NULL, 'prefetch', 'qr'),
			(date_trunc('month', now()) + interval '2 s', 7, 3, 'clicked', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
			(date_trunc('month', now()) + interval '3 s', 8, NULL, 'clicked', NULL, NULL, NULL, NULL, NULL, NULL, '{"from": "a file"}', NULL, NULL),
			(date_trunc('month', now()) + interval '4 s', NULL, 3, 'created', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`)
	rows := b.want(200, RoleReader, "GET", "/events", nil).rows()
	want := []string{
		"map[] created <nil> 3",
		"map[from:a file] clicked 8 <nil>",
		"map[bot:false browser:<nil> country:<nil> device:<nil> kind:person os:<nil> referrer:<nil> trigger:link] clicked 7 3",
		"map[bot:true browser:Firefox country:DE device:desktop kind:prefetch os:Linux referrer:news.example trigger:qr] clicked 7 3",
	}
	if len(rows) != len(want) {
		t.Fatalf("events: %v", rows)
	}
	for i, row := range rows {
		if got := fmt.Sprint(row["details"], " ", row["event_type"], " ", row["url_id"], " ", row["user_id"]); got != want[i] {
			t.Errorf("event %d is %s, want %s", i, got, want[i])
		}
		if len(row) != 6 {
			t.Errorf("event %d has the fields %v", i, row)
		}
	}
	second := rows[2]["timestamp"].(string)
	third := rows[1]["timestamp"].(string)
	for query, want := range map[string]int{
		"url_id=7": 2, "url_id=9": 0, "user_id=3": 3, "event_type=created": 1, "event_type=clicked": 3, "event_type=updated": 0,
		"url_id=7&user_id=3&event_type=clicked": 2, "url_id=7&user_id=4": 0,
		"from=" + second: 3, "to=" + second: 1, "from=" + second + "&to=" + third: 1, "from=" + third + "&to=" + second: 0,
		"from=2000-01-01T00:00:00%2B02:00": 4, "from=9999-01-01T00:00:00Z": 0, "to=1970-01-01T00:00:00Z": 0,
		"from=" + url.QueryEscape(second) + "&url_id=7": 1, "from=&to=": 4,
	} {
		if got := b.want(200, RoleReader, "GET", "/events?"+query, nil).rows(); len(got) != want {
			t.Errorf("GET /events?%s: %d events, want %d", query, len(got), want)
		}
	}
}

// A list begins at the cursor or at the time that bounds it, whichever is earlier.
func TestEventsBetweenCursorAndTimes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`
		INSERT INTO events (id, occurred_at, event_type) SELECT n, date_trunc('month', now()) + n * interval '1 s', 'clicked' FROM generate_series(1, 9) n`)
	month := postgres.MonthOf(time.Now())
	second := func(n int) time.Time { return month.Add(time.Duration(n) * time.Second) }
	text := func(n int) string { return second(n).Format(time.RFC3339) }
	down, up := makeCursor("events", second(6).UnixMicro(), 6), makeCursor("events_oldest", second(3).UnixMicro(), 3)
	for query, want := range map[string]string{
		"to=" + text(4) + "&cursor=" + down: "3 2 1", "to=" + text(9) + "&cursor=" + down: "5 4 3 2 1",
		"from=" + text(4) + "&cursor=" + down: "5 4", "from=" + text(2) + "&cursor=" + up: "4 5 6 7 8 9",
		"from=" + text(8) + "&cursor=" + up: "8 9", "to=" + text(6) + "&cursor=" + up: "4 5",
	} {
		var ids []string
		for _, row := range b.want(200, RoleReader, "GET", "/events?"+query, nil).rows() {
			ids = append(ids, fmt.Sprint(row["id"]))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("GET /events?%s: %s, want %s", query, got, want)
		}
	}
}

// The history of a link is its events without clicks, page by page in both directions.
func TestChangesOfALink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO events (id, occurred_at, url_id, event_type)
		SELECT n, date_trunc('month', now()) + n * interval '1 s', 7 + n % 2, (ARRAY['created', 'updated', 'clicked', 'deleted'])[1 + n / 2 % 4] FROM generate_series(0, 15) n`)
	for query, want := range map[string]string{
		"url_id=7": "14 10 8 6 2 0", "url_id=7&order=oldest": "0 2 6 8 10 14", "url_id=7&page=2&per_page=4": "2 0", "url_id=9": "",
	} {
		var ids []string
		for _, row := range b.want(200, RoleReader, "GET", "/events?event_type=changed&"+query, nil).rows() {
			ids = append(ids, fmt.Sprint(row["id"]))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if fields := b.want(400, RoleReader, "GET", "/events?event_type=changed&user_id=3", nil).fields(); fields["event_type"] == "" {
		t.Errorf("the fields at fault are %v", fields)
	}
}
