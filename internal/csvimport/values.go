package csvimport

import (
	"errors"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // zones are known wherever the program runs
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

// parseTime reads a date (2006-01-02), or a date and a time with a T or a space between
// them. Seconds, their fraction (after a point or comma) and a zone (Z, UTC, +01,
// +01:00, +0100) may be missing. A time without a zone is in zone, where clocks that
// are changed show some times twice and others never: such a time is taken as
// [time.Date] takes it, by the offset before the change or after it. The result is in
// UTC, cut off to whole microseconds.
func parseTime(s string, zone *time.Location) (time.Time, bool) {
	c := clock{rest: s}
	year := c.digits(4)
	c.expect('-')
	month := c.digits(2)
	c.expect('-')
	day := c.digits(2)
	if c.bad || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return time.Time{}, false
	}
	if c.rest == "" {
		return time.Date(year, time.Month(month), day, 0, 0, 0, 0, zone).UTC(), true
	}
	if c.rest[0] != 'T' && c.rest[0] != 't' && c.rest[0] != ' ' {
		return time.Time{}, false
	}
	c.rest = c.rest[1:]
	hour := c.digits(2)
	c.expect(':')
	minute := c.digits(2)
	second, micros := 0, 0
	if c.rest != "" && c.rest[0] == ':' {
		c.rest = c.rest[1:]
		second, micros = c.digits(2), c.fraction()
	}
	offset, told := c.zone()
	if c.bad || c.rest != "" || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	if told {
		zone = time.UTC
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, micros*1000, zone)
	return t.UTC().Add(-offset), true
}

// sinceEpoch reads the seconds (9 or 10 digits) or milliseconds (12 or 13) since
// 1970, which may have a fraction.
func sinceEpoch(s string) (time.Time, bool) {
	n := len(s) - len(strings.TrimLeft(s, "0123456789"))
	whole, ok := parseDigits(s[:n])
	c := clock{rest: s[n:]}
	micros := c.fraction() // millionths of the unit
	switch {
	case !ok || c.bad || c.rest != "":
	case n == 9 || n == 10:
		return time.Unix(whole, int64(micros)*1000).UTC(), true
	case n == 12 && (s[0] == '1' && s[1] == '9' || s[0] == '2' && s[1] == '0'): // 202405010800
	case n == 12 || n == 13:
		return time.UnixMicro(whole*1000 + int64(micros)/1000).UTC(), true
	}
	return time.Time{}, false
}

// zeroDate reports whether s is how MySQL writes that there is no time.
func zeroDate(s string) bool {
	rest, ok := strings.CutPrefix(s, "0000-00-00")
	return ok && strings.Trim(rest, "0:. TZ") == ""
}

// dayMonth matches dates that some countries read as day and month, and others as month
// and day.
var dayMonth = regexp.MustCompile(`^[0-9]{1,2}([/.-])[0-9]{1,2}([/.-])([0-9]{4}|[0-9]{2})($|[ ,T])`)

// errTimezone is fit for users.
var errTimezone = errors.New("must be the name of a time zone, such as UTC or Europe/Berlin")

// CheckTimezone returns an error, fit for users, unless name is a time zone of the IANA
// database; "" is UTC.
func CheckTimezone(name string) error {
	_, err := loadZone(name)
	return err
}

// Zone returns the time zone of times that name none.
func (l Layout) Zone() (*time.Location, error) { return loadZone(l.Timezone) }

// loadZone refuses names that mean something else on each machine, such as Local and
// localtime, and other files that a system keeps beside its zones.
func loadZone(name string) (*time.Location, error) {
	if name != "" && (name[0] < 'A' || name[0] > 'Z') || name == "Local" {
		return nil, errTimezone
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, errTimezone
	}
	return zone, nil
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// A clock reads the parts of a time; bad stays true after the first wrong one.
type clock struct {
	rest string
	bad  bool
}

func (c *clock) digits(n int) int {
	if len(c.rest) < n {
		c.bad = true
		return 0
	}
	value := 0
	for i := range n {
		d := c.rest[i] - '0'
		c.bad = c.bad || d > 9
		value = value*10 + int(d)
	}
	c.rest = c.rest[n:]
	return value
}

func (c *clock) expect(b byte) {
	if c.rest == "" || c.rest[0] != b {
		c.bad = true
		return
	}
	c.rest = c.rest[1:]
}

// fraction reads 1 to 9 decimals of a second, if there are any, as microseconds.
func (c *clock) fraction() int {
	if c.rest == "" || c.rest[0] != '.' && c.rest[0] != ',' {
		return 0
	}
	c.rest = c.rest[1:]
	micros, n := 0, 0
	for n < len(c.rest) && c.rest[n]-'0' <= 9 {
		if n < 6 {
			micros = micros*10 + int(c.rest[n]-'0')
		}
		n++
	}
	c.bad = c.bad || n < 1 || n > 9
	c.rest = c.rest[n:]
	for ; n < 6; n++ {
		micros *= 10
	}
	return micros
}

// zone reads the rest of the text as a zone. It returns how far the zone is ahead of
// UTC, and whether there is one.
func (c *clock) zone() (offset time.Duration, told bool) {
	zone := strings.TrimPrefix(c.rest, " ")
	c.rest = ""
	switch zone {
	case "":
		return 0, false
	case "Z", "z", "UTC", "GMT":
		return 0, true
	}
	z := clock{rest: zone[1:]}
	hours, minutes := z.digits(2), 0
	if strings.HasPrefix(z.rest, ":") {
		z.rest = z.rest[1:]
		minutes = z.digits(2)
	} else if z.rest != "" {
		minutes = z.digits(2)
	}
	// No place is more than 14 hours ahead, or 12 behind.
	c.bad = c.bad || z.bad || z.rest != "" || zone[0] != '+' && zone[0] != '-' || hours > 15 || minutes > 59
	offset = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if zone[0] == '-' {
		return -offset, true
	}
	return offset, true
}
