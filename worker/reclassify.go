package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// judgePiece is how many clicks one transaction of a reclassification looks at.
const judgePiece = 5000

// KindChanges counts clicks by the kind that they had and the one that they have now. A
// click whose kind stays has got another browser, system or device.
type KindChanges map[visits.Kind]map[visits.Kind]int64

func (c KindChanges) add(from, to visits.Kind) {
	if c[from] == nil {
		c[from] = map[visits.Kind]int64{}
	}
	c[from][to]++
}

// Reclassification says which clicks to judge anew. With DryRun, nothing is changed but
// counted.
type Reclassification struct {
	From, To time.Time
	DryRun   bool
}

// StartReclassification has workers judge clicks by the rules of this release, and returns
// the id of the reclassification. If one from the same time on is under way, it returns
// that one's, so that a command that was interrupted can be repeated; any other is an
// error. river may be a client that only inserts.
func StartReclassification(ctx context.Context, pool *pgxpool.Pool, client *river.Client[pgx.Tx], r Reclassification) (id int64, err error) {
	err = postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		if err := q.EndOlderReclassification(ctx, visits.Rules); err != nil {
			return fmt.Errorf("end a reclassification by earlier rules: %w", err)
		}
		if id, err = q.CreateReclassification(ctx, queries.CreateReclassificationParams{
			FromAt: r.From, ToAt: r.To, DryRun: r.DryRun, Rules: visits.Rules,
		}); err != nil {
			return err
		}
		job, err := client.InsertTx(ctx, tx, jobs.Reclassify{ID: id}, nil)
		if err != nil {
			return fmt.Errorf("insert job: %w", err)
		}
		return q.SetReclassificationJob(ctx, &job.Job.ID, id)
	})
	if postgres.Constraint(err) == "reclassifications_one_at_a_time" {
		return sameReclassification(ctx, pool, r)
	}
	return id, wrap("start reclassification", err)
}

func sameReclassification(ctx context.Context, pool *pgxpool.Pool, r Reclassification) (int64, error) {
	open, err := queries.New(pool).FindOpenReclassification(ctx)
	if err != nil {
		return 0, fmt.Errorf("look for the reclassification under way: %w", err)
	}
	if !open.FromAt.Equal(r.From) || open.DryRun != r.DryRun || open.Rules != visits.Rules {
		return 0, fmt.Errorf("another reclassification is under way, of clicks from %s to %s: wait for its end",
			open.FromAt.UTC().Format(time.RFC3339), open.ToAt.UTC().Format(time.RFC3339))
	}
	return open.ID, nil
}

// reclassify judges clicks that were counted by the rules and the marked patterns of
// today. Events and statistics are changed together.
//
// It works in pieces, oldest first. A piece is a transaction that locks the
// reclassification and stores there how far it came. So it may be killed at any moment,
// and may run twice at once: the second run continues where the first one is.
type reclassify struct {
	river.WorkerDefaults[jobs.Reclassify]
	deps *deps
}

// Work implements [river.Worker].
func (w *reclassify) Work(ctx context.Context, job *river.Job[jobs.Reclassify]) error {
	rows, err := readMarks(ctx, queries.New(w.deps.pool)) // an operator has just made one, as like as not
	if err != nil {
		return err
	}
	marks, agents := marksOf(rows), map[int64]visits.Agent{}
	for turnEnds := time.Now().Add(w.deps.importTurn); ; {
		var done bool
		err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) (err error) {
			p := judging{deps: w.deps, tx: tx, q: q, marks: marks, agents: agents, days: calendar{zone: w.deps.zone}}
			done, err = p.next(ctx, job)
			return err
		})
		if err != nil || done {
			return err
		}
		if time.Now().After(turnEnds) {
			return river.JobSnooze(0)
		}
	}
}

// otherRulesPause is how long a worker leaves a reclassification to the workers of the
// release that has its rules.
const otherRulesPause = 5 * time.Second

// judging is one piece of a reclassification, in a transaction.
type judging struct {
	deps   *deps
	tx     pgx.Tx
	q      *queries.Queries
	marks  *visits.Marks
	agents map[int64]visits.Agent // of headers, by their ids; kept from piece to piece
	days   calendar
}

