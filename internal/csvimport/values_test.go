package csvimport

import (
	"regexp"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"2025-09-28 11:47:10", "2025-09-28T11:47:10Z"},
		{"2025-09-28T11:47:10", "2025-09-28T11:47:10Z"},
		{" 2025-09-28 11:47:10\n", "2025-09-28T11:47:10Z"},
		{"2025-09-28 11:47", "2025-09-28T11:47:00Z"},
		{"2025-09-28", "2025-09-28T00:00:00Z"},
		{"2025-09-28 11:47:10.5", "2025-09-28T11:47:10.5Z"},
		{"2025-09-28 11:47:10,123456789", "2025-09-28T11:47:10.123456Z"},
		{"2025-09-28T11:47:10Z", "2025-09-28T11:47:10Z"},
		{"2025-09-28T11:47:10.25+02:00", "2025-09-28T09:47:10.25Z"},
		{"2025-09-28 11:47:10 +0530", "2025-09-28T06:17:10Z"},
		{"2025-09-28 11:47:10-08", "2025-09-28T19:47:10Z"},
		{"2025-09-28 11:47:10 UTC", "2025-09-28T11:47:10Z"},
		{"2024-02-29", "2024-02-29T00:00:00Z"},
		{"2000-02-29", "2000-02-29T00:00:00Z"},
		{"1969-12-31 23:59:59", "1969-12-31T23:59:59Z"},
		{"2025-12-31T23:30:00-01:00", "2026-01-01T00:30:00Z"},
		{"", ""},
		{"2025", ""},
		{"2025-9-28", ""},
		{"2025-02-29", ""},
		{"1900-02-29", ""},
		{"2025-04-31", ""},
		{"2025-00-10", ""},
		{"2025-13-10", ""},
		{"2025-09-00", ""},
		{"2025-09-28 24:00:00", ""},
		{"2025-09-28 11:60:00", ""},
		{"2025-09-28 11:00:60", ""},
		{"2025-09-28 11", ""},
		{"2025-09-28x11:47:10", ""},
		{"2025-09-28 1:47:10", ""},
		{"2025-09-28 11:47:10.", ""},
		{"2025-09-28 11:47:10.1234567890", ""},
		{"2025-09-28 11:47:10+2", ""},
		{"2025-09-28 11:47:10+02:0", ""},
		{"2025-09-28 11:47:10+16:00", ""},
		{"2025-09-28 11:47:10+02:60", ""},
		{"2025-09-28 11:47:10 CET", ""},
		{"2025-09-28 11:47:10 ", "2025-09-28T11:47:10Z"},
		{"28/09/2025", ""},
		{"1759060030", ""},
		{"+025-09-28", ""},
	}
	for _, test := range tests {
		got, ok := ParseTime(test.text)
		if ok != (test.want != "") || ok && got.Format(time.RFC3339Nano) != test.want {
			t.Errorf("ParseTime(%q) = %v, %v, want %q", test.text, got, ok, test.want)
		}
	}
}

func FuzzTime(f *testing.F) {
	for _, seed := range []string{"2025-09-28 11:47:10", "2025-09-28T11:47:10.25+02:00", "2024-02-29", "2025-01-01 00:00 UTC"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := ParseTime(text)
		if want, err := time.Parse(time.RFC3339Nano, text); err == nil && plainTime.MatchString(text) {
			if !ok || !got.Equal(want.Truncate(time.Microsecond)) {
				t.Fatalf("ParseTime(%q) = %v, %v, package time says %v", text, got, ok, want)
			}
		}
		if !ok {
			return
		}
		if got.Location() != time.UTC || got.Nanosecond()%1000 != 0 {
			t.Fatalf("ParseTime(%q) = %v", text, got)
		}
		if again, ok := ParseTime(got.Format(time.RFC3339Nano)); got.Year() >= 0 && got.Year() <= 9999 && (!ok || !again.Equal(got)) {
			t.Fatalf("ParseTime(%q) = %v, then %v", text, got, again)
		}
	})
}

// plainTime leaves out what package time accepts and RFC 3339 does not, or no clock
// shows: an hour of one digit, more than nine decimals, zones ahead by more than
// 15 hours or by an hour of 60 minutes.
var plainTime = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])$`)

func TestParseID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want int64
	}{{"1", 1}, {" 42 ", 42}, {"007", 7}, {"4503599627370496", MaxID}} {
		if got, ok := parseID(test.text); !ok || got != test.want {
			t.Errorf("parseID(%q) = %d, %v, want %d", test.text, got, ok, test.want)
		}
	}
	for _, text := range []string{
		"", "0", "-1", "+1", "1.0", "1e3", "4503599627370497", "9223372036854775808", "99999999999999999999999", "1 2", "१", "0x1",
	} {
		if got, ok := parseID(text); ok {
			t.Errorf("parseID(%q) = %d", text, got)
		}
	}
}

func TestParseBool(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"True", "true", "TRUE", "t", "1", "yes", "Y", " true "} {
		if value, ok := parseBool(text); !value || !ok {
			t.Errorf("parseBool(%q) = %v, %v", text, value, ok)
		}
	}
	for _, text := range []string{"False", "false", "F", "0", "no", "N"} {
		if value, ok := parseBool(text); value || !ok {
			t.Errorf("parseBool(%q) = %v, %v", text, value, ok)
		}
	}
	for _, text := range []string{"", "2", "active", "null"} {
		if value, ok := parseBool(text); ok {
			t.Errorf("parseBool(%q) = %v", text, value)
		}
	}
}
