package csvimport

import (
	"strings"
	"time"
)

// MaxID is the greatest id that a file may bring: a JSON number holds it exactly.
const MaxID = 1 << 52

// parseID reads an id from 1 to MaxID.
func parseID(s string) (int64, bool) {
	n, ok := parseNumber(s)
	return n, ok && n >= 1 && n <= MaxID
}

// parseNumber reads up to 18 digits with blanks around them.
func parseNumber(s string) (int64, bool) {
	if s = trim(s); s == "" || len(s) > 18 {
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
	case "true", "t", "1", "yes", "y", "on":
		return true, true
	case "false", "f", "0", "no", "n", "off":
		return false, true
	}
	return false, false
}

// ParseTime reads a date (2006-01-02), or a date and time with a T or a space
// between, with or without seconds, their fraction (after a point or comma) and
// a zone (Z, UTC, +01, +01:00, +0100). Without a zone it is UTC. The result is in UTC
// and whole microseconds; it is not rounded up.
func ParseTime(s string) (time.Time, bool) {
	c := clock{rest: trim(s)}
	year := c.digits(4)
	c.expect('-')
	month := c.digits(2)
	c.expect('-')
	day := c.digits(2)
	if c.bad || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return time.Time{}, false
	}
	if c.rest == "" {
		return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC), true
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
	offset := c.zone()
	if c.bad || c.rest != "" || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, micros*1000, time.UTC)
	return t.Add(-offset), true
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

// zone reads what is left as a zone, and returns how far it is ahead of UTC.
func (c *clock) zone() time.Duration {
	zone := strings.TrimPrefix(c.rest, " ")
	c.rest = ""
	switch zone {
	case "", "Z", "z", "UTC", "GMT":
		return 0
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
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if zone[0] == '-' {
		return -offset
	}
	return offset
}