// judged is a click that is of another kind or agent than before.
type judged struct {
	row    *queries.ListClicksToJudgeRow
	was    visits.Kind
	is     visits.Agent
	day    int64 // of the salt
	firsts int16 // negative is not known
}

// next does the next piece and reports whether it was the last.
func (p *judging) next(ctx context.Context, job *river.Job[jobs.Reclassify]) (done bool, err error) {
	run, err := p.q.LockReclassification(ctx, job.Args.ID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return true, river.JobCancel(fmt.Errorf("reclassification %d does not exist", job.Args.ID))
	case err != nil:
		return false, fmt.Errorf("lock reclassification: %w", err)
	case run.FinishedAt != nil:
		return true, complete(ctx, p.tx, job)
	case run.Rules != visits.Rules:
		return true, river.JobSnooze(otherRulesPause)
	}
	limit := p.deps.judgePiece
	// A month at a time, so that a query opens one partition.
	until := postgres.MonthOf(run.PositionAt).AddDate(0, 1, 0)
	if run.ToAt.Before(until) {
		until = run.ToAt
	}
	clicks, err := p.q.ListClicksToJudge(ctx, queries.ListClicksToJudgeParams{
		At: run.PositionAt, AtID: run.PositionID, Until: until, RowLimit: limit,
	})
	if err != nil {
		return false, fmt.Errorf("list clicks: %w", err)
	}
	changed, err := p.judge(ctx, clicks)
	if err != nil {
		return false, err
	}
	if !run.DryRun && len(changed) > 0 {
		if err := p.change(ctx, changed); err != nil {
			return false, err
		}
	}
	move := queries.MoveReclassificationParams{ID: run.ID, PositionAt: until, LookedAt: int64(len(clicks))}
	if n := len(clicks); n == int(limit) {
		move.PositionAt, move.PositionID = clicks[n-1].OccurredAt, clicks[n-1].ID
	}
	if move.Changes, err = countKinds(run.Changes, changed); err != nil {
		return false, err
	}
	if err := p.q.MoveReclassification(ctx, move); err != nil {
		return false, fmt.Errorf("note how far the reclassification is: %w", err)
	}
	if move.PositionAt.Before(run.ToAt) {
		return false, nil
	}
	return true, complete(ctx, p.tx, job)
}

func countKinds(before json.RawMessage, changed []judged) (json.RawMessage, error) {
	counts := KindChanges{}
	if err := json.Unmarshal(before, &counts); err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	for _, c := range changed {
		counts.add(c.was, c.is.Kind)
	}
	return json.Marshal(counts)
}

// judge returns the clicks that the rules judge otherwise than before.
func (p *judging) judge(ctx context.Context, clicks []queries.ListClicksToJudgeRow) ([]judged, error) {
	if err := p.readAgents(ctx, clicks); err != nil {
		return nil, err
	}
	var changed []judged
	for i := range clicks {
		row := &clicks[i]
		was := visits.Stored(row.Kind, row.Bot)
		is, known := p.judgeOne(row, was)
		stored := visits.Agent{Kind: was, Browser: or(row.Browser, ""), OS: or(row.OS, ""), Device: or(row.Device, "")}
		if known && is != stored {
			changed = append(changed, judged{
				row: row, was: was, is: is, day: p.days.day(row.OccurredAt.UnixMicro()), firsts: or(row.Firsts, -1),
			})
		}
	}
	return changed, nil
}

// judgeOne returns what a click is, and whether enough of it is known to say so. The
// address is not: what a marked network decided stays. A click by a browser that loaded
// ahead stays a prefetch. Of a robot that an earlier release counted, only the name is
// known.
func (p *judging) judgeOne(row *queries.ListClicksToJudgeRow, was visits.Kind) (is visits.Agent, known bool) {
	switch {
	case row.Rules != nil && *row.Rules == visits.RulesMark:
		return is, false
	case row.UserAgentID != nil:
		if is, known = p.agents[*row.UserAgentID]; was == visits.Prefetch {
			is.Kind = visits.Prefetch
		}
		return is, known
	case row.Kind == nil && was == visits.Bot:
		is = visits.Agent{Browser: or(row.Browser, ""), OS: or(row.OS, ""), Device: or(row.Device, "")}
		is.Kind, known = visits.KindOfProgram(is.Browser)
		return is, known && is.Kind != visits.Person
	}
	return is, false
}

