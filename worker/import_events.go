package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// eventRows is rows of events.
type eventRows struct {
	run    *importRun
	events []csvimport.Event
	none   []time.Time     // months that cannot have a partition
	owners map[int64]int64 // of links, as references found them
}

func (r *eventRows) add(record csvimport.Record) *csvimport.Reject {
	event, reject := r.run.parser.Event(record)
	if reject == nil {
		r.events = append(r.events, event)
	}
	return reject
}

func (r *eventRows) size() int        { return len(r.events) }
func (r *eventRows) line(i int) int64 { return r.events[i].Line }

// prepare makes the partitions for the months of the rows, except for months that
// cannot have one.
func (r *eventRows) prepare(ctx context.Context) error {
	var months []time.Time
	for _, e := range r.events {
		if month := postgres.MonthOf(e.At); !slices.ContainsFunc(months, month.Equal) {
			months = append(months, month)
		}
	}
	if r.run.row.DryRun {
		var err error
		if r.none, err = postgres.DetachedMonths(ctx, r.run.deps.pool, months); err != nil {
			return fmt.Errorf("look for partitions of imported events: %w", err)
		}
		return nil
	}
	r.none = nil
	for {
		err := r.run.deps.partitions.Ensure(ctx, months...)
		var none *postgres.MonthError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &none):
			return fmt.Errorf("ensure partitions of imported events: %w", err)
		}
		r.none = append(r.none, none.Month)
		months = slices.DeleteFunc(months, none.Month.Equal)
	}
}

func (r *eventRows) references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error) {
	var urls, users []int64
	for _, i := range of {
		urls = append(urls, r.events[i].URLID)
		if id := r.events[i].UserID; id != nil {
			users = append(users, *id)
		}
	}
	slices.Sort(urls)
	found, err := q.FindURLOwners(ctx, slices.Compact(urls))
	if err != nil {
		return nil, fmt.Errorf("look for links: %w", err)
	}
	r.owners = make(map[int64]int64, len(found))
	for _, f := range found {
		r.owners[f.ID] = f.UserID
	}
	missing, err := missingUsers(ctx, q, users)
	if err != nil {
		return nil, err
	}
	return r.faults(of, missing), nil
}

func (r *eventRows) faults(of []int, missingUsers map[int64]bool) map[int]fault {
	faults := map[int]fault{}
	for _, i := range of {
		e := &r.events[i]
		if slices.ContainsFunc(r.none, postgres.MonthOf(e.At).Equal) {
			faults[i] = fault{"timestamp", csvimport.ProblemTime, "is in a month that was taken out of the database"}
		} else if _, known := r.owners[e.URLID]; !known && e.URLID != 0 {
			faults[i] = fault{"url_id", csvimport.ProblemMissing, "is not the id of a link"}
		} else if e.UserID != nil && missingUsers[*e.UserID] {
			faults[i] = noUser
		}
	}
	return faults
}

func (r *eventRows) keys(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error) {
	var lines, ids []int64
	var times []time.Time
	index := make(map[int64]int, len(of))
	for _, i := range of {
		if e := &r.events[i]; e.SourceID != nil {
			index[e.Line] = i
			lines, ids, times = append(lines, e.Line), append(ids, *e.SourceID), append(times, e.At)
		}
	}
	if len(lines) == 0 {
		return nil, nil
	}
	found, err := q.FindEventKeyOwners(ctx, lines, ids, times)
	if err != nil {
		return nil, fmt.Errorf("look for owners of the keys of events: %w", err)
	}
	claims := make(map[int][]claim, len(of))
	for _, f := range found {
		i := index[f.Line]
		e := &r.events[i]
		key := strconv.FormatInt(*e.SourceID, 10) + " " + strconv.FormatInt(e.At.UnixMicro(), 10)
		claims[i] = []claim{{uniqueKey{"id", key}, true, owner(f.SourceIDOwner)}}
	}
	return claims, nil
}

// errNoUpdate ends an import that would update events. The API refuses such imports.
var errNoUpdate = errors.New("events are a record and cannot be updated")

func (r *eventRows) lock(context.Context, *queries.Queries, []int64) (map[owner][]uniqueKey, error) {
	return nil, errNoUpdate
}

func (r *eventRows) update(context.Context, *queries.Queries, []int, []int64) (map[int64]json.RawMessage, error) {
	return nil, errNoUpdate
}

func (r *eventRows) redraw(context.Context, *queries.Queries, int) error { return nil }

