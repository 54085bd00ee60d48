package service

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// MaxBulk is how many links one request may change or delete.
const MaxBulk = 10_000

const (
	// bulkPiece is how many links one transaction changes.
	bulkPiece = 500
	// maxCounted is how far the links of a filter are counted that finds too many.
	maxCounted = 100_000
	// bulkMargin is the time that is left for the answer when a request runs out of time.
	bulkMargin = 500 * time.Millisecond
	// bulkPatience is how long a piece waits for another change of a link, since it holds a
	// connection meanwhile. It is text that Postgres reads.
	bulkPatience = "2s"
	// maxUndo is about how many bytes of an answer its undo takes, without the ids, and
	// undoRoom how many each part of it takes beside its tags.
	maxUndo, undoRoom = 1 << 20, 100
)

// Selection says which links a request is about: those with some ids, or all that a list
// has.
type Selection struct {
	IDs    []int64
	Filter *LinkList // nil if there are IDs
	// Expected is how many links the one who asks has seen that it has; 0 if that makes no
	// difference.
	Expected int
}

// Check returns the faults of the selection.
func (in Selection) Check() Faults {
	var f Faults
	switch {
	case in.Filter != nil && len(in.IDs) > 0:
		f.Add("ids", "cannot be used together with filter")
	case in.Filter != nil:
		for _, fault := range in.Filter.Check() {
			f.Add("filter."+fault.Field, fault.Message)
		}
	case len(in.IDs) == 0:
		f.Add("ids", "is required, or filter")
	case len(in.IDs) > MaxBulk:
		f.Add("ids", fmt.Sprintf("has %d links, and a request changes at most %d", len(in.IDs), MaxBulk))
	}
	for _, id := range in.IDs {
		if err := checkID(id); err != nil {
			f.Add("ids", "must be positive integers")
			break
		}
	}
	return f
}

// Check returns the faults of the filters of a list.
func (in LinkList) Check() Faults {
	var f Faults
	for _, text := range []struct {
		name, value string
		most        int
	}{{"search", in.Search, MaxSearch}, {"tag", in.Tag, links.MaxTag}, {"domain", in.Domain, links.MaxHost}} {
		switch {
		case utf8.RuneCountInString(text.value) > text.most:
			f.Add(text.name, fmt.Sprintf("must be at most %d characters", text.most))
		case strings.ContainsRune(text.value, 0) || !utf8.ValidString(text.value):
			f.Add(text.name, "must be text in UTF-8 without NUL")
		case text.name == "search" && text.value != "":
			if err := CheckSearch(text.value); err != nil {
				f.Add(text.name, err.Error())
			}
		}
	}
	if in.UserID != nil {
		if err := checkID(*in.UserID); err != nil {
			f.Add("user_id", err.Error())
		}
	}
	return f
}

// BulkChange is a change of many links.
type BulkChange struct {
	AddTags, RemoveTags Optional[[]string]
	IsActive            Optional[bool]
}

// Check returns the faults of the change.
func (c BulkChange) Check() Faults {
	var f Faults
	clean := func(tags []string) error {
		_, err := links.CleanTags(tags)
		return err
	}
	Check(&f, "add_tags", c.AddTags, "a list of strings", false, clean)
	Check(&f, "remove_tags", c.RemoveTags, "a list of strings", false, clean)
	Check(&f, "is_active", c.IsActive, "true or false", false, nil)
	if len(c.AddTags.Value) == 0 && len(c.RemoveTags.Value) == 0 && !c.IsActive.Sent && len(f) == 0 {
		f.Add("add_tags", "is required, or remove_tags or is_active")
	}
	if slices.ContainsFunc(c.clean().AddTags.Value, func(tag string) bool { return slices.Contains(c.clean().RemoveTags.Value, tag) }) {
		f.Add("remove_tags", "must not have a tag that add_tags has")
	}
	return f
}

// clean returns the change with its tags as they are stored.
func (c BulkChange) clean() BulkChange {
	c.AddTags.Value, _ = links.CleanTags(c.AddTags.Value)
	c.RemoveTags.Value, _ = links.CleanTags(c.RemoveTags.Value)
	return c
}

