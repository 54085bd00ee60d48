package rollup

import "time"

// date is a day of the calendar, with or without such a day in a zone.
type date struct {
	year  int
	month time.Month
	day   int
}

// dateAt returns the date of t in its zone.
func dateAt(t time.Time) date {
	y, m, d := t.Date()
	return date{y, m, d}
}

// utc returns the midnight of the date in UTC.
func (d date) utc() time.Time { return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC) }

func (d date) add(months, days int) date { return dateAt(d.utc().AddDate(0, months, days)) }

func (d date) nextDay() date              { return d.add(0, 1) }
func (d date) nextWeek() date             { return d.add(0, 7) }
func (d date) nextMonth() date            { return d.monthStart().add(1, 0) }
func (d date) monthStart() date           { return date{d.year, d.month, 1} }
func (d date) weekday() time.Weekday      { return d.utc().Weekday() }
func (d date) daysUntil(end date) (n int) { return int(end.utc().Sub(d.utc()) / (24 * time.Hour)) }

// midnight returns the moment from which on no clock of the zone shows an earlier date.
// A day whose first hour is left out begins with its second one. A day that begins
// twice, since the clocks are set back over midnight, begins at its last midnight. A day
// that is left out as a whole begins with the next one, and so is empty.
func (d date) midnight(zone *time.Location) time.Time {
	shown := d.utc().Unix() // seconds since 1970 that a clock shows at midnight
	t := time.Unix(shown, 0).Add(15 * time.Hour).In(zone)
	for { // each time that the clocks keep to one offset from UTC, the latest first
		_, offset := t.Zone()
		since, _ := t.ZoneBounds()
		if since.IsZero() || since.Unix()+int64(offset) < shown {
			return time.Unix(shown-int64(offset), 0).In(zone)
		}
		t = since.Add(-1)
		if _, before := t.Zone(); since.Unix()+int64(before) <= shown {
			return since
		}
	}
}

// hourAfter returns the next full hour of t's zone, or an earlier change of its clocks.
func hourAfter(t time.Time) time.Time {
	next := startOfHour(t).Add(time.Hour)
	_, change := t.ZoneBounds()
	if change.IsZero() || !change.Before(next) {
		return next
	}
	_, now := t.Zone()
	_, then := change.Zone() // the same if only the name of the time changes
	if change = change.Truncate(quarter); now != then && change.After(t) {
		return change
	}
	return next
}

// startOfHour returns the last full hour of t's zone, as its clocks go at t.
func startOfHour(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.Add(-time.Duration((t.Unix()+int64(offset))%3600) * time.Second).Truncate(time.Second)
}

// endOfQuarter returns the end of the quarter of an hour that t is in.
func endOfQuarter(t time.Time) time.Time {
	return t.Truncate(quarter).Add(quarter)
}
