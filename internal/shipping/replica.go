package shipping

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// reportEvery is how often a process reports what it has spooled. Statistics are
	// complete up to the last report of each process, so they lag by at most that.
	reportEvery = time.Second
	// reportTimeout bounds a report that no batch is shipped with.
	reportTimeout = 5 * time.Second
)

// replica is this process as the table replicas knows it.
type replica struct {
	id     string
	told   time.Time // when the last report was stored
	warned time.Time // when it was last logged that reports fail
}

func newReplica() replica { return replica{id: rand.Text()} }

// Report tells Postgres how many clicks this process has accepted and not shipped, and
// which folders of dead processes it has taken over. Run and Drain do that too. Report
// is for the start, before the first click can come, and must not be called at the same
// time as Run or Drain.
func (s *Shipper) Report(ctx context.Context) error {
	return s.inReport(ctx, func(q *queries.Queries) (clicks.Report, error) { return s.store(ctx, q, nil) })
}

// Leave removes this process from the replicas. If clicks are left in the spool, the
// process stays there, until another one takes over its folder, which the spool then
// leaves in its place, even if it is empty. Leave is called when the spool has stopped,
// and no click can come any more, and before it is closed and removes its folder.
func (s *Shipper) Leave(ctx context.Context) error {
	if !s.Spool.Report(nil).Empty() {
		return s.Report(ctx)
	}
	return s.inReport(ctx, func(q *queries.Queries) (none clicks.Report, err error) {
		_, err = q.RemoveReplica(ctx, s.replica.id)
		return none, err
	})
}

func (s *Shipper) inReport(ctx context.Context, do func(*queries.Queries) (clicks.Report, error)) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if s.Spool.Installation() == "" {
		if err := s.meet(ctx); err != nil {
			return err
		}
	}
	var r clicks.Report
	err := postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) (err error) {
		q := queries.New(tx)
		if err := s.checkInstallation(ctx, q); err != nil {
			return err
		}
		r, err = do(q)
		return err
	})
	if err == nil {
		s.stored(r)
	}
	return err
}

// store writes the report that is true once the given batches are committed. A process
// without Options.Host takes no clicks, so it only takes over folders.
func (s *Shipper) store(ctx context.Context, q *queries.Queries, shipping []clicks.Batch) (clicks.Report, error) {
	r := s.Spool.Report(shipping)
	if s.Host != "" {
		err := q.ReportReplica(ctx, queries.ReportReplicaParams{
			ID: s.replica.id, Host: s.Host, Folders: r.Folders, Spooled: r.Clicks, CompleteTo: r.CompleteTo,
		})
		if err != nil {
			return r, fmt.Errorf("report what is spooled: %w", err)
		}
	}
	if s.Host == "" {
		r.Folders = nil // no report names them
	}
	if len(r.TakenOver) == 0 || s.Host == "" && !r.Empty() {
		r.TakenOver = nil
		return r, nil
	}
	if err := q.TakeOverFolders(ctx, r.TakenOver, s.replica.id); err != nil {
		return r, fmt.Errorf("take over the folders of dead processes: %w", err)
	}
	return r, nil
}

// stored notes that a report was committed.
func (s *Shipper) stored(r clicks.Report) {
	s.Spool.Reported(r)
	s.replica.told = time.Now()
}

// reportIfDue reports if that was not done lately, by itself or with a batch. A failure
// does not keep back what is to be shipped.
func (s *Shipper) reportIfDue(ctx context.Context) {
	if s.Host == "" || time.Since(s.replica.told) < reportEvery/2 {
		return
	}
	err := s.Report(ctx)
	if err == nil || ctx.Err() != nil || errors.Is(err, errMoved) {
		return
	}
	if time.Since(s.replica.warned) >= time.Minute {
		s.replica.warned = time.Now()
		s.Log.WarnContext(ctx, "Postgres cannot be told what is spooled; statistics are not complete beyond the last report", slog.Any("error", err))
	}
}
