package rollup

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/zone"
)

// oddZones are zones whose clocks do something unusual: changes at midnight, of half an
// hour, by 00:01, of a whole day, twice in a month, and offsets of quarters of an hour.
var oddZones = []string{
	"UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Santiago", "America/Sao_Paulo", "America/St_Johns",
	"America/Caracas", "America/Havana", "Australia/Lord_Howe", "Australia/Eucla", "Asia/Kathmandu", "Asia/Kolkata", "Asia/Pyongyang",
	"Asia/Gaza", "Asia/Amman", "Asia/Tehran", "Africa/Casablanca", "Africa/Cairo", "Pacific/Apia", "Pacific/Fakaofo",
	"Pacific/Chatham", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Antarctica/Troll", "Antarctica/Casey", "Etc/GMT+12",
}

func loadZone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	loc, err := zone.Load(name)
	require.NoError(tb, err)
	return loc
}

func resolve(tb testing.TB, a Request, now string) Range {
	tb.Helper()
	r, err := a.Resolve(at(tb, now), Extent{})
	require.NoError(tb, err)
	return r
}

func at(tb testing.TB, text string) time.Time {
	tb.Helper()
	t, err := time.Parse(time.RFC3339, text)
	require.NoError(tb, err)
	return t
}

func shown(times ...time.Time) []string {
	texts := make([]string, len(times))
	for i, t := range times {
		texts[i] = t.Format("2006-01-02T15:04Z07:00")
	}
	return texts
}

func TestNamedRanges(t *testing.T) {
	t.Parallel()
	const now = "2026-03-31T13:07:09Z" // 15:07 in Berlin, two days after its clocks changed
	tests := []struct{ name, compare, from, to, previousFrom, previousTo string }{
		{"today", "previous", "2026-03-31T00:00+02:00", "2026-03-31T15:15+02:00", "2026-03-30T00:00+02:00", "2026-03-30T15:15+02:00"},
		{"yesterday", "previous", "2026-03-30T00:00+02:00", "2026-03-31T00:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"},
		{"24h", "previous", "2026-03-30T16:00+02:00", "2026-03-31T15:15+02:00", "2026-03-29T16:00+02:00", "2026-03-30T15:15+02:00"},
		{"7d", "previous", "2026-03-25T00:00+01:00", "2026-03-31T15:15+02:00", "2026-03-18T00:00+01:00", "2026-03-24T15:15+01:00"},
		{"30d", "previous", "2026-03-02T00:00+01:00", "2026-03-31T15:15+02:00", "2026-01-31T00:00+01:00", "2026-03-01T15:15+01:00"},
		{"", "previous", "2026-03-02T00:00+01:00", "2026-03-31T15:15+02:00", "2026-01-31T00:00+01:00", "2026-03-01T15:15+01:00"},
		{"90d", "year", "2026-01-01T00:00+01:00", "2026-03-31T15:15+02:00", "2025-01-01T00:00+01:00", "2025-03-31T15:15+02:00"},
		{"12mo", "previous", "2025-04-01T00:00+02:00", "2026-03-31T15:15+02:00", "2024-04-01T00:00+02:00", "2025-03-31T15:15+02:00"},
		{"mtd", "previous", "2026-03-01T00:00+01:00", "2026-03-31T15:15+02:00", "2026-02-01T00:00+01:00", "2026-03-01T00:00+01:00"},
		{"ytd", "previous", "2026-01-01T00:00+01:00", "2026-03-31T15:15+02:00", "2025-01-01T00:00+01:00", "2025-03-31T15:15+02:00"},
		{"ytd", "year", "2026-01-01T00:00+01:00", "2026-03-31T15:15+02:00", "2025-01-01T00:00+01:00", "2025-03-31T15:15+02:00"},
	}
	for _, tt := range tests {
		r := resolve(t, Request{Range: tt.name, Zone: "Europe/Berlin", Compare: tt.compare}, now)
		assert.Equal(t, []string{tt.from, tt.to, tt.previousFrom, tt.previousTo}, shown(r.From, r.To, r.PreviousFrom, r.PreviousTo), tt.name)
	}
}

