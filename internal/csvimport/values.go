package csvimport

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/zone"
)

// MaxID is the greatest id that a file may bring: a JSON number holds it exactly.
const MaxID = 1 << 52

// parseID reads an id from 1 to MaxID.
func parseID(s string) (int64, bool) {
	n, ok := parseNumber(s)
	return n, ok && n >= 1 && n <= MaxID
}

// parseNumber reads a whole number of up to 18 digits, with or without blanks around
// it. Decimals that are zero (12.0, 12.00) are accepted, since programs write them, and
// so are groups of three digits (1,204).
func parseNumber(s string) (int64, bool) {
	s = trim(s)
	if n, ok := parseDigits(s); ok || s == "" {
		return n, ok
	}
	parts := looseNumber.FindStringSubmatch(s)
	if parts == nil {
		return 0, false
	}
	return parseDigits(strings.ReplaceAll(parts[1], ",", ""))
}

// looseNumber does not match 12.000, which may mean twelve thousand.
var looseNumber = regexp.MustCompile(`^([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.00?)?$`)

// parseDigits reads up to 18 digits.
func parseDigits(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// trim removes blanks around a number, time or truth value.
func trim(s string) string {
	if s != "" && s[0] > ' ' && s[len(s)-1] > ' ' {
		return s
	}
	return strings.Trim(s, " \t\r\n")
}

func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(trim(s)) {
	case "true", "t", "1", "1.0", "yes", "y", "on":
		return true, true
	case "false", "f", "0", "0.0", "no", "n", "off":
		return false, true
	}
	return false, false
}

// timeLayouts are the forms of a time after plainForm; the most frequent ones come
// first. A fraction may follow the seconds in each.
var timeLayouts = [...]string{
	time.DateTime, time.DateTime + "Z07:00", time.DateOnly, time.DateTime + "Z07", time.DateTime + "Z0700",
	"2006-01-02 15:04", "2006-01-02 15:04Z07:00", "2006-01-02 15:04Z07", "2006-01-02 15:04Z0700",
}

// maxOffset is more seconds than any place is ahead of UTC or behind it.
const maxOffset = 16 * 60 * 60

// parseTime reads a date (2006-01-02), or a date and a time with a T or a space between
// them. Seconds, their fraction (after a point or comma) and a zone (Z, UTC, +01,
// +01:00, +0100) may be missing. A time without a zone is in zone, where clocks that
// are changed show some times twice and others never: such a time is taken as
// [time.Date] takes it, by the offset before the change or after it. The result is in
// UTC, cut off to whole microseconds.
func parseTime(s string, zone *time.Location) (time.Time, bool) {
	s = plainForm(s)
	if offsetOf60.MatchString(s) {
		return time.Time{}, false
	}
	for _, layout := range timeLayouts {
		t, err := time.ParseInLocation(layout, s, zone)
		if err != nil {
			continue
		}
		_, offset := t.Zone()
		return t.UTC().Truncate(time.Microsecond), max(offset, -offset) < maxOffset
	}
	return time.Time{}, false
}

// offsetOf60 matches offsets of 60 minutes, which package time accepts.
var offsetOf60 = regexp.MustCompile(`[+-][0-9]{2}:?60$`)

// plainForm returns a time with a blank between date and time, none before the zone, and
// Z for UTC.
func plainForm(s string) string {
	s = strings.ToUpper(s)
	if len(s) <= len(time.DateOnly) {
		return s
	}
	date, clock := s[:len(time.DateOnly)], s[len(time.DateOnly):]
	for _, utc := range []string{"UTC", "GMT"} {
		if rest, ok := strings.CutSuffix(clock, utc); ok {
			clock = rest + "Z"
		}
	}
	if clock[0] == 'T' || clock[0] == ' ' {
		clock = " " + blankBeforeZone.ReplaceAllString(clock[1:], "$1")
	}
	return date + clock
}

var blankBeforeZone = regexp.MustCompile(` (Z|[+-][0-9:]+)$`)

// sinceEpoch reads the seconds (9 or 10 digits) or milliseconds (12 or 13) since
// 1970, which may have a fraction.
func sinceEpoch(s string) (time.Time, bool) {
	parts := epochForm.FindStringSubmatch(s)
	if parts == nil || len(parts[1]) == 12 && (s[:2] == "19" || s[:2] == "20") { // 202405010800
		return time.Time{}, false
	}
	whole, err := strconv.ParseInt(parts[1], 10, 64)
	at, unit := time.Unix(whole, 0), "s"
	if len(parts[1]) > 10 {
		at, unit = time.UnixMilli(whole), "ms"
	}
	fraction, fractionErr := time.ParseDuration("0" + strings.Replace(parts[2], ",", ".", 1) + unit)
	return at.Add(fraction).UTC().Truncate(time.Microsecond), err == nil && fractionErr == nil
}

var epochForm = regexp.MustCompile(`^([0-9]{9,10}|[0-9]{12,13})([.,][0-9]{1,9})?$`)

// zeroDate reports whether s is how MySQL writes that there is no time.
func zeroDate(s string) bool {
	rest, ok := strings.CutPrefix(s, "0000-00-00")
	return ok && strings.Trim(rest, "0:. TZ") == ""
}

// dayMonth matches dates that some countries read as day and month, and others as month
// and day.
var dayMonth = regexp.MustCompile(`^[0-9]{1,2}([/.-])[0-9]{1,2}([/.-])([0-9]{4}|[0-9]{2})($|[ ,T])`)

// CheckTimezone returns an error, fit for users, unless name is a time zone of the IANA
// database; "" is UTC.
func CheckTimezone(name string) error {
	_, err := zone.Load(name)
	return err
}

// Zone returns the time zone of times that name none.
func (l Layout) Zone() (*time.Location, error) { return zone.Load(l.Timezone) }
