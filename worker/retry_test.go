package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/riverqueue/river/rivertype"
)

func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	for failures, seconds := range []int{1, 2, 4, 8, 10, 10, 10} {
		want := time.Duration(seconds) * time.Second
		next := retryPolicy{}.NextRetry(&rivertype.JobRow{Errors: make([]rivertype.AttemptError, failures)})
		if wait := time.Until(next); wait > want || wait < want*8/10 {
			t.Errorf("after %d failures: %v, want about %v", failures, wait, want)
		}
	}
}

func TestParseQueues(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                       "map[clicks:2 imports:2 maintenance:2 retention:1]",
		"clicks=3":               "map[clicks:3]",
		"clicks = 1 , imports=4": "map[clicks:1 imports:4]",
	} {
		got, err := ParseQueues(text)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: got %v, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"clics=1":           `no queue is called "clics": there are clicks, imports, maintenance, retention`,
		"clicks":            `queue "clicks": want a number from 1 to 1000 after '=', as in clicks=2`,
		"clicks=0":          `queue "clicks": want a number from 1 to 1000 after '=', as in clicks=2`,
		"clicks=1001":       `queue "clicks": want a number from 1 to 1000 after '=', as in clicks=2`,
		"clicks=1,clicks=2": `queue "clicks" is named twice`,
		"clicks=1,":         `no queue is called "": there are clicks, imports, maintenance, retention`,
	} {
		if _, err := ParseQueues(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