func TestRangeOfAll(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-03-31T13:07:09Z")
	a := Request{Range: "all", Zone: "America/Santiago"}
	r, err := a.Resolve(now, Extent{})
	require.NoError(t, err)
	assert.Equal(t, []string{"2026-03-31T00:00-03:00", "2026-03-31T10:15-03:00"}, shown(r.From, r.To), "no clicks")
	r, err = a.Resolve(now, Extent{First: at(t, "2024-05-02T00:00:00Z"), Last: at(t, "2026-03-30T00:00:00Z")})
	require.NoError(t, err)
	assert.Equal(t, []string{"2024-05-01T00:00-04:00", "2026-03-31T10:15-03:00"}, shown(r.From, r.To), "the UTC day begins on the day before")
	r, err = a.Resolve(now, Extent{First: at(t, "2026-03-31T00:00:00Z"), Last: at(t, "2026-03-31T00:00:00Z")})
	require.NoError(t, err)
	assert.Equal(t, []string{"2026-03-30T00:00-03:00", "2026-03-31T10:15-03:00"}, shown(r.From, r.To), "clicks of today: it ends now")
	r, err = a.Resolve(now, Extent{First: at(t, "2026-03-31T00:00:00Z"), Last: at(t, "2026-04-02T00:00:00Z")})
	require.NoError(t, err)
	assert.Equal(t, []string{"2026-03-30T00:00-03:00", "2026-04-02T21:00-03:00"}, shown(r.From, r.To), "clicks of tomorrow")
}

func TestGivenRanges(t *testing.T) {
	t.Parallel()
	const now = "2026-03-31T13:07:09Z"
	tests := []struct {
		name string
		ask  Request
		want []string
	}{
		{
			"dates, over a change of the clocks",
			Request{From: "2025-03-01", To: "2025-04-01", Zone: "Europe/Berlin", Compare: "previous"},
			[]string{"2025-03-01T00:00+01:00", "2025-04-01T00:00+02:00", "2025-01-29T00:00+01:00", "2025-03-01T00:00+01:00"},
		},
		{
			"a leap day",
			Request{From: "2024-02-29", To: "2024-03-01", Compare: "year"},
			[]string{"2024-02-29T00:00Z", "2024-03-01T00:00Z", "2023-02-28T00:00Z", "2023-03-01T00:00Z"},
		},
		{
			"until a day that the other year does not have",
			Request{From: "2024-02-01", To: "2024-02-29", Compare: "year"},
			[]string{"2024-02-01T00:00Z", "2024-02-29T00:00Z", "2023-02-01T00:00Z", "2023-03-01T00:00Z"},
		},
		{
			"times are rounded to quarters",
			Request{From: "2026-03-01T10:07:00Z", To: "2026-03-01t12:00:01.5z", Zone: "Asia/Kathmandu", Compare: "previous"},
			[]string{"2026-03-01T15:45+05:45", "2026-03-01T18:00+05:45", "2026-03-01T13:30+05:45", "2026-03-01T15:45+05:45"},
		},
		{
			"until now",
			Request{From: "2026-03-31T12:00:00 02:00", Compare: "previous"},
			[]string{"2026-03-31T10:00Z", "2026-03-31T13:15Z", "2026-03-31T06:45Z", "2026-03-31T10:00Z"},
		},
		{
			"a day without its first hour",
			Request{From: "2025-09-07", To: "2025-09-08", Zone: "America/Santiago", Compare: "previous"},
			[]string{"2025-09-07T01:00-03:00", "2025-09-08T00:00-03:00", "2025-09-06T00:00-04:00", "2025-09-07T01:00-03:00"},
		},
	}
	for _, tt := range tests {
		r := resolve(t, tt.ask, now)
		assert.Equal(t, tt.want, shown(r.From, r.To, r.PreviousFrom, r.PreviousTo), tt.name)
	}
}

func TestFaultsOfRanges(t *testing.T) {
	t.Parallel()
	tests := []struct {
		ask  Request
		want []string // fields
	}{
		{Request{Zone: "Europe/Nowhere"}, []string{"tz"}},
		{Request{Range: "forever"}, []string{"range"}},
		{Request{Range: "7d", From: "2026-01-01"}, []string{"range"}},
		{Request{To: "2026-01-01"}, []string{"from"}},
		{Request{From: "yesterday"}, []string{"from"}},
		{Request{From: "2026-02-30"}, []string{"from"}},
		{Request{From: "2026-01-02", To: "2026-01-02"}, []string{"from"}},
		{Request{From: "2026-01-03", To: "2026-01-02"}, []string{"from"}},
		{Request{From: "1999-01-01", To: "9999-01-01"}, []string{"from", "to"}},
		{Request{From: "2026-06-01"}, []string{"from"}},
		{Request{From: "2011-12-30", To: "2011-12-31", Zone: "Pacific/Apia"}, []string{"from"}},
		{Request{Interval: "decade"}, []string{"interval"}},
		{Request{Interval: "15m", Range: "12mo"}, []string{"interval"}},
		{Request{WeekStart: "friday"}, []string{"week_start"}},
		{Request{Compare: "best"}, []string{"compare"}},
		{Request{Compare: "year", Range: "all"}, []string{"compare"}},
		{Request{Compare: "x", Range: "x", Zone: "x", Interval: "x", WeekStart: "x"}, []string{"tz", "week_start", "range", "interval", "compare"}},
	}
	for _, tt := range tests {
		_, err := tt.ask.Resolve(at(t, "2026-03-31T13:07:09Z"), Extent{})
		var faults RequestErrors
		if assert.ErrorAs(t, err, &faults, "%+v", tt.ask) {
			var fields []string
			for _, f := range faults {
				fields = append(fields, f.Field)
				assert.NotEmpty(t, f.Message)
			}
			assert.Equal(t, tt.want, fields, "%+v", tt.ask)
		}
	}
}