func (r *eventRows) insert(ctx context.Context, q *queries.Queries, of []int) (map[int64]int64, error) {
	p := queries.ImportEventsParams{ImportID: &r.run.row.ID}
	for _, i := range of {
		e := &r.events[i]
		p.Lines = append(p.Lines, e.Line)
		p.SourceIds = append(p.SourceIds, or(e.SourceID, 0))
		p.URLIds = append(p.URLIds, e.URLID)
		p.UserIds = append(p.UserIds, or(e.UserID, r.owners[e.URLID]))
		p.EventTypes = append(p.EventTypes, e.Type)
		p.OccurredAts = append(p.OccurredAts, e.At)
		click, details := clickFields{}, string(e.Details)
		if e.Type == eventClicked {
			var whole bool
			if click, whole = readClickFields(e.Details); whole {
				details = ""
			}
		}
		p.Details = append(p.Details, details)
		p.Kinds = append(p.Kinds, string(click.kind))
		p.Triggers = append(p.Triggers, storedTrigger(click.trigger))
		p.Countries = append(p.Countries, click.country)
		p.Browsers = append(p.Browsers, click.browser)
		p.Oses = append(p.Oses, click.os)
		p.Devices = append(p.Devices, click.device)
		p.ReferrerHosts = append(p.ReferrerHosts, click.referrer)
	}
	found, err := q.ImportEvents(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("insert events: %w", err)
	}
	ids := make(map[int64]int64, len(found))
	for _, f := range found {
		ids[or(f.ImportLine, 0)] = f.ID
	}
	return ids, nil
}

func (r *eventRows) notices([]int) []csvimport.Notice { return nil }

// count adds imported clicks to the statistics, like any other clicks.
func (r *eventRows) count(ctx context.Context, q *queries.Queries, inserted []int) error {
	var counts rollup.Changes
	for _, i := range inserted {
		if e := &r.events[i]; e.Type == eventClicked {
			click, _ := readClickFields(e.Details)
			counts.Add(rollup.Event{
				URLID: e.URLID, UserID: or(e.UserID, r.owners[e.URLID]), At: e.At, Kind: string(click.kind), Country: click.country,
				Referrer: click.referrer, Browser: click.browser, System: click.os, Device: click.device, Trigger: storedTrigger(click.trigger),
			})
		}
	}
	return counts.Apply(ctx, q)
}

// clickFields are those details of an imported click that clicks counted by this
// service have too. An empty text means that there is none.
type clickFields struct {
	referrer, browser, os, device, country string

	kind    visits.Kind
	trigger clicks.Trigger
}

// maxClickField bounds the length of an imported text in bytes, because statistics are
// grouped by it. The longest such text is a host name.
const maxClickField = 253

// readClickFields reads the fields in the details of a click that can be stored in
// columns. Without a kind, bot decides: a click of which the file says neither counts as
// a person's. whole says that the details have the form that an export writes, so that
// the columns hold all of them. Exports of earlier releases have no kind and no trigger.
func readClickFields(details json.RawMessage) (f clickFields, whole bool) {
	f.kind = visits.Person
	var given map[string]any
	if len(details) == 0 || json.Unmarshal(details, &given) != nil {
		return f, false
	}
	kindWhole, triggerWhole := f.readKind(given), f.readTrigger(given)
	whole = kindWhole && triggerWhole
	for name, text := range map[string]*string{
		"referrer": &f.referrer, "browser": &f.browser, "os": &f.os, "device": &f.device, "country": &f.country,
	} {
		value, found := given[name]
		whole = readText(text, value, name == "referrer") && found && whole
		delete(given, name)
	}
	return f, whole && len(given) == 0
}

// readText reads a text of the details. It reports whether the column holds all of it.
func readText(text *string, value any, isHost bool) bool {
	said, ok := value.(string)
	if !ok || said == "" {
		return value == nil
	}
	if *text = said; isHost {
		*text = importedHost(said)
	}
	if len(*text) > maxClickField {
		*text = ""
	}
	return *text == said
}

// readKind takes kind and bot from the details. It reports whether the column holds all
// that they say.
func (f *clickFields) readKind(given map[string]any) bool {
	kind, hasKind := given["kind"]
	bot, hasBot := given["bot"]
	delete(given, "kind")
	delete(given, "bot")
	isBot, ok := bot.(bool)
	if isBot {
		f.kind = visits.Bot
	}
	whole := hasBot && (ok || bot == nil)
	said, ok := kind.(string)
	if !ok || !visits.IsKind(said) {
		return whole && !hasKind
	}
	f.kind = visits.Kind(said)
	return whole && isBot == (f.kind != visits.Person)
}

// readTrigger does the same for the trigger.
func (f *clickFields) readTrigger(given map[string]any) bool {
	said, found := given["trigger"]
	delete(given, "trigger")
	if said == clicks.TriggerQR.String() {
		f.trigger = clicks.TriggerQR
		return true
	}
	return !found || said == clicks.TriggerLink.String()
}

// importedHost returns the host of a referrer in a file, "" if there is none. An
// export writes the host alone, which may be a single label.
func importedHost(referrer string) string {
	if host := visits.ReferrerHost(referrer); host != "" {
		return host
	}
	if host := visits.Host(referrer); host != "null" {
		return host
	}
	return ""
}
