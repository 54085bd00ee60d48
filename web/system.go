package web

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// systemPage tells operators how the whole service is.
type systemPage struct {
	service.System
	Checked     moment
	Started     moment
	AsOf        *moment
	Workers     []processRow
	Replicas    []processRow
	Failed      []batchRow
	Tables      []barRow
	Months      []barRow
	Retention   []service.Setting
	Links, Most int64  // in the cache, and at most
	CacheHits   string // share of the lookups
	Missing     map[string]string
	NoWorkers   bool // none runs
	Spooled     int64
	OldestWait  map[string]string // by queue
}

// processRow is a process in a list.
type processRow struct {
	Host, Version, Queues string
	Spooled               int64
	Started, Seen         moment
	Gone                  bool
}

type batchRow struct {
	service.FailedBatch
	Count               int64 // of its clicks
	Oldest, FailedSince moment
	Retry, Drop         string
}

// retentionSettings are the settings that say how long what is kept.
var retentionSettings = []string{"EVENTS_RETENTION_MONTHS", "CHANGES_RETENTION_MONTHS", "EVENTS_ARCHIVE", "IMPORT_KEEP", "SPOOL_KEEP", "CLICK_LEDGER_KEEP"}

func (w *Web) system(ctx context.Context, r *Request) (*Answer, error) {
	found, err := w.Service.GetSystem(ctx, r.Actor)
	if err != nil {
		return nil, err
	}
	loc := w.place(r)
	p := systemPage{
		System: found, Checked: momentOf(now(), loc), Started: momentOf(found.StartedAt, loc), Missing: map[string]string{}, NoWorkers: true,
		OldestWait: map[string]string{}, Links: int64(found.Cache.Links), Most: int64(found.Cache.Size),
	}
	for _, u := range found.Unknown {
		p.Missing[u.Part] = sentence(u.Reason)
	}
	if found.Statistics != nil {
		p.AsOf = momentAt(&found.Statistics.AsOf, loc)
	}
	for _, q := range found.Queues {
		if q.Waiting > 0 {
			p.OldestWait[q.Name] = lasting(q.OldestSeconds)
		}
	}
	for _, k := range found.Workers {
		p.NoWorkers = p.NoWorkers && k.Gone
		p.Workers = append(p.Workers, processRow{k.Host, k.Version, strings.Join(k.Queues, ", "), 0, momentOf(k.StartedAt, loc), momentOf(k.SeenAt, loc), k.Gone})
	}
	for _, a := range found.Replicas {
		p.Spooled += a.Spooled
		p.Replicas = append(p.Replicas, processRow{a.Host, "", "", a.Spooled, momentOf(a.StartedAt, loc), momentOf(a.SeenAt, loc), a.Gone})
	}
	if found.Batches != nil {
		for _, b := range found.Batches.FailedBatches {
			p.Failed = append(p.Failed, batchRow{
				b, int64(b.Clicks), momentOf(b.OldestAt, loc), momentOf(b.FailedAt, loc),
				Values{}.href("/app/system/retry", "batch", b.ID), Values{}.href("/app/system/drop", "batch", b.ID),
			})
		}
	}
	if found.Database != nil {
		for _, t := range found.Database.Tables {
			p.Tables = append(p.Tables, barRow{Name: t.Name, Count: t.Bytes})
		}
		for _, m := range found.Database.Months {
			p.Months = append(p.Months, barRow{Name: m.Month, Count: m.Bytes})
		}
		p.Tables, p.Months = withShares(p.Tables), withShares(p.Months)
	}
	for _, s := range found.Settings {
		if slices.Contains(retentionSettings, s.Name) {
			p.Retention = append(p.Retention, service.Setting{Name: s.Name, Value: keptFor(s.Value)})
		}
	}
	if all := found.Cache.Hits + found.Cache.Misses; all > 0 {
		p.CacheHits = fmt.Sprintf("%.1f %%", math.Floor(1000*float64(found.Cache.Hits)/float64(all))/10)
	}
	return w.page(r, 200, "System", "system.html", p)
}

// keptFor words a setting that says how long something is kept: a duration, a number of
// months, or a place.
func keptFor(value string) string {
	if months, err := strconv.ParseInt(value, 10, 64); err == nil {
		if months == 0 {
			return "for ever"
		}
		return number(months) + plural(months, " month", " months")
	}
	if d, err := time.ParseDuration(value); err == nil && d > 0 {
		return lasting(d.Seconds())
	}
	return value
}

// lasting words a time that something has taken so far.
func lasting(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// size words a number of bytes.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func (w *Web) askRetryBatch(_ context.Context, r *Request) (*Answer, error) {
	return w.ask(r, 200, askPage{
		Title: "Ingest the batch again?", Back: "/app/system", Button: "Retry", Hidden: map[string]string{"batch": r.Query.text("batch")},
		Text: []string{
			"Its clicks are counted as a whole and once, unless it fails again.",
			"If it failed because it is older than the ledger reaches, or came back from a copy of a spool, it may have been counted before. Then retry only what you know was not.",
		},
	})
}

func (w *Web) retryBatch(ctx context.Context, r *Request) (*Answer, error) {
	return seeOther("/app/system?done=retried"), w.Service.RetryBatch(ctx, r.Actor, r.Form.text("batch"))
}

func (w *Web) askDropBatch(_ context.Context, r *Request) (*Answer, error) {
	return w.ask(r, 200, askPage{
		Title: "Drop the batch?", Back: "/app/system", Button: "Drop its clicks", Hidden: map[string]string{"batch": r.Query.text("batch")},
		Text: []string{"Its clicks are thrown away, for good, and are in no statistic."},
	})
}

func (w *Web) dropBatch(ctx context.Context, r *Request) (*Answer, error) {
	return seeOther("/app/system?done=dropped"), w.Service.DropBatch(ctx, r.Actor, r.Form.text("batch"))
}