// of returns the change as one of a single link.
func (c BulkChange) of(l Link) LinkFields {
	fields := LinkFields{IsActive: c.IsActive}
	if c.AddTags.Sent || c.RemoveTags.Sent {
		fields.Tags.Sent = true
		fields.Tags.Value = append(without(l.Tags, c.RemoveTags.Value), c.AddTags.Value...)
	}
	return fields
}

// without returns the tags that are not among some others.
func without(tags, others []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return slices.Contains(others, tag) })
}

// BulkOutcome says what became of the links of a request. Each of them was changed, was
// so already, or failed.
type BulkOutcome struct {
	DryRun    bool          `json:"dry_run" doc:"Nothing was changed: the numbers say what would have been."`
	Found     int           `json:"found" example:"312" doc:"How many links the request was about."`
	Changed   int           `json:"changed" example:"300"`
	Unchanged int           `json:"unchanged" example:"10" doc:"Those that were so already."`
	Failed    int           `json:"failed" example:"2"`
	Failures  []BulkFailure `json:"failures" nullable:"false" doc:"Those that failed, by the reason."`
	IDs       []int64       `json:"ids" nullable:"false" doc:"Those that were changed or deleted, or would have been."`
	Undo      []BulkUndo    `json:"undo,omitempty" doc:"Bodies of PATCH /urls/bulk that take the change back."`
	NoUndo    bool          `json:"undo_too_large,omitempty" doc:"The links have so many different tags that there is no undo."`
	// Unfinished says that some failed for lack of time or of the database.
	Unfinished bool `json:"-"`
}

// BulkFailure are links that failed for the same reason.
type BulkFailure struct {
	Field   string  `json:"field,omitempty" example:"tags" doc:"The field at fault, if a field is."`
	Message string  `json:"message" example:"must be at most 20 tags" doc:"Why."`
	IDs     []int64 `json:"ids" nullable:"false"`
}

// BulkUndo takes the change of some links back, as a request of its own.
type BulkUndo struct {
	IDs        []int64  `json:"ids" nullable:"false"`
	AddTags    []string `json:"add_tags,omitempty"`
	RemoveTags []string `json:"remove_tags,omitempty"`
	IsActive   *bool    `json:"is_active,omitempty"`
}

// Change returns the change that takes the other one back.
func (u BulkUndo) Change() BulkChange {
	c := BulkChange{
		AddTags:    Optional[[]string]{Value: u.AddTags, Sent: u.AddTags != nil},
		RemoveTags: Optional[[]string]{Value: u.RemoveTags, Sent: u.RemoveTags != nil},
	}
	if u.IsActive != nil {
		c.IsActive = Optional[bool]{Value: *u.IsActive, Sent: true}
	}
	return c
}

// fail notes that links failed for a reason.
func (o *BulkOutcome) fail(reason FieldError, ids ...int64) {
	o.Found += len(ids)
	o.Failed += len(ids)
	i := slices.IndexFunc(o.Failures, func(f BulkFailure) bool { return f.Field == reason.Field && f.Message == reason.Message })
	if i < 0 {
		i, o.Failures = len(o.Failures), append(o.Failures, BulkFailure{Field: reason.Field, Message: reason.Message})
	}
	o.Failures[i].IDs = append(o.Failures[i].IDs, ids...)
}

// undoGroups are the places in an outcome of the changes that are taken back alike. size is
// about how much they take.
type undoGroups struct {
	places map[string]int
	size   int
}

// undoBy notes how the change of a link is taken back, unless that is too much.
func (o *BulkOutcome) undoBy(before, after Link, groups *undoGroups) {
	if o.NoUndo {
		return
	}
	u := BulkUndo{AddTags: without(before.Tags, after.Tags), RemoveTags: without(after.Tags, before.Tags)}
	if before.IsActive != after.IsActive {
		u.IsActive = &before.IsActive
	}
	// Tags have no comma, and no line break.
	key := fmt.Sprint(strings.Join(u.AddTags, ","), "\n", strings.Join(u.RemoveTags, ","), "\n", u.IsActive != nil, before.IsActive)
	i, known := groups.places[key]
	if !known {
		i, o.Undo = len(o.Undo), append(o.Undo, u)
		groups.places[key] = i
		groups.size += len(key) + undoRoom
	}
	o.Undo[i].IDs = append(o.Undo[i].IDs, before.ID)
	if groups.size > maxUndo {
		o.Undo, o.NoUndo = nil, true
	}
}

