package cli

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signpost/signpost/internal/client"
)

// TestRetryCountsFromTheFailure checks that a server has five minutes to come back,
// however long the interrupted try had taken.
func TestRetryCountsFromTheFailure(t *testing.T) {
	t.Parallel()
	away := &client.Error{Status: http.StatusServiceUnavailable, Message: "away"}
	for _, tt := range []struct {
		name    string
		tries   []time.Duration // how long each try takes before it fails; the last value is used for all further tries
		succeed int             // number of the try that succeeds, 0 for none
		want    time.Duration   // time until the last failure
		within  time.Duration
	}{
		{"away from the beginning", []time.Duration{0}, 0, remotePatience, 2 * remoteWait},
		{"breaks off late", []time.Duration{6 * time.Minute, 0}, 0, 6*time.Minute + remotePatience, 2 * remoteWait},
		{"breaks off late twice", []time.Duration{6 * time.Minute, 0, 0, 7 * time.Minute, 0}, 0, 13*time.Minute + remotePatience, 3 * remoteWait},
		{"never answers", []time.Duration{time.Minute}, 0, time.Minute + remotePatience, time.Minute + 2*remoteWait},
		{"comes back", []time.Duration{6 * time.Minute, 0, time.Minute}, 3, 7 * time.Minute, 2 * remoteWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun, tries := time.Now(), 0
				err := retry(t.Context(), &meter{out: io.Discard}, func() error {
					<-time.After(tt.tries[min(tries, len(tt.tries)-1)])
					if tries++; tries == tt.succeed {
						return nil
					}
					return away
				})
				if took := time.Since(begun); took < tt.want || took > tt.want+tt.within {
					t.Errorf("ended after %v and %d tries, want %v", took, tries, tt.want)
				}
				if ok := tt.succeed > 0; ok != (err == nil) || !ok && !errors.Is(err, away) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}
