package shipping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// reshipEvery is how often Reship may put segments back. Segments that are put back
// make new clicks wait, so without this limit a loop of requests would slow them down
// for good.
const reshipEvery = time.Minute

// BusyError says that Reship put nothing back, and when to ask again.
type BusyError struct {
	Reason     string
	RetryAfter time.Duration
}

func (e *BusyError) Error() string { return e.Reason }

// ErrStopped is the error that Reship wraps when Run does not answer in time.
var ErrStopped = errors.New("the shipper is busy or stopping")

// reshipped is the answer of Run to Reship.
type reshipped struct {
	put, waiting int
	err          error
}

// Reship makes Run put segments back in line, namely all that were shipped and are
// still kept. It is for a Postgres that lost what it had committed. It returns the
// number of segments that were put back, and of those that follow once the line is
// shorter. Postgres does not count clicks again that it still has, so asking again does
// no harm.
//
// One call is served at a time, and after one has put segments back, every other call
// gets a [BusyError] for a minute. [ErrStopped] means that Run did not answer before
// ctx ended, and any other error that some of the segments could not be moved. Reship
// may be called concurrently.
func (s *Shipper) Reship(ctx context.Context) (put, waiting int, err error) {
	if !s.reshipping.TryLock() {
		return 0, 0, &BusyError{"segments are being put back, wait for that to end", time.Second}
	}
	defer s.reshipping.Unlock()
	if wait := time.Until(s.reshipNext); wait > 0 {
		return 0, 0, &BusyError{"segments were put back within the last minute, which is as often as that may be", wait}
	}
	put, waiting, err = s.askRun(ctx)
	if err == nil {
		s.reshipNext = time.Now().Add(reshipEvery)
	}
	return put, waiting, err
}

func (s *Shipper) askRun(ctx context.Context) (put, waiting int, err error) {
	answer := make(chan reshipped, 1)
	select {
	case s.asked <- answer:
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("%w: %w", ErrStopped, ctx.Err())
	}
	select {
	case r := <-answer:
		return r.put, r.waiting, r.err
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("%w: %w", ErrStopped, ctx.Err())
	}
}

// answerAsked serves one waiting call of Reship, if there is any.
func (s *Shipper) answerAsked(ctx context.Context) {
	select {
	case answer := <-s.asked:
		s.putBack(ctx, answer)
	default:
	}
}

func (s *Shipper) putBack(ctx context.Context, answer chan<- reshipped) {
	s.reshipBefore = time.Now()
	put, waiting, err := s.Spool.Reship(s.reshipBefore)
	s.Log.InfoContext(ctx, "kept segments are shipped again", slog.Int("segments", put), slog.Int("waiting", waiting))
	if err != nil {
		s.Log.WarnContext(ctx, "some kept segments cannot be shipped again", slog.Any("error", err))
	}
	if waiting == 0 {
		s.reshipBefore = time.Time{}
	}
	answer <- reshipped{put, waiting, err}
}

// reshipRest puts back the segments for which the line had no room before.
func (s *Shipper) reshipRest(ctx context.Context) {
	if s.reshipBefore.IsZero() {
		return
	}
	put, waiting, err := s.Spool.Reship(s.reshipBefore)
	if put > 0 {
		s.Log.InfoContext(ctx, "kept segments are shipped again", slog.Int("segments", put), slog.Int("waiting", waiting))
	}
	if err == nil && waiting == 0 {
		s.reshipBefore = time.Time{}
	}
}