// bulkStep is what a request does to one link.
type bulkStep struct {
	before, after Link
	acts          bool        // otherwise the link is so already
	changes       changes     // of its fields
	decides       bool        // it takes the link from the undo of an import, see UpdateLink
	fault         *FieldError // why it cannot be done
}

// note adds a step that was taken.
func (o *BulkOutcome) note(step bulkStep, undo *undoGroups) {
	switch {
	case step.fault != nil:
		o.fail(*step.fault, step.before.ID)
		return
	case !step.acts:
		o.Unchanged++
	default:
		o.Changed++
		o.IDs = append(o.IDs, step.before.ID)
	}
	o.Found++
	if len(step.changes) > 0 && !o.DryRun {
		o.undoBy(step.before, step.after, undo)
	}
}

// ChangeLinks changes many links. It works in pieces of a transaction each, and looks at
// every link once more when it holds the link: one that has left the filter meanwhile is
// left alone, and tags are added to those that it has then. So no change of others at the
// same time is lost. After an error nothing was changed, as far as is known: if the database
// is lost while a piece is committed, the first piece may have been. Links that could not be
// changed for other reasons than the request's are failures.
//
// A request with a key is answered as the first one with it that was finished. Without one,
// or after one that was not finished, it can be repeated too, but then the answer knows only
// what the repetition has changed.
func (s *Service) ChangeLinks(ctx context.Context, actor Actor, in Selection, c BulkChange, dryRun bool, once *Once) (BulkOutcome, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return BulkOutcome{}, err
	}
	if err := append(in.Check(), c.Check()...).Err(); err != nil {
		return BulkOutcome{}, err
	}
	c = c.clean()
	return s.bulk(ctx, in, dryRun, once, bulkWork{
		plan: func(link Link, undone bool) bulkStep {
			step := bulkStep{before: link, after: link, decides: c.IsActive.Sent && undone}
			fields := c.of(link)
			if faults := fields.CheckChange(s.OwnHosts); len(faults) > 0 {
				step.fault = &faults[0]
				return step
			}
			step.changes = step.after.apply(fields)
			step.acts = len(step.changes) > 0
			return step
		},
		write: func(ctx context.Context, q *queries.Queries, steps []bulkStep) error {
			p := queries.ChangeURLsParams{DecidesActive: c.IsActive.Sent}
			for _, step := range steps {
				p.Ids = append(p.Ids, step.after.ID)
				p.Tags = append(p.Tags, strings.Join(step.after.Tags, "|"))
				p.IsActives = append(p.IsActives, step.after.IsActive)
			}
			if err := q.ChangeURLs(ctx, p); err != nil {
				return err
			}
			acts := slices.DeleteFunc(slices.Clone(steps), func(step bulkStep) bool { return !step.acts })
			return recordLinks(ctx, q, actor, "updated", acts)
		},
	})
}

// DeleteLinks deletes many links, as ChangeLinks changes them. It cannot be undone.
func (s *Service) DeleteLinks(ctx context.Context, actor Actor, in Selection, dryRun bool, once *Once) (BulkOutcome, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return BulkOutcome{}, err
	}
	if err := in.Check().Err(); err != nil {
		return BulkOutcome{}, err
	}
	return s.bulk(ctx, in, dryRun, once, bulkWork{
		plan: func(link Link, _ bool) bulkStep { return bulkStep{before: link, after: link, acts: true} },
		write: func(ctx context.Context, q *queries.Queries, steps []bulkStep) error {
			if err := q.DeleteURLs(ctx, views(steps, func(step bulkStep) int64 { return step.before.ID })); err != nil {
				return err
			}
			return recordLinks(ctx, q, actor, "deleted", steps)
		},
	})
}

