package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// ann is a user that tests begin with, and annAndBob are two.
const (
	ann       = "INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com')"
	annAndBob = ann + ", (2, 'bob', 'bob@example.com')"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// site is a database with all its workers.
type site struct {
	*testing.T
	ctx    context.Context
	pool   *pgxpool.Pool
	river  *river.Client[pgx.Tx]
	worker *Worker
	// highest is the highest id in the file of each import.
	highest map[int64]int64
}

// setup returns a database without a worker.
func setup(t *testing.T) *site {
	t.Helper()
	t.Parallel()
	s := &site{T: t, ctx: t.Context(), pool: pgtest.Pool(t), highest: map[int64]int64{}}
	var err error
	if s.river, err = NewInserter(s.pool, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("new inserter: %v", err)
	}
	return s
}

// mortal is a site on a Postgres of its own, which can be killed.
type mortal struct {
	*site
	cluster *pgserver.Cluster
	url     string
}

func setupMortal(t *testing.T) *mortal {
	t.Helper()
	t.Parallel()
	cluster := pgtest.Cluster(t)
	m := &mortal{&site{T: t, ctx: t.Context(), highest: map[int64]int64{}}, cluster, pgtest.Migrated(t, cluster)}
	m.use(pgtest.Open(t, m.url).Config())
	return m
}

// killPostgres kills Postgres three times, each time when a number has grown.
func (m *mortal) killPostgres(what, sql string, args ...any) {
	m.Helper()
	last := int64(0)
	for range 3 {
		m.eventually(what, func() bool { return m.int(sql, args...) > last })
		last = m.int(sql, args...)
		m.exec("CHECKPOINT") // tests do not wait for the disk, and this much has to be there
		m.cluster.Kill()
		m.ok(m.cluster.Start(m.ctx))
		m.use(pgtest.Open(m.T, m.url).Config())
	}
}

// start starts a worker on the queues, with the changes that a test wants.
func (s *site) start(queues map[string]int, change ...func(*deps)) *Worker {
	s.Helper()
	own, err := links.ParseHosts("sign.test")
	s.ok(err)
	w, err := New(Options{
		Pool: s.pool, Queues: queues, OwnHosts: own,
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	})
	s.ok(err)
	for _, change := range change {
		change(w.deps)
	}
	s.ok(w.Start(s.ctx))
	s.Cleanup(func() { s.stop(w) })
	s.worker = w
	return w
}

// stop stops a worker, unless it was stopped before.
func (s *site) stop(w *Worker) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	assert.NoError(s, w.Stop(ctx), "stop worker")
}

// branch copies the database and continues in the copy. It returns a function that
// brings the site back to the database as it was. No worker may be at work in either.
func (s *site) branch() (goBack func()) {
	s.Helper()
	here := s.pool.Config()
	there := here.Copy()
	there.ConnConfig.Database += "_branch"
	name := pgx.Identifier{there.ConnConfig.Database}.Sanitize()
	s.pool.Close() // a database in use cannot be copied
	s.admin("CREATE DATABASE " + name + " TEMPLATE " + pgx.Identifier{here.ConnConfig.Database}.Sanitize())
	s.Cleanup(func() { s.admin("DROP DATABASE " + name + " WITH (FORCE)") })
	s.use(there)
	return func() { s.use(here) }
}

func (s *site) admin(sql string) {
	s.Helper()
	config := s.pool.Config().ConnConfig.Copy()
	config.Database = "postgres"
	ctx := context.WithoutCancel(s.ctx)
	conn, err := pgx.ConnectConfig(ctx, config)
	s.ok(err)
	defer conn.Close(ctx) //nolint:errcheck // done with it
	if _, err := conn.Exec(ctx, sql); err != nil {
		s.Errorf("%s: %v", sql, err)
	}
}

func (s *site) use(config *pgxpool.Config) {
	s.Helper()
	pool, err := pgxpool.NewWithConfig(s.ctx, config)
	s.ok(err)
	s.Cleanup(pool.Close)
	s.pool = pool
	if s.river, err = NewInserter(pool, slog.New(slog.DiscardHandler)); err != nil {
		s.Fatalf("new inserter: %v", err)
	}
}

