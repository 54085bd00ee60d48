package rollup

import (
	"slices"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/zone"
)

const daySeconds = 24 * 60 * 60

// Interval is the length of the buckets of a series.
type Interval string

// The intervals. An hour begins with each full hour of the zone and whenever its clocks
// change; days, weeks and months begin at midnight of the zone.
const (
	ByQuarter Interval = "15m"
	ByHour    Interval = "hour"
	ByDay     Interval = "day"
	ByWeek    Interval = "week"
	ByMonth   Interval = "month"
)

// maxBuckets is the largest number of buckets that a series may have.
const maxBuckets = 10_000

// Fault says why one field of a [Request] is wrong. The message can follow the field's
// name.
type Fault struct{ Field, Message string }

// RequestErrors are all faults of a Request.
type RequestErrors []Fault

// Error implements error.
func (f RequestErrors) Error() string {
	texts := make([]string, len(f))
	for i, fault := range f {
		texts[i] = fault.Field + " " + fault.Message
	}
	return strings.Join(texts, "; ")
}

func (f *RequestErrors) add(field, message string) { *f = append(*f, Fault{field, message}) }

// Request is a range of time as a user asks for it. Every field may be empty.
type Request struct {
	// Range is today, yesterday, 24h, 7d, 30d, 90d, 12mo, mtd, ytd or all. Without it
	// From and To are used, and without these 30d.
	Range string
	// From and To are dates, which stand for their midnight in the zone, or times in
	// RFC 3339. From is rounded down to a quarter of an hour and To up. To is not part
	// of the range; without it, the range ends now.
	From, To string
	Zone     string // a name of the IANA database
	Interval string // one of the intervals, or auto
	// WeekStart is monday or sunday.
	WeekStart string
	// Compare is previous, for the range before this one, or year, for the same range a
	// year before.
	Compare string
}

// Range is a range of time with its buckets. Its times are in its zone and on quarters
// of an hour.
type Range struct {
	From, To time.Time // To is not part of the range
	Interval Interval
	// PreviousFrom and PreviousTo are the range to compare with. Both are zero if there
	// is nothing to compare. The range is empty if there were no such days.
	PreviousFrom, PreviousTo time.Time

	weekStart time.Weekday
	edges     []int64 // starts of the buckets and the end of the last, in seconds since 1970
}

// Zone returns the zone of the range.
func (r Range) Zone() *time.Location { return r.From.Location() }

// Starts returns the starts of the buckets. The first bucket begins with the range, and
// the last ends with it, whatever the interval.
func (r Range) Starts() []time.Time {
	starts := make([]time.Time, len(r.edges)-1)
	for i := range starts {
		starts[i] = time.Unix(r.edges[i], 0).In(r.Zone())
	}
	return starts
}

// Compared reports whether there is a range to compare with.
func (r Range) Compared() bool { return !r.PreviousFrom.IsZero() }

// Undivided returns the range with one bucket.
func (r Range) Undivided() Range {
	if !r.empty() {
		r.edges = []int64{r.From.Unix(), r.To.Unix()}
	}
	return r
}

// previous returns the range to compare with, as one bucket.
func (r Range) previous() Range { return oneBucket(r.PreviousFrom, r.PreviousTo) }

// oneBucket returns a range that is not divided.
func oneBucket(from, to time.Time) Range {
	return Range{From: from, To: to, edges: []int64{from.Unix(), to.Unix()}}
}

// empty reports whether the range has no moment in it.
func (r Range) empty() bool { return !r.From.Before(r.To) }

// days returns the first UTC day that has a part of the range, and the first after it
// that has none.
func (r Range) days() (from, to time.Time) {
	last := r.To.Add(-1).UTC().Truncate(daySeconds * time.Second)
	return r.From.UTC().Truncate(daySeconds * time.Second), last.AddDate(0, 0, 1)
}

// wholeDays returns the first UTC day that is in the range as a whole, and the first
// after it that is not. They are the same if there is none.
func (r Range) wholeDays() (from, to time.Time) {
	from, to = r.days()
	if from.Before(r.From) {
		from = from.AddDate(0, 0, 1)
	}
	if to.After(r.To) {
		to = to.AddDate(0, 0, -1)
	}
	if to.Before(from) {
		to = from
	}
	return from, to
}

// raggedEnd returns the UTC day in which the range ends and does not begin, nil if there
// is none. A row of that day is in the range as a whole if its last click is.
func (r Range) raggedEnd() *time.Time {
	first, end := r.days()
	if last := end.AddDate(0, 0, -1); end.After(r.To) && (last.After(first) || !first.Before(r.From)) {
		return &last
	}
	return nil
}

