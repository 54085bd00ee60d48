// Package promise is for tests of bounds that users are promised.
package promise

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// report is the environment variable with the file that collects the figures. "make
// test" sets it and prints the file.
const report = "SIGNPOST_BOUNDS"

// Kept reports the time that a test saw for a promised bound, and fails the test when
// that is more than limit: several times the bound, since the machine of a test may be
// busy. what names the bound in a few words; for equal names "make test" prints the
// worst figure.
func Kept(tb testing.TB, what string, promised, limit, seen time.Duration) {
	tb.Helper()
	seen = seen.Round(100 * time.Microsecond)
	tb.Logf("bound: %s: promised %s, seen %s", what, promised, seen)
	if seen > limit {
		tb.Errorf("%s: promised within %s, took %s", what, promised, seen)
	}
	path := os.Getenv(report)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s\t%s\t%.1f\n", what, promised, seen.Seconds()*1000)
	}
	if err != nil {
		tb.Errorf("report a bound: %v", err)
		return
	}
	if err := f.Close(); err != nil {
		tb.Errorf("report a bound: %v", err)
	}
}