// KeepPart keeps what a request about many links has done that was not finished, so that this
// can be undone. It does so under a key of its own, which it returns: with the request's key
// the same request goes on with the rest.
func (s *Service) KeepPart(ctx context.Context, once Once, done BulkOutcome) (Once, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime) // it may be out of time
	defer cancel()
	once.Key = "part-" + rand.Text()
	err := s.inTx(ctx, func(q *queries.Queries) error {
		if err := once.Claim(ctx, q, nil); err != nil {
			return err
		}
		return once.keep(ctx, q, statusOK, "", done)
	})
	return once, err
}

// bulkWork is the work of a request about many links.
type bulkWork struct {
	// plan says what is done to a link. undone says that the undo of an import has switched
	// it off for now.
	plan func(link Link, undone bool) bulkStep
	// write does it, to at least one link.
	write func(ctx context.Context, q *queries.Queries, steps []bulkStep) error
}

// bulk does the work to the links of a selection, piece by piece. The key is claimed before
// the first. The answer of a request that was not finished is not kept: the same request goes
// on with the rest.
func (s *Service) bulk(ctx context.Context, in Selection, dryRun bool, once *Once, work bulkWork) (BulkOutcome, error) {
	out := BulkOutcome{DryRun: dryRun, Failures: []BulkFailure{}, IDs: []int64{}}
	end := func(any, bool) {}
	if !dryRun {
		var err error
		if end, err = s.claimed(ctx, once); err != nil {
			return out, err
		}
	}
	err := s.eachPiece(ctx, in, work, &out)
	end(out, err == nil && !out.Unfinished)
	return out, err
}

// eachPiece does the work of bulk. An error after the first change is part of the outcome.
func (s *Service) eachPiece(ctx context.Context, in Selection, work bulkWork, out *BulkOutcome) error {
	within, cancel := earlier(ctx, bulkMargin)
	defer cancel()
	ids, filter, err := s.selected(within, in)
	if err != nil {
		return err
	}
	undo := &undoGroups{places: map[string]int{}}
	for done := 0; done < len(ids); done += bulkPiece {
		steps, err := s.bulkPiece(within, ids[done:min(done+bulkPiece, len(ids))], filter, out.DryRun, work)
		if err != nil {
			reason := Classify(err)
			switch {
			case out.Changed == 0:
				return err
			case within.Err() != nil:
				reason = errNoTime
			case reason == nil:
				s.Log.ErrorContext(ctx, "a change of many links has stopped", slog.Int("changed", out.Changed), slog.Any("error", err))
				reason = errStopped
			}
			out.Unfinished = true
			out.fail(FieldError{Message: reason.Message}, ids[done:]...)
			break
		}
		for _, step := range steps {
			out.note(step, undo)
		}
	}
	return nil
}

// enterBulk takes a place for a piece of the work.
func (s *Service) enterBulk(ctx context.Context) (leave func(), err error) {
	if s.EnterBulk == nil {
		return func() {}, nil
	}
	return s.EnterBulk(ctx)
}

var (
	errStopped = Unavailable("something went wrong before it was their turn, send it again")
	errHeld    = Unavailable("another change holds some of these links, try again shortly")
)

var errNoTime = Unavailable("there was no time left for it, send it again")

// earlier returns a context that ends some time before ctx does.
func earlier(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-by))
}

// selected returns the ids of the links of a selection, and the filter that they pass, if
// the selection has one.
func (s *Service) selected(ctx context.Context, in Selection) (ids []int64, filter *linkList, err error) {
	if in.Filter == nil {
		ids = slices.Clone(in.IDs)
		slices.Sort(ids)
		ids = slices.Compact(ids)
	} else {
		all := *in.Filter
		all.Oldest, all.After = true, 0
		l, err := s.linkList(ctx, all)
		if err != nil {
			return nil, nil, err
		}
		if ids, err = s.idsOf(ctx, l, maxCounted+1); err != nil {
			return nil, nil, err
		}
		filter = &l
	}
	if len(ids) > MaxBulk {
		return nil, nil, tooMany(len(ids))
	}
	if in.Expected != 0 && len(ids) != in.Expected {
		return nil, nil, Conflict(fmt.Sprintf("there are %d such links now, not %d: look again", len(ids), in.Expected),
			FieldError{"expected", fmt.Sprintf("is %d, and there are %d such links now", in.Expected, len(ids))})
	}
	return ids, filter, nil
}

