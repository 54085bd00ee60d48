// Package worker does what the API leaves for later: it turns click batches
// into events and rollups, applies imports, and keeps the tables in order. All
// of it runs as River jobs in Postgres, on any number of processes.
//
// A job may run twice at once, because a worker that seemed dead was not, and
// may be run again after it took effect. So every job first locks a row of its
// own (the batch, the chunk, the import), which alone decides whether there is
// still something to do, and commits its effect and its completion together.
package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// A job whose worker was killed runs again within two minutes. It is taken for dead
	// after rescueAfter, which must exceed jobTimeout, or healthy jobs would be run
	// twice. River looks for such jobs every 30 s, then waits as the retry policy says,
	// and looks for jobs that have waited long enough every 5 s.
	jobTimeout  = 50 * time.Second
	rescueAfter = time.Minute
	// fetchCooldown and pollInterval bound how long a shipped batch waits for a
	// free worker, with and without a notification.
	fetchCooldown = 5 * time.Millisecond
	pollInterval  = 500 * time.Millisecond
	// Click jobs are many and say nothing once they are done.
	completedRetention = time.Hour
	softStopTimeout    = 15 * time.Second
	startPauseMax      = 5 * time.Second
	cancelledRetention = 7 * 24 * time.Hour
)

// Options configures a Worker. Pool and Registry are required.
type Options struct {
	// Pool stays the caller's, and is closed by the caller after Stop.
	Pool *pgxpool.Pool
	// Queues says which queues to take and how many jobs of each at once; see
	// ParseQueues. Empty means DefaultQueues.
	Queues map[string]int
	// OwnHosts are the hosts of this service's short links, to which no
	// imported link may lead.
	OwnHosts links.Hosts
	// LedgerKeep is how long the ledger remembers a batch whose segment was never
	// confirmed to be gone. It must be far longer than any spool keeps its
	// segments. Default DefaultLedgerKeep.
	LedgerKeep time.Duration
	// ImportKeep is how long a finished import is kept. 0 is for ever.
	ImportKeep time.Duration
	// Retention is the retention of old events; the zero value keeps them.
	Retention Retention
	// Zone is the time zone whose days count visitors. Default UTC.
	Zone *time.Location
	// Host and Version tell operators which worker this is.
	Host, Version string
	// Log defaults to slog.Default.
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Middleware surrounds every job that is worked and every one inserted, such
	// as a trace.
	Middleware []rivertype.Middleware
}

// Worker works the queues of one process. Make it with New; Start and Stop it
// once. Its methods may be called concurrently.
type Worker struct {
	client *river.Client[pgx.Tx]
	deps   *deps

	mu      sync.Mutex
	sampled chan struct{}      // closed when the sampler and the merging of statistics have returned
	stop    context.CancelFunc // stops both; nil before Start
}

// deps are the dependencies that the jobs share.
type deps struct {
	pool       *pgxpool.Pool
	log        *slog.Logger
	metrics    *metrics
	partitions *postgres.Partitions
	judge      *judge
	visitors   *visitorDays
	zone       *time.Location
	ledgerKeep time.Duration
	importKeep time.Duration
	retention  Retention
	ownHosts   links.Hosts
	importTurn time.Duration // importTurn but in tests
	undoPiece  int32         // undoPiece but in tests
	self       queries.ReportWorkerParams
	judgePiece int32 // judgePiece but in tests
}