// raggedDays returns the UTC days that are only partly in the range.
func (r Range) raggedDays() (days []time.Time) {
	first, end := r.days()
	last := end.AddDate(0, 0, -1)
	if first.Before(r.From) || first.Equal(last) && end.After(r.To) {
		days = append(days, first)
	}
	if end.After(r.To) && !last.Equal(first) {
		days = append(days, last)
	}
	return days
}

// outside stands for quarters that are not in the range.
const outside = -1

// bucketsOf returns the number of the bucket that each quarter of a UTC day is in, or
// outside.
func (r Range) bucketsOf(day time.Time) (buckets [Quarters]int) {
	start := day.Unix()
	next, _ := slices.BinarySearch(r.edges, start+1) // the first edge after the start
	for q := range buckets {
		at := start + int64(q)*int64(quarter/time.Second)
		for next < len(r.edges) && r.edges[next] <= at {
			next++
		}
		buckets[q] = next - 1
		if next == len(r.edges) {
			buckets[q] = outside
		}
	}
	return buckets
}

// Extent is the time over which there are statistics: from the first UTC day with a
// click to the last. Both are zero if there is none.
type Extent struct{ First, Last time.Time }

// Resolve returns the range that is asked for. now is the present time, and extent is
// only used for the range all. Any error is of type RequestErrors.
func (a Request) Resolve(now time.Time, extent Extent) (Range, error) {
	var faults RequestErrors
	loc, err := zone.Load(a.Zone)
	if err != nil {
		faults.add("tz", err.Error())
		loc = time.UTC // to find further faults
	}
	r := Range{weekStart: a.firstWeekday(&faults)}
	back := a.span(&r, now.In(loc), extent, &faults)
	a.divide(&r, &faults)
	a.compareWith(&r, back, &faults)
	if len(faults) > 0 {
		return Range{}, faults
	}
	return r, nil
}

func (a Request) firstWeekday(faults *RequestErrors) time.Weekday {
	switch a.WeekStart {
	case "", "monday":
	case "sunday":
		return time.Sunday
	default:
		faults.add("week_start", "must be monday or sunday")
	}
	return time.Monday
}

// span sets the ends of the range. It returns the step from the range to the one before
// it, the zero step if there is none.
func (a Request) span(r *Range, now time.Time, extent Extent, faults *RequestErrors) step {
	if a.From != "" || a.To != "" {
		if a.Range != "" {
			faults.add("range", "cannot be used together with from and to")
		}
		return a.between(r, now, faults)
	}
	today := dateAt(now)
	r.To = endOfQuarter(now)
	days := func(n int) step {
		r.From = today.add(0, 1-n).midnight(now.Location())
		return step{days: n}
	}
	switch a.Range {
	case "today":
		return days(1)
	case "yesterday":
		r.To = today.midnight(now.Location())
		r.From = today.add(0, -1).midnight(now.Location())
		return step{days: 1}
	case "24h":
		r.From = startOfHour(now).Add(-23 * time.Hour)
		return step{exact: 24 * time.Hour}
	case "7d":
		return days(7)
	case "", "30d":
		return days(30)
	case "90d":
		return days(90)
	case "12mo":
		r.From = today.monthStart().add(-11, 0).midnight(now.Location())
		return step{months: 12}
	case "mtd":
		r.From = today.monthStart().midnight(now.Location())
		return step{months: 1}
	case "ytd":
		r.From = date{today.year, time.January, 1}.midnight(now.Location())
		return step{months: 12}
	case "all":
		r.From = today.midnight(now.Location())
		if !extent.First.IsZero() && extent.First.Before(r.From) {
			r.From = dateAt(extent.First.In(now.Location())).midnight(now.Location())
		}
		if extent.Last.After(now) { // imported clicks may be of tomorrow
			r.To = extent.Last.Add(daySeconds * time.Second).In(now.Location())
		}
		return step{}
	}
	faults.add("range", "must be today, yesterday, 24h, 7d, 30d, 90d, 12mo, mtd, ytd or all")
	return days(1)
}

// earliest is before every click: events begin with the year 2000 in some zone.
var earliest = time.Date(1999, time.December, 31, 0, 0, 0, 0, time.UTC)

// between sets the ends of the range to From and To. The step of whole days is a number
// of days, so that the range before it has whole days too.
func (a Request) between(r *Range, now time.Time, faults *RequestErrors) step {
	loc, latest := now.Location(), now.AddDate(1, 0, 0)
	r.From, r.To = now.Truncate(quarter), endOfQuarter(now)
	if a.From == "" {
		faults.add("from", "is required with to")
	} else if from, message := parseTime(a.From, loc, latest); message != "" {
		faults.add("from", message)
	} else {
		r.From = from.Truncate(quarter)
	}
	if a.To != "" {
		if to, message := parseTime(a.To, loc, latest); message != "" {
			faults.add("to", message)
		} else {
			r.To = to.Add(quarter - 1).Truncate(quarter)
		}
	}
	if r.empty() {
		if len(*faults) == 0 {
			faults.add("from", "must be before to, and before the present if there is no to")
		}
		r.To = r.From.Add(quarter) // to find further faults
	}
	first, end := dateAt(r.From), dateAt(r.To)
	if r.From.Equal(first.midnight(loc)) && r.To.Equal(end.midnight(loc)) {
		return step{days: first.daysUntil(end)}
	}
	return step{exact: r.To.Sub(r.From)}
}

