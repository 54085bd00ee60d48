package api

import (
	"fmt"
	"net/url"
	"testing"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.pool.Exec(t.Context(), `
		INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, country, browser, os, device, referrer_host, details) VALUES
			(date_trunc('month', now()) + interval '1 s', 7, 3, 'clicked', true, 'DE', 'Firefox', 'Linux', 'desktop', 'news.example', NULL),
			(date_trunc('month', now()) + interval '2 s', 7, 3, 'clicked', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
			(date_trunc('month', now()) + interval '3 s', 8, NULL, 'clicked', NULL, NULL, NULL, NULL, NULL, NULL, '{"from": "a file"}'),
			(date_trunc('month', now()) + interval '4 s', NULL, 3, 'created', NULL, NULL, NULL, NULL, NULL, NULL, NULL)`); err != nil {
		t.Fatal(err)
	}
	rows := b.want(200, RoleReader, "GET", "/events", nil).rows()
	want := []string{
		"map[] created <nil> 3",
		"map[from:a file] clicked 8 <nil>",
		"map[bot:<nil> browser:<nil> country:<nil> device:<nil> os:<nil> referrer:<nil>] clicked 7 3",
		"map[bot:true browser:Firefox country:DE device:desktop os:Linux referrer:news.example] clicked 7 3",
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