// eventually waits until ok is true.
func (s *site) eventually(what string, ok func() bool) {
	s.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.Fatalf("did not happen: %s (errors of jobs: %s)", what, s.text("SELECT string_agg(errors[1]->>'error', ' ') FROM river_job"))
		}
		<-time.After(10 * time.Millisecond)
	}
}

// empty empties tables while the worker goes on. It locks them in another order than the
// worker does, so that one of the two may have to give way and try again.
func (s *site) empty(tables string) {
	s.Helper()
	s.eventually("the tables are empty", func() bool {
		_, err := s.pool.Exec(s.ctx, "TRUNCATE "+tables)
		if postgres.Retryable(err) {
			return false
		}
		if err != nil {
			s.Fatalf("TRUNCATE %s: %v", tables, err)
		}
		return true
	})
}

func (s *site) exec(sql string, args ...any) {
	s.Helper()
	if _, err := s.pool.Exec(s.ctx, sql, args...); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
}

func (s *site) int(sql string, args ...any) int64 {
	s.Helper()
	var n int64
	s.ok(s.pool.QueryRow(s.ctx, sql, args...).Scan(&n))
	return n
}

func (s *site) text(sql string, args ...any) string {
	s.Helper()
	var text *string
	s.ok(s.pool.QueryRow(s.ctx, sql, args...).Scan(&text))
	return or(text, "NULL")
}

// ok ends the test if there is an error.
func (s *site) ok(err error) {
	s.Helper()
	require.NoError(s, err)
}

func (s *site) wantText(want, sql string, args ...any) {
	s.Helper()
	if got := s.text(sql, args...); got != want {
		s.Errorf("%s = %s, want %s", sql, got, want)
	}
}

func (s *site) wantInt(want int64, sql string, args ...any) {
	s.Helper()
	if got := s.int(sql, args...); got != want {
		s.Errorf("%s = %d, want %d", sql, got, want)
	}
}

// ship stores a batch as the API does, with a job for it.
func (s *site) ship(id string, batch []clicks.Click) int64 {
	s.Helper()
	s.store(id, clicks.EncodeBatch(id, batch), len(batch))
	return s.queue(id)
}

// store stores a batch and reports whether it was new.
func (s *site) store(id string, payload []byte, n int) bool {
	s.Helper()
	inserted, err := queries.New(s.pool).InsertClickBatch(s.ctx, queries.InsertClickBatchParams{
		ID: id, Payload: payload, Clicks: int32(n), OldestAt: time.Now(),
	})
	s.ok(err)
	return inserted == 1
}

func (s *site) queue(id string) int64 {
	s.Helper()
	job := s.insert(id)
	s.exec("UPDATE click_batches SET job_id = $1 WHERE id = $2", job, id)
	return job
}

// insert inserts a job that the row of the batch does not know.
func (s *site) insert(id string) int64 {
	s.Helper()
	job, err := s.river.Insert(s.ctx, jobs.RecordClicks{BatchID: id}, nil)
	s.ok(err)
	return job.Job.ID
}

func (s *site) jobState(id int64) string {
	s.Helper()
	return s.text("SELECT state::text FROM river_job WHERE id = $1", id)
}

// upload stores a file as the API does and queues it, and returns its import.
func (s *site) upload(kind csvimport.Kind, file string, opts csvimport.SplitOptions) int64 {
	s.Helper()
	id := s.receive(kind, file, opts)
	s.queueImport(id)
	return id
}

func (s *site) receive(kind csvimport.Kind, file string, opts csvimport.SplitOptions) int64 {
	s.Helper()
	splitter, err := csvimport.NewSplitter(strings.NewReader(file), kind, opts)
	s.ok(err)
	layout, err := json.Marshal(splitter.Layout())
	s.ok(err)
	q := queries.New(s.pool)
	imp, err := q.CreateImport(s.ctx, queries.CreateImportParams{
		Kind: string(kind), Layout: layout, KeepIds: true, ActorName: "test", OnConflict: string(csvimport.PolicyReject),
	})
	s.ok(err)
	for highest := int64(0); ; {
		chunk, err := splitter.Next()
		if errors.Is(err, io.EOF) {
			s.highest[imp.ID] = highest
			return imp.ID
		}
		s.ok(err)
		highest = max(highest, splitter.Layout().HighestID(chunk.Data))
		err = q.InsertImportChunk(s.ctx, queries.InsertImportChunkParams{
			ImportID: imp.ID, Seq: int32(chunk.Seq), FirstLine: chunk.FirstLine, Rows: int32(chunk.Rows),
			Data: chunk.Data,
		})
		s.ok(err)
	}
}