// readAgents reads the headers of clicks that were not read yet.
func (p *judging) readAgents(ctx context.Context, clicks []queries.ListClicksToJudgeRow) error {
	if len(p.agents) > agentsCached {
		clear(p.agents)
	}
	var missing []int64
	for i := range clicks {
		if id := clicks[i].UserAgentID; id != nil {
			if _, found := p.agents[*id]; !found {
				missing = append(missing, *id)
			}
		}
	}
	slices.Sort(missing)
	rows, err := p.q.ListUserAgents(ctx, slices.Compact(missing))
	if err != nil {
		return fmt.Errorf("read user agents: %w", err)
	}
	for _, row := range rows {
		p.agents[row.ID] = p.marks.ReadAgent(row.Agent)
	}
	return nil
}

// change stores what the clicks are now, and changes the statistics by the differences.
func (p *judging) change(ctx context.Context, changed []judged) error {
	if err := p.release(ctx, changed); err != nil {
		return err
	}
	if err := p.claim(ctx, changed); err != nil {
		return err
	}
	set := queries.RejudgeParams{
		Rules: visits.Rules, FirstAt: changed[0].row.OccurredAt, LastAt: changed[len(changed)-1].row.OccurredAt,
	}
	var counts rollup.Changes
	for i := range changed {
		c := &changed[i]
		set.OccurredAts, set.Ids = append(set.OccurredAts, c.row.OccurredAt), append(set.Ids, c.row.ID)
		set.Kinds, set.Firsts = append(set.Kinds, string(c.is.Kind)), append(set.Firsts, c.firsts)
		set.Browsers, set.Oses = append(set.Browsers, c.is.Browser), append(set.Oses, c.is.OS)
		set.Devices = append(set.Devices, c.is.Device)
		counts.Remove(c.event(visits.Agent{
			Kind: c.was, Browser: or(c.row.Browser, ""), OS: or(c.row.OS, ""), Device: or(c.row.Device, ""),
		}, or(c.row.Firsts, 0)))
		counts.Add(c.event(c.is, max(0, c.firsts)))
	}
	n, err := p.q.Rejudge(ctx, set)
	if err != nil {
		return fmt.Errorf("change clicks: %w", err)
	}
	if n != int64(len(changed)) {
		return errAgain // a month was archived meanwhile
	}
	return counts.Apply(ctx, p.q)
}

// event returns the click as statistics count it, with an agent and firsts.
func (c *judged) event(of visits.Agent, firsts int16) rollup.Event {
	r := c.row
	return rollup.Event{
		URLID: or(r.URLID, 0), UserID: or(r.UserID, 0), At: r.OccurredAt, Kind: string(of.Kind), Country: or(r.Country, ""),
		Referrer: or(r.ReferrerHost, ""), Browser: of.Browser, System: of.OS, Device: of.Device, Trigger: or(r.Trigger, ""),
		First: firsts&rollup.FirstOfLink != 0, FirstOfAll: firsts&rollup.FirstOfAll != 0,
	}
}

// lockVisitors keeps all others from claiming visitors, see claimVisitors.
const lockVisitors = "LOCK TABLE ONLY visitors IN SHARE ROW EXCLUSIVE MODE"

// release takes the first visits away from clicks that are no person's any more. While
// the visitors of the day are known, the next click of a person counts as the first.
func (p *judging) release(ctx context.Context, changed []judged) error {
	var released []visitorKey
	for i := range changed {
		c := &changed[i]
		if c.is.Kind == visits.Person || c.firsts <= 0 {
			continue
		}
		if c.firsts&rollup.FirstOfLink != 0 {
			released = append(released, visitorKey{c.day, or(c.row.URLID, 0), or(c.row.Visitor, 0)})
		}
		if c.firsts&rollup.FirstOfAll != 0 {
			released = append(released, visitorKey{c.day, 0, or(c.row.Visitor, 0)})
		}
		c.firsts = 0
	}
	if len(released) == 0 {
		return nil
	}
	if _, err := p.tx.Exec(ctx, lockVisitors); err != nil {
		return fmt.Errorf("keep visitors from being claimed: %w", err)
	}
	slices.SortFunc(released, visitorKey.compare)
	var days []time.Time
	var urls, visitors []int64
	for _, k := range released {
		days, urls, visitors = append(days, dateOf(k.day)), append(urls, k.url), append(visitors, k.visitor)
	}
	return wrap("release visitors", p.q.ReleaseVisitors(ctx, days, urls, visitors))
}