// New returns a worker that has not started. It fails only when the options
// cannot be meant; Postgres need not be up.
func New(o Options) (*Worker, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if len(o.Queues) == 0 {
		o.Queues = DefaultQueues()
	}
	if o.LedgerKeep <= 0 {
		o.LedgerKeep = DefaultLedgerKeep
	}
	judge, err := newJudge()
	if err != nil {
		return nil, err
	}
	d := &deps{
		pool:       o.Pool,
		log:        o.Log,
		metrics:    newMetrics(o.Registry),
		partitions: postgres.NewPartitions(o.Pool),
		judge:      judge,
		visitors:   &visitorDays{pool: o.Pool, known: map[int64]bool{}},
		zone:       o.Zone,
		ledgerKeep: o.LedgerKeep,
		importKeep: o.ImportKeep,
		retention:  o.Retention,
		ownHosts:   o.OwnHosts,
		importTurn: importTurn,
		undoPiece:  undoPiece,
		judgePiece: judgePiece,
		self:       queries.ReportWorkerParams{ID: rand.Text(), Host: o.Host, Version: o.Version, Queues: textOf(o.Queues)},
	}
	c := config(d, o.Queues)
	c.Middleware = slices.Concat(o.Middleware, c.Middleware)
	client, err := river.NewClient(riverpgxv5.New(o.Pool), c)
	if err != nil {
		return nil, fmt.Errorf("set up job client: %w", err)
	}
	return &Worker{client: client, deps: d}, nil
}

// config is every job, queue and period on one screen. A worker knows every
// kind whatever queues it takes: a leader that did not know a kind would
// discard its stuck jobs.
func config(d *deps, queues map[string]int) *river.Config {
	workers := river.NewWorkers()
	river.AddWorker(workers, &recordClicks{deps: d})
	river.AddWorker(workers, &importJob[jobs.ApplyChunk]{deps: d})
	river.AddWorker(workers, &importJob[jobs.FinishImport]{deps: d})
	river.AddWorker(workers, &importJob[jobs.PlanImport]{deps: d}) // from the release before
	river.AddWorker(workers, &undoImport{deps: d})
	river.AddWorker(workers, &reenqueue{deps: d})
	river.AddWorker(workers, &makePartitions{deps: d})
	river.AddWorker(workers, &archiveMonths{deps: d, now: time.Now})
	river.AddWorker(workers, &prune{deps: d, piece: prunePiece})
	river.AddWorker(workers, &reclassify{deps: d})

	config := &river.Config{
		Workers: workers,
		Queues:  map[string]river.QueueConfig{},
		PeriodicJobs: []*river.PeriodicJob{
			periodic(jobs.Reenqueue{}, jobs.ReenqueuePeriod),
			periodic(jobs.MakePartitions{}, time.Hour),
			periodic(jobs.ArchiveMonths{Setting: d.retention.String()}, jobs.ArchivePeriod),
			periodic(jobs.Prune{}, 10*time.Minute),
		},
		JobTimeout:                  jobTimeout,
		RescueStuckJobsAfter:        rescueAfter,
		RetryPolicy:                 retryPolicy{},
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           pollInterval,
		CompletedJobRetentionPeriod: completedRetention,
		CancelledJobRetentionPeriod: cancelledRetention,
		SoftStopTimeout:             softStopTimeout,
		Middleware:                  []rivertype.Middleware{&jobMeter{metrics: d.metrics}},
		ErrorHandler:                &errorLog{log: d.log},
		// Our own log lines and metrics tell everything that River reports at info.
		Logger: slog.New(atLeast{d.log.Handler(), slog.LevelWarn}),
	}
	for name, n := range queues {
		config.Queues[name] = river.QueueConfig{MaxWorkers: n}
	}
	return config
}

// periodic runs a job at once, because the clocks start again with each leader.
func periodic(args river.JobArgs, every time.Duration) *river.PeriodicJob {
	return river.NewPeriodicJob(
		river.PeriodicInterval(every),
		func() (river.JobArgs, *river.InsertOpts) { return args, nil },
		&river.PeriodicJobOpts{RunOnStart: true},
	)
}

// NewInserter returns a client that inserts jobs and works none, for the API.
// Middleware surrounds every insertion.
func NewInserter(pool *pgxpool.Pool, log *slog.Logger, middleware ...rivertype.Middleware) (*river.Client[pgx.Tx], error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Middleware: middleware,
		Logger:     slog.New(atLeast{log.Handler(), slog.LevelWarn}),
	})
	if err != nil {
		return nil, fmt.Errorf("set up job client: %w", err)
	}
	return client, nil
}

