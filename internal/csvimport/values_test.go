package csvimport

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/zone"
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
		{"2025-09-28 11:47:10.", ""},
		{"2025-09-28 11:47:10+2", ""},
		{"2025-09-28 11:47:10+02:0", ""},
		{"2025-09-28 11:47:10+16:00", ""},
		{"2025-09-28 11:47:10 CET", ""},
		{"2025-09-28 11:47:10 ", "2025-09-28T11:47:10Z"},
		{"28/09/2025", ""},
		{"1759060030", ""},
		{"+025-09-28", ""},
	}
	for _, test := range tests {
		got, ok := parseTime(trim(test.text), time.UTC)
		if ok != (test.want != "") || ok && got.Format(time.RFC3339Nano) != test.want {
			t.Errorf("parseTime(%q) = %v, %v, want %q", test.text, got, ok, test.want)
		}
	}
}

func FuzzTime(f *testing.F) {
	for _, seed := range []string{
		"2025-09-28 11:47:10", "2025-09-28T11:47:10.25+02:00", "2024-02-29", "2025-01-01 00:00 UTC", "1714550400.25", "1714550400000", "5/1/2024", "2024-03-31 02:30",
	} {
		f.Add(seed)
	}
	berlin, err := zone.Load("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	here, there := Layout{}.Parser(Rules{}), Layout{}.Parser(Rules{Zone: berlin})
	f.Fuzz(func(t *testing.T, text string) {
		utc, reason := here.time(text)
		local, localReason := there.time(text)
		if reason != localReason {
			t.Fatalf("%q %q, and with a zone %q", text, reason, localReason)
		}
		if ahead := utc.Sub(local); reason == "" && (ahead < 0 || ahead > 3*time.Hour) {
			t.Fatalf("%q is %v, and %v in Berlin", text, utc, local)
		}
		got, ok := parseTime(text, time.UTC)
		if want, err := time.Parse(time.RFC3339Nano, text); err == nil && plainTime.MatchString(text) {
			if !ok || !got.Equal(want.Truncate(time.Microsecond)) {
				t.Fatalf("parseTime(%q) = %v, %v, package time says %v", text, got, ok, want)
			}
		}
		if !ok {
			return
		}
		if got.Location() != time.UTC || got.Nanosecond()%1000 != 0 {
			t.Fatalf("parseTime(%q) = %v", text, got)
		}
		if again, ok := parseTime(got.Format(time.RFC3339Nano), time.UTC); got.Year() >= 0 && got.Year() <= 9999 && (!ok || !again.Equal(got)) {
			t.Fatalf("parseTime(%q) = %v, then %v", text, got, again)
		}
	})
}

// plainTime excludes times that package time accepts, but RFC 3339 does not or no clock
// shows: an hour of one digit, more than nine decimals, and zones ahead by more than 15
// hours or by an hour of 60 minutes.
var plainTime = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])$`)

func TestParseID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want int64
	}{
		{"1", 1},
		{" 42 ", 42},
		{"007", 7},
		{"4503599627370496", MaxID},
		{"12.0", 12},
		{"12.00", 12},
		{"1,204", 1204},
		{"12,345,678", 12345678},
		{" 1,204.0", 1204},
		{"4,503,599,627,370,496.0", MaxID},
	} {
		if got, ok := parseID(test.text); !ok || got != test.want {
			t.Errorf("parseID(%q) = %d, %v, want %d", test.text, got, ok, test.want)
		}
	}
	for _, text := range []string{
		"", "0", "-1", "+1", "1.5", "1.", "1.000", "12,04", "1,2345", "0,123", "1234,567", ",123", "1,204.5", "1e3", "1,,204", "4503599627370497", "9223372036854775808", "99999999999999999999999", "1 2", "१", "0x1",
	} {
		if got, ok := parseID(text); ok {
			t.Errorf("parseID(%q) = %d", text, got)
		}
	}
}

func TestParseBool(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"True", "true", "TRUE", "t", "1", "yes", "Y", " true ", "1.0"} {
		if value, ok := parseBool(text); !value || !ok {
			t.Errorf("parseBool(%q) = %v, %v", text, value, ok)
		}
	}
	for _, text := range []string{"False", "false", "F", "0", "0.0", "no", "N"} {
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

func TestTimes(t *testing.T) {
	t.Parallel()
	berlin, err := Layout{Timezone: "Europe/Berlin"}.Zone()
	require.NoError(t, err)
	parser := Layout{}.Parser(Rules{Zone: berlin})
	for text, want := range map[string]string{
		"2024-05-01 08:00":       "2024-05-01T06:00:00Z",
		"2024-01-01 08:00":       "2024-01-01T07:00:00Z",
		"2024-05-01":             "2024-04-30T22:00:00Z",
		"2024-05-01 08:00Z":      "2024-05-01T08:00:00Z",
		"2024-05-01T08:00+01":    "2024-05-01T07:00:00Z",
		"1714550400":             "2024-05-01T08:00:00Z",
		"1714550400.0":           "2024-05-01T08:00:00Z",
		"1714550400.25":          "2024-05-01T08:00:00.25Z",
		"1714550400000":          "2024-05-01T08:00:00Z",
		"1714550400123.5":        "2024-05-01T08:00:00.1235Z",
		"100000000":              "1973-03-03T09:46:40Z",
		"946684800000":           "2000-01-01T00:00:00Z",
		"9999999999":             "2286-11-20T17:46:39Z",
		"9999999999999":          "2286-11-20T17:46:39.999Z",
		"2024-05-01 08:00 +01":   "2024-05-01T07:00:00Z",
		"2024-05-01 08:00 utc":   "2024-05-01T08:00:00Z",
		"2024-05-01 1 1:47:10":   reasonTime,
		"2024-05-01 11:47: 10":   reasonTime,
		"2024-05-01 11:4 7":      reasonTime,
		"2024-05-01 08:00+02:60": reasonTime,
		"2024-03-31 02:30":       "2024-03-31T01:30:00Z", // the clocks skipped this time
		"2024-10-27 02:30":       "2024-10-27T01:30:00Z", // the second of two such times
		"5/1/2024":               reasonDay,
		"5/1/2024 8:00":          reasonDay,
		"05/01/24, 8:00 AM":      reasonDay,
		"05.01.2024":             reasonDay,
		"5-1-2024T08:00":         reasonDay,
		"25.12.2024":             reasonDay,
		"5/1/2024x":              reasonTime,
		"5/1/024":                reasonTime,
		"-5/1/2024":              reasonTime,
		"12345678":               reasonTime,
		"12345678901":            reasonTime,
		"202405010800":           reasonTime, // no milliseconds
		"199905010800":           reasonTime,
		"20240501080000":         reasonTime,
		"1714550400.":            reasonTime,
		"1714550400.0.0":         reasonTime,
		"1714550400.1234567890":  reasonTime,
		"-1714550400":            reasonTime,
		"1,714,550,400":          reasonTime,
	} {
		got, reason := parser.time(text)
		if reason == "" {
			reason = got.Format(time.RFC3339Nano)
		}
		if reason != want {
			t.Errorf("%q is read as %q, want %q", text, reason, want)
		}
	}
	for text, want := range map[string]bool{
		"0000-00-00": true, "0000-00-00 00:00:00": true, "0000-00-00T00:00:00.000Z": true, "0000-00-00 00:00:01": false, "0000-01-01": false,
	} {
		if zeroDate(text) != want {
			t.Errorf("%q is no time given: %v, want %v", text, !want, want)
		}
	}
}

func TestTimezones(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Kathmandu"} {
		assert.NoErrorf(t, CheckTimezone(name), "%q", name)
	}
	for _, name := range []string{
		"Local", "localtime", "posixrules", "right/Europe/Berlin", "europe/berlin", "Mars/Olympus", "+02:00", "../etc/passwd", "/etc/localtime",
		"Europe/../Europe/Berlin", "Europe", "E\x00", strings.Repeat("E", 10_000), " ",
	} {
		if err := CheckTimezone(name); err == nil {
			t.Errorf("%q is a time zone", name)
		}
	}
}