// claim gives clicks that are a person's now the first visits that no other click has.
func (p *judging) claim(ctx context.Context, changed []judged) error {
	byDay := map[int64][]*judged{}
	for i := range changed {
		c := &changed[i]
		if c.is.Kind == visits.Person && c.was != visits.Person && c.row.Visitor != nil {
			byDay[c.day] = append(byDay[c.day], c)
		}
	}
	for _, day := range slices.Sorted(maps.Keys(byDay)) { // as other batches do
		claims := byDay[day]
		kept, err := p.q.VisitorsOfDayAreKept(ctx, dateOf(day).Format(visitorsName))
		if err != nil {
			return fmt.Errorf("look for visitors: %w", err)
		}
		if kept {
			err = p.claimVisitors(ctx, claims)
		} else {
			err = p.claimFromEvents(ctx, day, claims, changed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claimVisitors claims first visits of a day on which further clicks may come in.
func (p *judging) claimVisitors(ctx context.Context, claims []*judged) error {
	events := make([]event, len(claims))
	for i, c := range claims {
		events[i] = event{day: c.day, urlID: or(c.row.URLID, 0), visitor: *c.row.Visitor, kind: visits.Person}
	}
	if err := claimVisitors(ctx, p.tx, events); err != nil {
		return err
	}
	for i, c := range claims {
		c.firsts = events[i].firsts
	}
	return nil
}

// claimFromEvents claims first visits of a day whose visitors are known to the events
// alone. The clicks that change are not what the events say, but what changed says.
func (p *judging) claimFromEvents(ctx context.Context, day int64, claims []*judged, changed []judged) error {
	from, to := daySpan(p.deps.zone, day)
	find := queries.ListFirstVisitsParams{FromAt: from, ToAt: to}
	taken := map[visitorKey]bool{}
	note := func(url, visitor int64, firsts int16) {
		if firsts > 0 && firsts&rollup.FirstOfLink != 0 {
			taken[visitorKey{day, url, visitor}] = true
		}
		if firsts > 0 && firsts&rollup.FirstOfAll != 0 {
			taken[visitorKey{day, 0, visitor}] = true
		}
	}
	for i := range changed {
		c := &changed[i]
		find.WithoutIds = append(find.WithoutIds, c.row.ID)
		if c.day == day && c.row.Visitor != nil {
			note(or(c.row.URLID, 0), *c.row.Visitor, c.firsts)
		}
	}
	for _, c := range claims {
		find.Visitors = append(find.Visitors, *c.row.Visitor)
	}
	found, err := p.q.ListFirstVisits(ctx, find)
	if err != nil {
		return fmt.Errorf("list first visits: %w", err)
	}
	for _, f := range found {
		note(f.URLID, f.Visitor, f.Firsts)
	}
	for _, c := range claims {
		url, visitor := or(c.row.URLID, 0), *c.row.Visitor
		c.firsts = 0
		if !taken[visitorKey{day, url, visitor}] {
			c.firsts |= rollup.FirstOfLink
		}
		if !taken[visitorKey{day, 0, visitor}] {
			c.firsts |= rollup.FirstOfAll
		}
		note(url, visitor, c.firsts)
	}
	return nil
}

// daySpan returns when a day begins and ends in a zone, nil for UTC.
func daySpan(zone *time.Location, day int64) (from, to time.Time) {
	if zone == nil {
		zone = time.UTC
	}
	year, month, date := dateOf(day).Date()
	return time.Date(year, month, date, 0, 0, 0, 0, zone), time.Date(year, month, date+1, 0, 0, 0, 0, zone)
}
