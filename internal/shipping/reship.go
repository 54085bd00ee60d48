package shipping

import (
	"context"
	"errors"
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

// ErrStopped says that Run is not under way, so that nothing would be shipped.
var ErrStopped = errors.New("the shipper is starting or stopping")

// Reship puts segments back in line, namely all that were shipped and are still kept.
// Run then ships them. It is for a Postgres that lost what it had committed. It returns
// the number of segments that were put back, and of those that follow once the line is
// shorter. Postgres does not count clicks again that it still has, so asking again does
// no harm.
//
// One call is served at a time, and after one has put segments back, every other call
// gets a [BusyError] for a minute. Without Run it returns [ErrStopped]. Any other error means that some of the segments could
// not be moved. Reship may be called concurrently.
func (s *Shipper) Reship(ctx context.Context) (put, waiting int, err error) {
	if !s.reshipping.TryLock() {
		return 0, 0, &BusyError{"segments are being put back, wait for that to end", time.Second}
	}
	defer s.reshipping.Unlock()
	if wait := time.Until(s.reshipNext); wait > 0 {
		return 0, 0, &BusyError{"segments were put back within the last minute, which is as often as that may be", wait}
	}
	if !s.running.Load() {
		return 0, 0, ErrStopped
	}
	// A segment whose batch is committed already and that is marked later counts too: the
	// commit may be one of those that Postgres lost.
	s.sending.Lock()
	s.reshipBefore = time.Now()
	s.sending.Unlock()
	put, waiting, err = s.putBack(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "some kept segments cannot be shipped again", slog.Any("error", err))
		if waiting == 0 { // the caller knows, and can ask again
			s.reshipBefore = time.Time{}
		}
		return put, waiting, err
	}
	s.reshipNext = time.Now().Add(reshipEvery)
	return put, waiting, nil
}

// reshipRest puts back the segments for which the line had no room before.
func (s *Shipper) reshipRest(ctx context.Context) {
	s.reshipping.Lock()
	defer s.reshipping.Unlock()
	if !s.reshipBefore.IsZero() {
		_, _, _ = s.putBack(ctx) // it is tried again
	}
}

// putBack puts back the segments that were shipped before s.reshipBefore, as many as the
// line has room for. s.reshipping is held.
func (s *Shipper) putBack(ctx context.Context) (put, waiting int, err error) {
	put, waiting, err = s.Spool.Reship(s.reshipBefore)
	if put > 0 {
		s.Log.InfoContext(ctx, "kept segments are shipped again", slog.Int("segments", put), slog.Int("waiting", waiting))
	}
	if err == nil && waiting == 0 {
		s.reshipBefore = time.Time{}
	}
	return put, waiting, err
}