// parseTime reads a date or time of a request. The message is "" if it is sound. A plus
// sign that was not percent-encoded arrives as a blank.
func parseTime(text string, loc *time.Location, latest time.Time) (t time.Time, message string) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		t = date{day.Year(), day.Month(), day.Day()}.midnight(loc)
	} else if t, err = time.Parse(time.RFC3339, strings.Replace(strings.ToUpper(text), " ", "+", 1)); err != nil {
		return t, "must be a date such as 2026-01-31, or a time in RFC 3339 such as 2026-01-31T12:00:00Z"
	}
	switch {
	case t.Before(earliest):
		return t, "must not be before 2000"
	case t.After(latest):
		return t, "must be at most a year ahead"
	}
	return t.In(loc), ""
}

// divide sets the interval and the buckets.
func (a Request) divide(r *Range, faults *RequestErrors) {
	switch r.Interval = Interval(a.Interval); r.Interval {
	case ByQuarter, ByHour, ByDay, ByWeek, ByMonth:
	case "", "auto":
		r.Interval = usualInterval(r.To.Sub(r.From))
	default:
		faults.add("interval", "must be auto, 15m, hour, day, week or month")
		return
	}
	for t := r.From; t.Before(r.To); t = r.bucketAfter(t) {
		if len(r.edges) == maxBuckets {
			faults.add("interval", "divides this range into more than 10000 parts: ask for longer ones")
			return
		}
		r.edges = append(r.edges, t.Unix())
	}
	r.edges = append(r.edges, r.To.Unix())
}

func usualInterval(length time.Duration) Interval {
	const day = 24 * time.Hour
	switch {
	case length <= 2*day:
		return ByHour
	case length <= 93*day:
		return ByDay
	case length <= 190*day:
		return ByWeek
	}
	return ByMonth
}

// bucketAfter returns the start of the first bucket that begins after t.
func (r Range) bucketAfter(t time.Time) time.Time {
	switch r.Interval {
	case ByQuarter:
		return t.Add(quarter)
	case ByHour:
		return hourAfter(t)
	}
	day, step := dateAt(t), date.nextDay
	switch r.Interval {
	case ByWeek:
		for day.weekday() != r.weekStart {
			day = day.nextDay()
		}
		step = date.nextWeek
	case ByMonth:
		day, step = day.monthStart(), date.nextMonth
	}
	for {
		if start := day.midnight(t.Location()); start.After(t) {
			return start
		}
		day = step(day)
	}
}

// compareWith sets the range to compare with.
func (a Request) compareWith(r *Range, back step, faults *RequestErrors) {
	switch a.Compare {
	case "":
		return
	case "previous":
	case "year":
		if back != (step{}) {
			back = step{months: 12}
		}
	default:
		faults.add("compare", "must be previous or year")
		return
	}
	if back == (step{}) {
		faults.add("compare", "cannot be used with the range all, before which there is nothing")
		return
	}
	r.PreviousFrom, r.PreviousTo = back.before(r.From), back.endBefore(r.To)
}

// step is the way from a time to an earlier one: an exact time, or days or months of
// the calendar.
type step struct {
	exact        time.Duration
	months, days int
}

// endBefore is before for the end of a range, which is not part of it: where the earlier
// month does not have the day, all of that month is in the range.
func (s step) endBefore(t time.Time) time.Time {
	if s.months > 0 {
		month := dateAt(t).monthStart().add(-s.months, 0)
		if next := month.nextMonth(); dateAt(t).day > next.add(0, -1).day {
			return next.midnight(t.Location())
		}
	}
	return s.before(t)
}

// before returns the time one step before t. A step of the calendar keeps the time since
// midnight; a day that the earlier month does not have becomes its last.
func (s step) before(t time.Time) time.Time {
	if s.exact != 0 {
		return t.Add(-s.exact)
	}
	loc, day := t.Location(), dateAt(t)
	target := day.add(0, -s.days)
	if s.months > 0 {
		target = day.monthStart().add(-s.months, 0)
		last := target.nextMonth().add(0, -1)
		target.day = min(day.day, last.day)
	}
	moved := target.midnight(loc).Add(t.Sub(day.midnight(loc)))
	if end := target.nextDay().midnight(loc); moved.After(end) {
		return end
	}
	return moved
}