// tooMany refuses a filter that finds too many links.
func tooMany(found int) *Error {
	count := fmt.Sprint(found)
	if found > maxCounted {
		count = fmt.Sprintf("more than %d", maxCounted)
	}
	e := Invalid(FieldError{"filter", fmt.Sprintf("finds %s links, and a request changes at most %d", count, MaxBulk)})
	e.Hint = "narrow it, for example by user_id or domain, or list the links and send their ids in several requests"
	return e
}

// idsOf returns the ids of the first links of a list, up to a limit.
func (s *Service) idsOf(ctx context.Context, l linkList, limit int) (ids []int64, err error) {
	for {
		leave, err := s.enterBulk(ctx)
		if err != nil {
			return nil, err
		}
		got, err := s.piece(ctx, l, limit-len(ids))
		leave()
		if err != nil {
			return nil, err
		}
		ids = append(ids, got.ids...)
		if l.at = got.edge; got.edge == 0 || len(ids) == limit {
			return ids, nil
		}
	}
}

// bulkPiece does the work to links with some ids, in a transaction. It returns what was
// done to each that passes the filter.
func (s *Service) bulkPiece(ctx context.Context, ids []int64, filter *linkList, dryRun bool, work bulkWork) (steps []bulkStep, err error) {
	leave, err := s.enterBulk(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if dryRun {
		return s.planPiece(ctx, s.lists(), ids, filter, work)
	}
	var keys []linkcache.Key
	err = s.inTx(ctx, func(q *queries.Queries) error {
		patience := bulkPatience
		if err := q.WaitForLocks(ctx, &patience); err != nil {
			return err
		}
		if _, err := q.LockURLKeys(ctx, ids); err != nil {
			return err
		}
		if steps, err = s.planPiece(ctx, q, ids, filter, work); err != nil {
			return err
		}
		var writes []bulkStep
		for _, step := range steps {
			if step.fault == nil && (step.acts || step.decides) {
				writes = append(writes, step)
			}
		}
		keys = views(writes, func(step bulkStep) linkcache.Key { return step.before.key() })
		if len(writes) == 0 {
			return nil
		}
		return work.write(ctx, q, writes)
	})
	switch {
	case err == nil:
		s.Cache.Forget(keys...)
	case postgres.LockTimeout(err):
		err = errHeld
	}
	return steps, err
}

var errNoSuchLink = &FieldError{Message: errNoLink.Message}

// planPiece says what is to be done to links with some ids, as they are now. With a filter
// it leaves those out that do not pass it.
func (s *Service) planPiece(ctx context.Context, q *queries.Queries, ids []int64, filter *linkList, work bulkWork) ([]bulkStep, error) {
	p := queries.ReadURLsParams{Ids: ids}
	if filter != nil {
		p.UserID, p.DomainID, p.IsActive, p.Tag, p.Search = filter.userID, filter.domainID, filter.isActive, filter.tag, filter.search
	}
	rows, err := q.ReadURLs(ctx, p)
	if err != nil {
		return nil, err
	}
	steps := make([]bulkStep, 0, len(ids))
	for _, id := range ids { // both are in the order of ids
		switch {
		case len(rows) > 0 && rows[0].URL.ID == id:
			steps = append(steps, work.plan(s.viewLink(rows[0].URL, rows[0].Host, linkNumbers{}), rows[0].URL.UndoOf != nil))
			rows = rows[1:]
		case filter == nil:
			steps = append(steps, bulkStep{before: Link{ID: id}, fault: errNoSuchLink})
		}
	}
	return steps, nil
}

// recordLinks is recordLink for many links.
func recordLinks(ctx context.Context, q *queries.Queries, actor Actor, event string, steps []bulkStep) error {
	if len(steps) == 0 {
		return nil
	}
	p := queries.InsertChangeEventsParams{EventType: event}
	for _, step := range steps {
		details, err := detailsOf(step.after, step.changes).encode(actor)
		if err != nil {
			return err
		}
		p.URLIds = append(p.URLIds, step.after.ID)
		p.UserIds = append(p.UserIds, step.after.UserID)
		p.Details = append(p.Details, string(details))
	}
	return q.InsertChangeEvents(ctx, p)
}
