package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// reshipTimeout bounds the wait for the shipper, which may be in the midst of a
// transaction.
const reshipTimeout = 2 * shipTimeout

// reshipEvery is how often segments may be put back on request. Doing so makes new
// clicks wait, so that a loop of requests would slow them down for good.
const reshipEvery = time.Minute

// reshipped is what became of a wish to ship again.
type reshipped struct {
	put, waiting int
	err          error
}

// Reship has Run put every segment that was shipped and is still kept back in
// line, for a Postgres that lost what it had committed. It returns how many
// segments were put back and how many follow when the line is shorter. What
// Postgres has already is not counted twice, so asking again does no harm.
//
// The error says that Run did not answer before ctx ended, or that some of the
// segments could not be moved. May be called concurrently.
func (s *Shipper) Reship(ctx context.Context) (put, waiting int, err error) {
	asked := make(chan reshipped, 1)
	select {
	case s.asked <- asked:
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("ask the shipper: %w", ctx.Err())
	}
	select {
	case r := <-asked:
		return r.put, r.waiting, r.err
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("wait for the shipper: %w", ctx.Err())
	}
}

// answerAsked does what Reship asked for meanwhile, if it did.
func (s *Shipper) answerAsked(ctx context.Context) {
	select {
	case asked := <-s.asked:
		s.putBack(ctx, asked)
	default:
	}
}

func (s *Shipper) putBack(ctx context.Context, asked chan<- reshipped) {
	s.reshipped = time.Now()
	put, waiting, err := s.Spool.Reship(s.reshipped)
	s.Log.InfoContext(ctx, "kept segments are shipped again", "segments", put, "waiting", waiting)
	if err != nil {
		s.Log.WarnContext(ctx, "some kept segments cannot be shipped again", "error", err)
	}
	if waiting == 0 {
		s.reshipped = time.Time{}
	}
	asked <- reshipped{put, waiting, err}
}

// reshipRest puts back what found no room in the line before.
func (s *Shipper) reshipRest(ctx context.Context) {
	if s.reshipped.IsZero() {
		return
	}
	put, waiting, err := s.Spool.Reship(s.reshipped)
	if put > 0 {
		s.Log.InfoContext(ctx, "kept segments are shipped again", "segments", put, "waiting", waiting)
	}
	if err == nil && waiting == 0 {
		s.reshipped = time.Time{}
	}
}

// ReshipHandler answers POST with {"segments": n, "waiting": n}: see Reship. One
// request at a time is served, and for a minute after it put segments back every
// other gets 429: each brings hundreds of segments into line before new clicks. It
// lets anyone ask, and is served through Operators.Only.
func (s *Shipper) ReshipHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), reshipTimeout)
		defer cancel()
		actor, _ := actorFrom(ctx)
		put, waiting, err := s.reshipOnce(ctx)
		if err != nil {
			refuse(w, s.Log, err)
			return
		}
		s.Log.InfoContext(ctx, "reshipping was asked for", "by", actor.Name, "segments", put, "waiting", waiting)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]int{"segments": put, "waiting": waiting}) // a client that went away is no concern
	})
}

// reshipOnce is Reship unless another is under way or was within reshipEvery. Its
// errors can be answered with.
func (s *Shipper) reshipOnce(ctx context.Context) (put, waiting int, err error) {
	if !s.reshipping.TryLock() {
		return 0, 0, tooMany("segments are being put back, wait for that to end", time.Second)
	}
	defer s.reshipping.Unlock()
	if wait := time.Until(s.reshipNext); wait > 0 {
		return 0, 0, tooMany("segments were put back within the last minute, which is as often as that may be", wait)
	}
	put, waiting, err = s.Reship(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		busy := unavailable("the shipper is busy or stopping")
		busy.RetryAfter = 5 * time.Second
		return 0, 0, busy
	case err != nil:
		return 0, 0, &Error{Status: http.StatusInternalServerError, Message: fmt.Sprintf("%d segments were put back; others could not be moved: the log says why", put)}
	}
	s.reshipNext = time.Now().Add(reshipEvery)
	return put, waiting, nil
}