func TestDaysWhoseClocksChange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		zone, from, to string
		hours          int // buckets
		length         time.Duration
		odd            []string // starts that are no usual full hour
	}{
		{"Europe/Berlin", "2025-10-26", "2025-10-27", 25, 25 * time.Hour, []string{"2025-10-26T02:00+02:00", "2025-10-26T02:00+01:00"}},
		{"Europe/Berlin", "2025-03-30", "2025-03-31", 23, 23 * time.Hour, []string{"2025-03-30T03:00+02:00"}},
		{"America/Santiago", "2025-04-05", "2025-04-06", 25, 25 * time.Hour, []string{"2025-04-05T23:00-03:00", "2025-04-05T23:00-04:00"}},
		{"America/Santiago", "2025-09-07", "2025-09-08", 23, 23 * time.Hour, []string{"2025-09-07T01:00-03:00"}},
		{"Australia/Lord_Howe", "2025-04-06", "2025-04-07", 25, 24*time.Hour + 30*time.Minute, []string{"2025-04-06T01:30+10:30"}},
		{"Australia/Lord_Howe", "2025-10-05", "2025-10-06", 24, 23*time.Hour + 30*time.Minute, []string{"2025-10-05T02:30+11:00"}},
		{"Asia/Kathmandu", "2025-10-05", "2025-10-06", 24, 24 * time.Hour, []string{"2025-10-05T00:00+05:45"}},
		{"America/St_Johns", "2010-11-06", "2010-11-07", 25, 25 * time.Hour, []string{"2010-11-07T00:00-02:30"}},
	}
	for _, tt := range tests {
		r := resolve(t, Request{From: tt.from, To: tt.to, Zone: tt.zone, Interval: "hour"}, "2026-03-31T13:07:09Z")
		assert.Len(t, r.Starts(), tt.hours, "%s %s", tt.zone, tt.from)
		assert.Equal(t, tt.length, r.To.Sub(r.From), "%s %s", tt.zone, tt.from)
		for _, odd := range tt.odd {
			assert.Contains(t, shown(r.Starts()...), odd, tt.zone)
		}
	}
}

func TestSkippedDay(t *testing.T) {
	t.Parallel()
	r := resolve(t, Request{From: "2011-12-28", To: "2012-01-02", Zone: "Pacific/Apia", Interval: "day"}, "2026-03-31T13:07:09Z")
	assert.Equal(t, []string{"2011-12-28T00:00-10:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"},
		shown(r.Starts()...), "the 30th of December does not exist there")
	r, err := Request{Range: "yesterday", Zone: "Pacific/Apia", Compare: "previous"}.Resolve(at(t, "2011-12-31T03:00:00+14:00"), Extent{})
	require.NoError(t, err)
	assert.True(t, r.empty())
	assert.Empty(t, r.Starts())
	assert.True(t, r.previous().empty())
}

// dayAt returns the day that a moment counts for, by definition: the earliest date that
// the clocks show from then on.
func dayAt(t time.Time) date {
	first := dateAt(t)
	for m := range 3 * 60 {
		if d := dateAt(t.Add(time.Duration(m) * time.Minute)); d.utc().Before(first.utc()) {
			first = d
		}
	}
	return first
}

