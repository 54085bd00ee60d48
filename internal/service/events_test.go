package service

import (
	"math"
	"strings"
	"testing"
	"time"
)

// A list of events begins with the month at its end. It opens further months, as many
// at a time as before, only while its page is not full.
func TestSpansOfEvents(t *testing.T) {
	t.Parallel()
	month := func(n int) time.Time { return time.Date(2026, time.Month(1+n), 1, 0, 0, 0, 0, time.UTC) }
	var months []time.Time
	for n := -24; n <= 14; n++ {
		months = append(months, month(n))
	}
	now := month(11).AddDate(0, 0, 12)
	at := func(t time.Time) EventAt { return EventAt{t, math.MinInt64} }
	all := EventList{since: at(time.Time{}), till: at(endOfTime)}
	for name, tt := range map[string]struct {
		list EventList
		want string // the months at which one span ends and the next begins
	}{
		"newest":                {all, "2026-12 2026-10 2026-06 2025-10 2024-06"},
		"newest from a month":   {EventList{since: at(month(9).AddDate(0, 0, 3)), till: at(endOfTime)}, "2026-12"},
		"newest before a month": {EventList{since: at(time.Time{}), till: at(month(-22))}, "2024-02"},
		"oldest":                {EventList{Oldest: true, since: at(time.Time{}), till: at(endOfTime)}, "2024-02 2024-04 2024-08 2025-04 2026-08"},
		"oldest to a time":      {EventList{Oldest: true, since: at(month(3)), till: at(month(5))}, "2026-05"},
		"nothing":               {EventList{since: at(now), till: at(month(3))}, ""},
	} {
		var got []string
		end := tt.list.till
		if tt.list.Oldest {
			end = tt.list.since
		}
		last := end
		for span := range tt.list.spans(months, now) {
			begin, end := span.till, span.since
			if span.Oldest {
				begin, end = end, begin
			}
			if begin != last {
				t.Errorf("%s: a span begins at %v, want %v", name, begin, last)
			}
			got, last = append(got, end.At.Format("2006-01")), end
		}
		if got = got[:len(got)-1]; strings.Join(got, " ") != tt.want {
			t.Errorf("%s: spans end at %v, want %s", name, got, tt.want)
		}
	}
}
