package service

import (
	"context"
	"slices"
	"time"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// About is what a process tells of itself.
type About struct {
	Version   string    `json:"version" example:"1.4.0"`
	Commit    string    `json:"commit" example:"0d1c2b3"`
	Host      string    `json:"host" example:"api-1" doc:"Name of the machine or container that answers."`
	StartedAt time.Time `json:"started_at"`
	// JobsURL and GrafanaURL are "" where nobody has set them.
	JobsURL    string    `json:"jobs_url" example:"http://127.0.0.1:9090/jobs/" doc:"The jobs page, as JOBS_URL says; empty if it says nothing."`
	GrafanaURL string    `json:"grafana_url" example:"https://grafana.example.com/d/signpost" doc:"The dashboards in Grafana, as GRAFANA_URL says; empty if it says nothing."`
	Settings   []Setting `json:"settings" nullable:"false" doc:"The configuration in force in the process that answers, with secrets hidden. Others may have another."`
}

// Setting is a variable of the configuration, with its value in a form that anyone may
// see.
type Setting struct {
	Name  string `json:"name" example:"CACHE_SIZE"`
	Value string `json:"value" example:"100000"`
}

// System tells how the whole service is, as far as the process that answers can say. A
// part that could not be read is in Unknown, and absent or empty.
type System struct {
	About
	Statistics *StatisticsState `json:"statistics,omitempty"`
	Batches    *BatchesState    `json:"batches,omitempty"`
	Queues     []QueueState     `json:"queues" nullable:"false"`
	Workers    []WorkerState    `json:"workers" nullable:"false" doc:"Those that were seen within the last hour."`
	Replicas   []ReplicaState   `json:"replicas" nullable:"false" doc:"The processes that take clicks."`
	Cache      CacheState       `json:"cache"`
	Database   *DatabaseState   `json:"database,omitempty"`
	Archive    *ArchiveState    `json:"archive,omitempty"`
	Unknown    []UnknownPart    `json:"unknown" nullable:"false"`
}

// UnknownPart is a part of System that could not be read, and why.
type UnknownPart struct {
	Part   string `json:"part" example:"database"`
	Reason string `json:"reason" example:"the database did not answer in time"`
}

// StatisticsState tells how far statistics are complete, and what they wait for.
type StatisticsState struct {
	AsOf          time.Time `json:"as_of" doc:"Every accepted click before this time is in the statistics."`
	Pending       int64     `json:"pending" doc:"Accepted clicks that are not in the statistics yet."`
	Digests       int64     `json:"digests_waiting" doc:"Digests of clicks that are not merged into the statistics yet."`
	OldestSeconds float64   `json:"digests_oldest_seconds" doc:"Age of the oldest of these digests."`
	Recounts      int64     `json:"recounts_waiting" doc:"Days of links that are to be counted again from the events."`
	FailedClicks  int64     `json:"failed_clicks" doc:"Clicks in digests that cannot be decoded."`
}

// BatchesState tells which clicks wait to be ingested, or for an operator.
type BatchesState struct {
	Waiting       int64         `json:"waiting" doc:"Batches of clicks that are not ingested yet."`
	Clicks        int64         `json:"clicks" doc:"Clicks in these batches."`
	OldestSeconds float64       `json:"oldest_seconds" doc:"Age of the oldest of these clicks."`
	Failed        int64         `json:"failed" doc:"Batches that wait for an operator."`
	FailedClicks  int64         `json:"failed_clicks"`
	FailedBatches []FailedBatch `json:"failed_batches" nullable:"false" doc:"The first 50 of them."`
	Rejects       int64         `json:"rejects" doc:"Clicks that the database refused, each for itself, within the last 30 days; counted up to 1001."`
}

// QueueState tells what is in a queue of jobs.
type QueueState struct {
	Name          string  `json:"name" example:"clicks"`
	Waiting       int64   `json:"waiting" doc:"Jobs that could be worked now, or are to be tried again."`
	Running       int64   `json:"running"`
	Scheduled     int64   `json:"scheduled" doc:"Jobs of a later time."`
	Discarded     int64   `json:"discarded" doc:"Jobs that failed too often."`
	OldestSeconds float64 `json:"oldest_seconds" doc:"Age of the oldest waiting job."`
	Paused        bool    `json:"paused"`
}

// WorkerState is a worker that runs, or did a while ago.
type WorkerState struct {
	Host      string    `json:"host" example:"worker-1"`
	Version   string    `json:"version" example:"1.4.0"`
	Queues    []string  `json:"queues" nullable:"false" example:"[\"clicks=2\"]" doc:"What it works on, and how many jobs of it at once."`
	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at"`
	Gone      bool      `json:"gone" doc:"Whether it has not reported for a minute."`
}

// ReplicaState is a process that takes clicks.
type ReplicaState struct {
	ID         string    `json:"id"`
	Host       string    `json:"host" example:"api-1"`
	Spooled    int64     `json:"spooled" doc:"Clicks that it has accepted and not shipped."`
	CompleteTo time.Time `json:"complete_to" doc:"All its clicks before this time are shipped."`
	StartedAt  time.Time `json:"started_at"`
	SeenAt     time.Time `json:"seen_at"`
	Gone       bool      `json:"gone" doc:"Whether it has not reported for a minute and nobody has taken its clicks over."`
}

// CacheState tells of the links in the memory of the process that answers.
type CacheState struct {
	Links  int    `json:"links"`
	Size   int    `json:"size" doc:"Most links that are kept."`
	Hits   int64  `json:"hits" doc:"Lookups since the process started that were answered from memory."`
	Misses int64  `json:"misses"`
	Redis  string `json:"redis" enum:"none,up,down"`
}

// DatabaseState tells how large the database is.
type DatabaseState struct {
	Bytes          int64       `json:"bytes"`
	Connections    int64       `json:"connections" doc:"Clients of the server, of all databases."`
	MaxConnections int64       `json:"max_connections"`
	Tables         []TableSize `json:"tables" nullable:"false" doc:"The largest tables, with indexes and partitions."`
	Months         []MonthSize `json:"months" nullable:"false" doc:"Partitions of events and statistics by month, the newest first."`
}

// TableSize is the size of a table.
type TableSize struct {
	Name  string `json:"name" example:"events"`
	Bytes int64  `json:"bytes"`
}

// MonthSize is the size of all partitions of a month.
type MonthSize struct {
	Month string `json:"month" example:"2026-02"`
	Bytes int64  `json:"bytes"`
}

// ArchiveState tells which months of events left the database.
type ArchiveState struct {
	Months    int64 `json:"months" doc:"Months of events that were taken out of the database."`
	Events    int64 `json:"events" doc:"Events in them."`
	PartsOpen int64 `json:"parts_open" doc:"Parts of months that are on their way out."`
}

const (
	// systemTimeout bounds GetSystem, and partTimeout each part of it.
	systemTimeout = 2 * time.Second
	partTimeout   = 700 * time.Millisecond

	failedShown = 50
	rejectsMost = 1001
	tablesShown = 10
	monthsShown = 120
	seenMost    = 200
)

// GetSystem tells how the whole service is. A part that the database does not tell in time
// does not keep the others from being told. It counts no table that grows with the links
// or clicks.
func (s *Service) GetSystem(ctx context.Context, actor Actor) (System, error) {
	if err := actor.Require(ReadsSystem); err != nil {
		return System{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	out := System{
		About: s.About, Cache: viewCache(s.Cache.Figures()),
		Queues: []QueueState{}, Workers: []WorkerState{}, Replicas: []ReplicaState{}, Unknown: []UnknownPart{},
	}
	if out.Settings == nil {
		out.Settings = []Setting{}
	}
	q := queries.New(s.Pool)
	for _, part := range []struct {
		name string
		read func(context.Context, *queries.Queries) error
	}{
		{"statistics", out.readStatistics},
		{"batches", out.readBatches},
		{"queues", out.readQueues},
		{"workers", out.readWorkers},
		{"replicas", out.readReplicas},
		{"archive", out.readArchive},
		{"database", out.readDatabase},
	} {
		limited, cancel := context.WithTimeout(ctx, partTimeout)
		if err := part.read(limited, q); err != nil {
			out.Unknown = append(out.Unknown, UnknownPart{part.name, reasonOf(err, limited.Err() != nil)})
		}
		cancel()
	}
	return out, nil
}

// reasonOf says why a part could not be read.
func reasonOf(err error, late bool) string {
	known := Classify(err)
	switch {
	case late:
		return "the database did not answer in time"
	case known != nil:
		return known.Message
	}
	return "it could not be read"
}

func viewCache(f linkcache.Figures) CacheState {
	return CacheState{Links: f.Links, Size: f.Size, Hits: f.Hits, Misses: f.Misses, Redis: f.Redis}
}

func (y *System) readStatistics(ctx context.Context, q *queries.Queries) error {
	fresh, err := rollup.ReadFreshness(ctx, q)
	if err != nil {
		return err
	}
	figures, err := q.RollupFigures(ctx)
	if err == nil {
		y.Statistics = &StatisticsState{
			AsOf: fresh.AsOf.UTC(), Pending: fresh.Pending, Digests: figures.Digests, OldestSeconds: figures.OldestSeconds,
			Recounts: figures.Recounts, FailedClicks: figures.FailedClicks,
		}
	}
	return err
}

func (y *System) readBatches(ctx context.Context, q *queries.Queries) error {
	pending, err := q.PendingBatches(ctx)
	if err != nil {
		return err
	}
	failed, err := q.ListFailedBatches(ctx, failedShown)
	if err != nil {
		return err
	}
	rejects, err := q.CountClickRejects(ctx, rejectsMost)
	if err == nil {
		y.Batches = &BatchesState{
			Waiting: pending.Batches, Clicks: pending.Clicks, OldestSeconds: pending.OldestSeconds,
			Failed: pending.FailedBatches, FailedClicks: pending.FailedClicks, FailedBatches: views(failed, viewFailedBatch), Rejects: rejects,
		}
	}
	return err
}

// queueNames are the queues that are always told, in this order.
var queueNames = []string{jobs.QueueClicks, jobs.QueueImports, jobs.QueueMaintenance, jobs.QueueRetention}

func (y *System) readQueues(ctx context.Context, q *queries.Queries) error {
	depths, err := q.QueueDepths(ctx)
	if err != nil {
		return err
	}
	paused, err := q.PausedQueues(ctx)
	if err != nil {
		return err
	}
	for _, name := range queueNames {
		state := QueueState{Name: name}
		for _, d := range depths {
			if d.Queue == name {
				state.add(d)
			}
		}
		state.Paused = slices.Contains(paused, queries.PausedQueuesRow{Name: name, Paused: true})
		y.Queues = append(y.Queues, state)
	}
	return nil
}

func (s *QueueState) add(d queries.QueueDepthsRow) {
	switch d.State {
	case "running":
		s.Running += d.Jobs
	case "scheduled", "pending":
		s.Scheduled += d.Jobs
	case "discarded":
		s.Discarded += d.Jobs
	default: // available, retryable
		s.Waiting += d.Jobs
		s.OldestSeconds = max(s.OldestSeconds, d.OldestSeconds)
	}
}

func (y *System) readWorkers(ctx context.Context, q *queries.Queries) error {
	rows, err := q.ListWorkers(ctx, seenMost)
	y.Workers = views(rows, func(r queries.ListWorkersRow) WorkerState {
		return WorkerState{r.Host, r.Version, r.Queues, r.StartedAt.UTC(), r.SeenAt.UTC(), r.Gone}
	})
	return err
}

func (y *System) readReplicas(ctx context.Context, q *queries.Queries) error {
	rows, err := q.ListReplicas(ctx)
	slices.Reverse(rows) // the last seen first
	y.Replicas = views(rows[:min(len(rows), seenMost)], func(r queries.ListReplicasRow) ReplicaState {
		return ReplicaState{r.ID, r.Host, r.Spooled, r.CompleteTo.UTC(), r.StartedAt.UTC(), r.SeenAt.UTC(), r.Gone}
	})
	return err
}

func (y *System) readArchive(ctx context.Context, q *queries.Queries) error {
	parts, err := q.EventPartFigures(ctx)
	if err == nil {
		y.Archive = &ArchiveState{Months: parts.MonthsRetired, Events: parts.RowsRetired, PartsOpen: parts.PartsOpen}
	}
	return err
}

func (y *System) readDatabase(ctx context.Context, q *queries.Queries) error {
	bytes, err := q.DatabaseSize(ctx)
	if err != nil {
		return err
	}
	server, err := q.ServerFigures(ctx)
	if err != nil {
		return err
	}
	tables, err := q.ListTableSizes(ctx, tablesShown)
	if err != nil {
		return err
	}
	months, err := q.ListMonthSizes(ctx, monthsShown)
	if err == nil {
		y.Database = &DatabaseState{
			Bytes: bytes, Connections: server.Connections, MaxConnections: server.MaxConnections,
			Tables: views(tables, func(r queries.ListTableSizesRow) TableSize { return TableSize(r) }),
			Months: views(months, func(r queries.ListMonthSizesRow) MonthSize { return MonthSize{r.Month.Format("2006-01"), r.Bytes} }),
		}
	}
	return err
}
