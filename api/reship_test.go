package api

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/shipping"
)

func TestReshipErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err        error
		wantStatus int
		wantRetry  time.Duration
	}{
		{&shipping.BusyError{Reason: "busy", RetryAfter: time.Minute}, http.StatusTooManyRequests, time.Minute},
		{errors.New("rename: input/output error"), http.StatusInternalServerError, 0},
	} {
		var got *Error
		if err := reshipError(tt.err, 3); !errors.As(err, &got) || got.Status != tt.wantStatus || got.RetryAfter != tt.wantRetry {
			t.Errorf("%v: answered %+v, want %d and to retry after %s", tt.err, got, tt.wantStatus, tt.wantRetry)
		}
	}
}