// Every bucket begins where the definition says, whatever the zone, and at no other
// quarter of an hour; and every quarter is in the bucket that it lies in.
func TestBucketsByDefinition(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	begins := map[Interval]func(r Range, before, t time.Time) bool{
		ByQuarter: func(Range, time.Time, time.Time) bool { return true },
		ByHour: func(_ Range, before, t time.Time) bool {
			_, old := before.Add(2 * time.Minute).Zone() // once, clocks changed at 00:01
			_, now := t.Add(2 * time.Minute).Zone()
			return t.Minute() == 0 || old != now
		},
		ByDay: func(_ Range, before, t time.Time) bool { return dayAt(before) != dayAt(t) },
		ByWeek: func(r Range, before, t time.Time) bool {
			week := func(t time.Time) int {
				days := int(dayAt(t).utc().Unix() / daySeconds)
				return (days + 4 - int(r.weekStart) + 7) / 7 // 1970 began on a Thursday
			}
			return week(before) != week(t)
		},
		ByMonth: func(_ Range, before, t time.Time) bool { return dayAt(before).monthStart() != dayAt(t).monthStart() },
	}
	for range 150 {
		loc := loadZone(t, oddZones[rnd.IntN(len(oddZones))])
		from := time.Date(2000+rnd.IntN(30), 1, 1+rnd.IntN(366), 0, 15*rnd.IntN(96), 0, 0, time.UTC)
		if change := nextChange(from.In(loc)); rnd.IntN(2) == 0 && !change.IsZero() { // half of all around a change of the clocks
			from = change.UTC().Truncate(24 * time.Hour).Add(-time.Duration(rnd.IntN(96)) * 15 * time.Minute)
		}
		from = latest(from, earliest)
		to := from.Add(time.Duration(1+rnd.IntN(4*96)) * 15 * time.Minute)
		interval := []Interval{ByQuarter, ByHour, ByDay, ByWeek, ByMonth}[rnd.IntN(5)]
		a := Request{
			From: from.Format(time.RFC3339), To: to.Format(time.RFC3339), Zone: loc.String(),
			Interval: string(interval), WeekStart: []string{"", "monday", "sunday"}[rnd.IntN(3)],
		}
		r, err := a.Resolve(to, Extent{})
		require.NoErrorf(t, err, "seed %d: %+v", seed, a)

		want := []string{from.In(loc).Format(time.RFC3339)}
		for at := from.In(loc).Add(15 * time.Minute); at.Before(to); at = at.Add(15 * time.Minute) {
			if begins[interval](r, at.Add(-15*time.Minute), at) {
				want = append(want, at.Format(time.RFC3339))
			}
		}
		var got []string
		for _, start := range r.Starts() {
			got = append(got, start.Format(time.RFC3339))
		}
		require.Equalf(t, want, got, "seed %d: %+v", seed, a)
		checkBucketsOf(t, r)
	}
}

// checkBucketsOf compares the buckets of each quarter, on all days of the range and two
// more, with the starts of the buckets.
func checkBucketsOf(t *testing.T, r Range) {
	t.Helper()
	starts := r.Starts()
	first, end := r.days()
	for day := first.AddDate(0, 0, -1); !day.After(end); day = day.AddDate(0, 0, 1) {
		for q, bucket := range r.bucketsOf(day) {
			at := day.Add(time.Duration(q) * 15 * time.Minute)
			want := outside
			if !at.Before(r.From) && at.Before(r.To) {
				want, _ = slices.BinarySearchFunc(starts, at.Add(1), time.Time.Compare)
				want--
			}
			require.Equalf(t, want, bucket, "%v", at)
			inDays := !day.Before(first) && day.Before(end)
			require.Truef(t, inDays || bucket == outside, "%v is in the range, but its day is not", at)
		}
	}
}

func nextChange(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	return end
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// From 2000 on, all clocks keep whole quarters of an hour, and every midnight is one.
func TestMidnightsAreQuarters(t *testing.T) {
	t.Parallel()
	for _, name := range oddZones {
		loc := loadZone(t, name)
		before := time.Time{}
		for day := (date{2000, 1, 1}); day.year < 2040; day = day.nextDay() {
			m := day.midnight(loc)
			require.Zerof(t, m.Unix()%(15*60), "%s %v", name, m)
			require.Falsef(t, m.Before(before), "%s %v", name, m)
			before = m
		}
	}
}

// The range before one of whole days is as many days long and ends where it begins.
func TestRangeBefore(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range 500 {
		loc := loadZone(t, oddZones[rnd.IntN(len(oddZones))])
		first := date{2001 + rnd.IntN(28), 1, 1}.add(0, rnd.IntN(365))
		n := 1 + rnd.IntN(60)
		a := Request{From: first.utc().Format(time.DateOnly), To: first.add(0, n).utc().Format(time.DateOnly), Zone: loc.String(), Compare: "previous"}
		r, err := a.Resolve(first.add(0, n+2).utc(), Extent{})
		var faults RequestErrors
		if errors.As(err, &faults) && len(faults) == 1 && faults[0].Field == "from" {
			require.Equal(t, "Pacific/", loc.String()[:8], "only there, a day was left out")
			continue
		}
		require.NoErrorf(t, err, "seed %d: %+v", seed, a)
		assert.Truef(t, r.PreviousTo.Equal(r.From), "seed %d: %+v", seed, a)
		assert.Truef(t, r.PreviousFrom.Equal(first.add(0, -n).midnight(loc)), "seed %d: %+v", seed, a)
	}
}
