package shipping

import (
	"context"
	"log/slog"
	"time"
)

// report logs the first failure, then one failure a minute, and at the end that all is
// shipped.
func (s *Shipper) report(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if err == nil {
		if !s.failing.IsZero() {
			s.reportCaughtUp(ctx, now)
		}
		return
	}
	s.failures.Inc()
	if s.failing.IsZero() {
		s.failing = now
	}
	s.catchUp = catchUp{} // Postgres may be away again
	if now.Sub(s.reported) >= time.Minute {
		s.reported = now
		s.Log.WarnContext(ctx, "clicks cannot be shipped and wait in the spool",
			append([]any{slog.Any("error", err)}, s.backlog(now)...)...)
	}
}

// reportBack logs the backlog when the first transaction after an outage was
// committed.
func (s *Shipper) reportBack(ctx context.Context) {
	if s.failing.IsZero() || !s.catchUp.since.IsZero() {
		return
	}
	s.catchUp = catchUp{since: time.Now()}
	if s.catchUp.since.Sub(s.back) < time.Minute {
		return // Postgres comes and goes
	}
	s.back = s.catchUp.since
	s.Log.InfoContext(ctx, "Postgres takes clicks again; shipping the backlog",
		append([]any{slog.Duration("outage", s.catchUp.since.Sub(s.failing).Round(time.Millisecond))}, s.backlog(s.catchUp.since)...)...)
}

func (s *Shipper) reportCaughtUp(ctx context.Context, now time.Time) {
	caught := s.catchUp
	if caught.since.IsZero() {
		caught = catchUp{since: now} // nothing had to be shipped
	}
	s.Log.InfoContext(ctx, "clicks are shipped again", slog.Duration("outage", caught.since.Sub(s.failing).Round(time.Millisecond)),
		slog.Int("segments", caught.segments), slog.Int("clicks", caught.clicks), slog.Duration("took", now.Sub(caught.since).Round(time.Millisecond)))
	s.failing, s.reported, s.catchUp = time.Time{}, time.Time{}, catchUp{}
}

// backlog describes, for the log, how much waits in the spool.
func (s *Shipper) backlog(now time.Time) []any {
	stats := s.Spool.Stats()
	var age time.Duration
	if !stats.Oldest.IsZero() {
		age = now.Sub(stats.Oldest).Round(time.Second)
	}
	return []any{slog.Int("segments", stats.Segments), slog.Int64("bytes", stats.Bytes), slog.Duration("oldest_age", age)}
}
