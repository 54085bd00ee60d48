package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/signpost/signpost/internal/shipping"
)

// NewReshipHandler answers POST with {"segments": n, "waiting": n}, see
// [shipping.Shipper.Reship]. It does not check who asks, so it is served through
// Operators.Only.
func NewReshipHandler(s *shipping.Shipper, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		put, waiting, err := s.Reship(ctx)
		if err != nil {
			refuse(w, log, reshipError(err, put))
			return
		}
		actor, _ := actorFrom(ctx)
		log.InfoContext(ctx, "reshipping was asked for", slog.String("by", actor.Name), slog.Int("segments", put), slog.Int("waiting", waiting))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]int{"segments": put, "waiting": waiting}) // a client that went away is no concern
	})
}

func reshipError(err error, put int) error {
	var busy *shipping.BusyError
	if errors.As(err, &busy) {
		return tooMany(busy.Reason, busy.RetryAfter)
	}
	return &Error{Status: http.StatusInternalServerError, Message: fmt.Sprintf("%d segments were put back; others could not be moved: the log says why", put)}
}