// Start begins to work and returns. While Postgres cannot be reached it keeps
// trying, so the only errors are the end of ctx and a database that is up but
// wrong. The end of ctx after Start returned stops nothing: Stop does.
func (w *Worker) Start(ctx context.Context) error {
	wait := 250 * time.Millisecond
	for {
		err := w.client.Start(context.WithoutCancel(ctx))
		if err == nil {
			w.startLoops(ctx)
			return nil
		}
		if !postgres.Unavailable(err) {
			return fmt.Errorf("start worker: %w", err)
		}
		w.deps.log.WarnContext(ctx, "worker waits for Postgres", slog.Any("error", err), slog.Duration("retry_in", wait))
		if stopped := pause.For(ctx, wait); stopped != nil {
			return fmt.Errorf("start worker: %w", errors.Join(stopped, err))
		}
		wait = min(2*wait, startPauseMax)
	}
}

// startLoops starts the work that is not done by jobs.
func (w *Worker) startLoops(ctx context.Context) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop, w.sampled = stop, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		var loops sync.WaitGroup
		loops.Go(func() { w.deps.sample(ctx) })
		loops.Go(func() { w.deps.fold(ctx) })
		loops.Go(func() { w.deps.checkStatistics(ctx) })
		loops.Go(func() { w.deps.moveTags(ctx) })
		loops.Wait()
		d := w.deps
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = queries.New(d.pool).RemoveWorker(leaving, d.self.ID) // or it is seen as gone
	}(w.sampled)
}

// Stop takes no more jobs and waits for those under way: up to 15 s, after
// which they are cancelled and go back to their queue. The end of ctx cancels
// them at once and returns its error. Stopping twice, or without a start, does
// nothing.
func (w *Worker) Stop(ctx context.Context) error {
	w.mu.Lock()
	stop, sampled := w.stop, w.sampled
	w.stop = nil
	w.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	<-sampled
	err := w.client.Stop(ctx)
	if err == nil {
		return nil
	}
	// The jobs are told to end, and River to wait for that a little.
	hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if hardErr := w.client.StopAndCancel(hard); hardErr != nil {
		return fmt.Errorf("stop worker: %w", hardErr)
	}
	return fmt.Errorf("stop worker: %w", err)
}

// inTx runs do in a transaction, and again at once, a few times, when another
// transaction got in its way.
func (d *deps) inTx(ctx context.Context, do func(tx pgx.Tx, q *queries.Queries) error) error {
	const attempts = 5
	var err error
	for range attempts {
		err = postgres.InTx(ctx, d.pool, func(tx pgx.Tx) error { return do(tx, queries.New(tx)) })
		if !postgres.Retryable(err) && !errors.Is(err, errAgain) {
			return err
		}
	}
	return err
}

// errAgain asks inTx to run a transaction again, because its reads are out of date.
var errAgain = errors.New("the rows changed meanwhile")

// complete completes a job in the transaction of its effect. A job row that is
// gone does not undo the effect: the locked row of the batch or chunk decided.
func complete[T river.JobArgs](ctx context.Context, tx pgx.Tx, job *river.Job[T]) error {
	_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
	if err != nil && !errors.Is(err, rivertype.ErrNotFound) {
		return fmt.Errorf("complete job: %w", err)
	}
	return nil
}

// insertJob inserts a job in tx and returns its id. opts may be nil.
func insertJob(ctx context.Context, tx pgx.Tx, args river.JobArgs, opts *river.InsertOpts) (int64, error) {
	inserted, err := river.ClientFromContext[pgx.Tx](ctx).InsertTx(ctx, tx, args, opts)
	if err != nil {
		return 0, fmt.Errorf("insert %s job: %w", args.Kind(), err)
	}
	return inserted.Job.ID, nil
}

// wrap says which action err kept from being done; it returns nil for nil.
func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}

// interval returns d in the form that queries take.
func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