// reserveIDs moves a sequence past the ids in a file, as the API does.
func (s *site) reserveIDs(id int64) {
	s.Helper()
	q := queries.New(s.pool)
	imp, err := q.GetImport(s.ctx, id)
	s.ok(err)
	switch highest := s.highest[id]; {
	case highest == 0 || imp.DryRun:
	case imp.Kind == string(csvimport.KindUsers):
		s.ok(q.MoveUsersSequence(s.ctx, highest))
	case imp.Kind == string(csvimport.KindLinks):
		s.ok(q.MoveURLsSequence(s.ctx, highest))
	}
}

func (s *site) queueImport(id int64) {
	s.Helper()
	s.reserveIDs(id)
	err := postgres.InTx(s.ctx, s.pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		_, err := q.QueueImport(s.ctx, queries.QueueImportParams{
			ID:          id,
			RowsTotal:   s.int("SELECT sum(rows) FROM import_chunks WHERE import_id = $1", id),
			ChunksTotal: int32(s.int("SELECT count(*) FROM import_chunks WHERE import_id = $1", id)),
		})
		if err != nil {
			return err
		}
		job, err := s.river.InsertTx(s.ctx, tx, jobs.ApplyChunk{ImportID: id}, nil)
		if err != nil {
			return err
		}
		return q.SetImportJob(s.ctx, &job.Job.ID, id)
	})
	s.ok(err)
}

// queueJob gives an import another job.
func (s *site) queueJob(id int64, args river.JobArgs) {
	s.Helper()
	err := postgres.InTx(s.ctx, s.pool, func(tx pgx.Tx) error {
		job, err := s.river.InsertTx(s.ctx, tx, args, nil)
		if err != nil {
			return err
		}
		return queries.New(tx).SetImportJob(s.ctx, &job.Job.ID, id)
	})
	s.ok(err)
}

// cancel asks an import to stop, as the API does.
func (s *site) cancel(id int64) {
	s.Helper()
	s.exec("UPDATE imports SET state = 'cancelling' WHERE id = $1", id)
	s.queueJob(id, jobs.FinishImport{ImportID: id})
}

// ended waits for the end of an import.
func (s *site) ended(id int64) queries.Import {
	s.Helper()
	var imp queries.Import
	s.eventually("import ends", func() bool {
		var err error
		if imp, err = queries.New(s.pool).GetImport(s.ctx, id); err != nil {
			s.Fatalf("get import: %v", err)
		}
		return imp.FinishedAt != nil
	})
	s.wantProblems(id)
	return imp
}

// soon allows a periodic job to be inserted once a second.
func soon() *river.InsertOpts {
	return &river.InsertOpts{Queue: jobs.QueueMaintenance, UniqueOpts: river.UniqueOpts{ByPeriod: time.Second}}
}

// run inserts a periodic job now, and waits for its end.
func (s *site) run(args river.JobArgs) {
	s.Helper()
	var job *rivertype.JobInsertResult
	s.eventually(args.Kind()+" is inserted", func() bool { // possible once a second
		var err error
		if job, err = s.river.Insert(s.ctx, args, soon()); err != nil {
			s.Fatalf("insert %s: %v", args.Kind(), err)
		}
		return !job.UniqueSkippedAsDuplicate
	})
	s.eventually(args.Kind()+" ends", func() bool {
		switch s.jobState(job.Job.ID) {
		case "completed":
			return true
		case "discarded", "cancelled":
			s.Fatalf("%s failed: %s", args.Kind(), s.text("SELECT errors[1]->>'error' FROM river_job WHERE id = $1", job.Job.ID))
		}
		return false
	})
}

// annWithLink makes the user 1 with the link 10.
func (s *site) annWithLink() {
	s.Helper()
	s.exec(ann)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (10, 1, 'ten', 'https://example.com/')")
}
