package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// insertTries bounds how often rows are inserted again that lost to nobody:
	// what they drew was taken, or what took it is gone again.
	insertTries = 5
	sequenceMax = csvimport.MaxSequenceID
)

// rows is some rows of one kind in file order: users, links or events. Rows are
// named by their index. It is for one goroutine.
type rows interface {
	// add keeps the row that a record makes, unless the row rules reject it.
	add(record csvimport.Record) *csvimport.Reject
	// size is the number of rows, and line the line of one.
	size() int
	line(i int) int64
	// draws reports whether a row leaves to the database what other rows of its
	// file may bring: its id or code. It must come after them.
	draws(i int) bool
	// prepare does what must be committed before the rows are inserted; for a dry
	// run it only looks.
	prepare(ctx context.Context) error
	// references finds what rows refer to, and says for each of those that
	// refer to nothing which column is at fault.
	references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error)
	// claims says which unique keys each of some rows claims, and who has them.
	claims(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error)
	// lock locks rows of the database against changes of their keys, in the order
	// of their ids, and returns these keys. What is gone is missing.
	lock(ctx context.Context, q *queries.Queries, ids []int64) (map[holder][]slot, error)
	// insert inserts what conflicts with nothing and returns the ids of what went
	// in, by line. try counts from 0 how often rows that draw had to draw again.
	insert(ctx context.Context, q *queries.Queries, of []int, try int) (map[int64]int64, error)
	// update gives each of the locked rows with these ids what a row says, and
	// returns the values that were replaced, by line.
	update(ctx context.Context, q *queries.Queries, of []int, ids []int64) (map[int64]json.RawMessage, error)
	// finish does what comes last in the transaction for rows that went in.
	finish(ctx context.Context, q *queries.Queries, inserted []int) error
	// notices says what is to be known of rows that went in, or would have.
	notices(inserted []int) []csvimport.Notice
}

// fault is why a row is rejected.
type fault struct {
	column string
	kind   csvimport.ProblemKind
	reason string
}

// newRows returns no rows yet, of an import's kind.
func (d *deps) newRows(imp *importRun) (rows, error) {
	switch csvimport.Kind(imp.row.Kind) {
	case csvimport.KindUsers:
		return &userRows{deps: d, run: imp}, nil
	case csvimport.KindLinks:
		return &linkRows{deps: d, run: imp}, nil
	case csvimport.KindEvents:
		return &eventRows{deps: d, run: imp}, nil
	}
	return nil, fmt.Errorf("unknown kind of import %q", imp.row.Kind)
}

// importRun is an import as its jobs need it.
type importRun struct {
	row    queries.Import
	layout csvimport.Layout
	parser *csvimport.Parser
	policy csvimport.Policy
}

// part is the rows of one chunk, or of one batch of deferred rows, on their way
// into the tables.
type part struct {
	deps     *deps
	run      *importRun
	rows     rows
	raw      map[int64]string // records by line, for the report
	rejected []csvimport.Reject
	deferred []queries.InsertDeferredRowsParams
	// ordered says that rows may claim the same key, so that they have to be
	// taken strictly in line order.
	ordered bool
	// remembers says that a dry run applies these rows in several batches, each
	// of which has to know what the ones before would have done.
	remembers bool
	// careful says that Postgres refused some value: rows go one by one, so
	// that only the one at fault is rejected.
	careful bool
}

// result is what became of the rows of a part within one transaction.
type result struct {
	inserted []int
	updated  []met
	skipped  []met
	tried    []met // what a dry run would have inserted
	rejected []csvimport.Reject
	notices  []csvimport.Notice
	ids      map[int64]int64 // of inserted rows, by line
}

// met is a row of the file that met one which was there.
type met struct {
	line   int64
	of     holder
	before json.RawMessage // what an update replaced; nil in a dry run
}

// read parses records. Those that the row rules reject claim nothing.
func (p *part) read(data []byte, firstLine int64) (records int) {
	for record := range p.run.layout.Records(data, firstLine) {
		records++
		if reject := p.rows.add(record); reject != nil {
			p.rejected = append(p.rejected, *reject)
			continue
		}
		p.raw[record.Line] = record.Raw
	}
	return records
}

// apply inserts the rows that are in of, or does what the policy says of those
// that meet a row which is there, and rejects those that cannot be. The result
// is what taking them one by one in line order gives. errAgain asks for a new
// transaction.
func (p *part) apply(ctx context.Context, tx pgx.Tx, of []int) (result, error) {
	res := result{rejected: append([]csvimport.Reject(nil), p.rejected...), ids: map[int64]int64{}}
	var err error
	if p.careful {
		err = p.applyOneByOne(ctx, tx, of, &res)
	} else {
		err = p.applyAll(ctx, queries.New(tx), of, &res)
	}
	if err == nil && !p.run.row.DryRun {
		err = p.rows.finish(ctx, queries.New(tx), res.inserted)
	}
	res.notices = p.rows.notices(res.inserted)
	if overtaken(err) {
		err = errors.Join(errAgain, err)
	}
	return res, err
}

// overtaken reports whether a row that was looked at is no longer as it was: a
// user was deleted, or somebody else took the address that an update was to give.
func overtaken(err error) bool {
	switch postgres.Constraint(err) {
	case "urls_user_id_fkey", "users_email_key":
		return true
	}
	return false
}

func (p *part) applyOneByOne(ctx context.Context, tx pgx.Tx, of []int, res *result) error {
	for _, i := range of {
		one := result{ids: res.ids}
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			return p.applyAll(ctx, queries.New(tx), []int{i}, &one)
		})
		switch {
		case err == nil:
			res.inserted = append(res.inserted, one.inserted...)
			res.updated = append(res.updated, one.updated...)
			res.skipped = append(res.skipped, one.skipped...)
			res.tried = append(res.tried, one.tried...)
			res.rejected = append(res.rejected, one.rejected...)
		case postgres.DataFault(err) && !overtaken(err):
			p.reject(res, i, fault{"", csvimport.ProblemValue, "cannot be stored (" + postgres.Code(err) + ")"})
		default:
			return err
		}
	}
	return nil
}

func (p *part) applyAll(ctx context.Context, q *queries.Queries, of []int, res *result) error {
	faults, err := p.rows.references(ctx, q, of)
	if err != nil {
		return err
	}
	sound := make([]int, 0, len(of))
	for _, i := range of {
		if f, bad := faults[i]; bad {
			p.reject(res, i, f)
			continue
		}
		sound = append(sound, i)
	}
	if p.ordered || p.run.row.DryRun {
		return p.takeInOrder(ctx, q, sound, res)
	}
	return p.insert(ctx, q, sound, res)
}

// takeInOrder goes through rows in line order and does with each what the keys
// say that it claims, and those that the rows before it left. A row that is
// rejected or skipped claims nothing, whichever of its keys it was.
func (p *part) takeInOrder(ctx context.Context, q *queries.Queries, of []int, res *result) error {
	if len(of) == 0 {
		return nil
	}
	ring, claims, err := p.look(ctx, q, of)
	if err != nil {
		return err
	}
	var w wave
	for _, i := range of {
		v := ring.judge(claims[i])
		if w.goesFirst(v, claims[i]) {
			if err := p.flush(ctx, q, &w, res); err != nil {
				return err
			}
		}
		freed := ring.take(v, claims[i], p.rows.line(i))
		switch v.outcome {
		case outcomeRejected:
			p.reject(res, i, v.why)
		case outcomeSkipped:
			res.skipped = append(res.skipped, met{line: p.rows.line(i), of: v.of})
		default:
			w.add(i, p.rows.line(i), v, freed)
		}
	}
	if err := p.flush(ctx, q, &w, res); err != nil {
		return err
	}
	return p.remember(ctx, q, ring)
}

// A wave is rows that can be inserted and updated in any order.
type wave struct {
	inserts, updates []int
	targets          []holder // of updates
	touched          map[holder]bool
	freed            map[slot]bool
}

// goesFirst reports whether the wave has to be written before a row joins one:
// the row updates what the wave inserts or updates, or takes a key that the
// wave sets free.
func (w *wave) goesFirst(v verdict, claims []claim) bool {
	switch v.outcome {
	case outcomeUpdated:
		if w.touched[v.of] {
			return true
		}
	case outcomeImported:
	default:
		return false
	}
	return slices.ContainsFunc(claims, func(c claim) bool { return w.freed[c.slot] })
}

func (w *wave) add(i int, line int64, v verdict, freed []slot) {
	if w.touched == nil {
		w.touched, w.freed = map[holder]bool{}, map[slot]bool{}
	}
	if v.outcome == outcomeImported {
		w.inserts = append(w.inserts, i)
		w.touched[holder(-line)] = true
		return
	}
	w.updates, w.targets = append(w.updates, i), append(w.targets, v.of)
	w.touched[v.of] = true
	for _, s := range freed {
		w.freed[s] = true
	}
}

// flush writes a wave and empties it. A dry run only notes it.
func (p *part) flush(ctx context.Context, q *queries.Queries, w *wave, res *result) error {
	defer func() { *w = wave{} }()
	if p.run.row.DryRun {
		res.inserted = append(res.inserted, w.inserts...)
		for _, i := range w.inserts {
			res.tried = append(res.tried, met{line: p.rows.line(i)})
		}
		for n, i := range w.updates {
			res.updated = append(res.updated, met{line: p.rows.line(i), of: w.targets[n]})
		}
		return nil
	}
	if err := p.insert(ctx, q, w.inserts, res); err != nil {
		return err
	}
	return p.update(ctx, q, w.updates, w.targets, res)
}

// update updates locked rows, each of them once.
func (p *part) update(ctx context.Context, q *queries.Queries, of []int, targets []holder, res *result) error {
	if len(of) == 0 {
		return nil
	}
	ids := make([]int64, len(of))
	for n, h := range targets {
		ids[n] = res.id(h)
	}
	if err := actAs(ctx, q, p.run.row.ID); err != nil {
		return err
	}
	before, err := p.rows.update(ctx, q, of, ids)
	if err != nil {
		return err
	}
	for n, i := range of {
		line := p.rows.line(i)
		old, went := before[line]
		if !went {
			return fmt.Errorf("row %d was not updated: %w", ids[n], errAgain)
		}
		res.updated = append(res.updated, met{line: line, of: holder(ids[n]), before: old})
	}
	return nil
}

// id is that of a row in the database, 0 if it is not there.
func (res *result) id(h holder) int64 {
	if h < 0 {
		return res.ids[int64(-h)]
	}
	return int64(h)
}

func taken(c claim) fault {
	return fault{c.column, csvimport.ProblemTaken, "is taken by an earlier row or by an existing one"}
}

// insert inserts rows of which no two claim the same key, and does what the
// policy says with those whose key somebody else has.
func (p *part) insert(ctx context.Context, q *queries.Queries, of []int, res *result) error {
	for try := range insertTries {
		if len(of) == 0 {
			return nil
		}
		went, err := p.rows.insert(ctx, q, of, try)
		if err != nil {
			return err
		}
		var missing []int
		for _, i := range of {
			line := p.rows.line(i)
			if id, in := went[line]; in {
				res.inserted = append(res.inserted, i)
				res.ids[line] = id
			} else {
				missing = append(missing, i)
			}
		}
		if of, err = p.losers(ctx, q, missing, res); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d rows lost to nobody: %w", len(of), errAgain)
}

// passTaken moves a sequence to before so many free ids as are wanted, past
// those that somebody has. last sees what the transaction has inserted itself;
// move is a transaction of its own, since its lock is held to the end.
func passTaken(
	ctx context.Context, last func(context.Context, int64) (int64, error), move func(context.Context, int64) error, wanted int,
) error {
	id, err := last(ctx, int64(wanted))
	if err == nil && id != 0 {
		err = move(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("pass taken ids: %w", err)
	}
	return nil
}

// losers does what the policy says with the missing rows that lost a key and
// returns the rest, which are to be tried again. Where order matters, a loss
// means that another transaction came in between, so that later rows were judged
// by what is no longer true: all has to be done again.
func (p *part) losers(ctx context.Context, q *queries.Queries, missing []int, res *result) ([]int, error) {
	if len(missing) == 0 {
		return nil, nil
	}
	ring, claims, err := p.look(ctx, q, missing)
	if err != nil {
		return nil, err
	}
	var rest, updates []int
	var targets []holder
	for _, i := range missing {
		v := ring.judge(claims[i])
		switch {
		case v.outcome == outcomeImported:
			rest = append(rest, i)
		case p.ordered || ring.unsettled(claims[i]):
			return nil, errAgain
		case v.outcome == outcomeSkipped:
			res.skipped = append(res.skipped, met{line: p.rows.line(i), of: v.of})
		case v.outcome == outcomeUpdated:
			updates, targets = append(updates, i), append(targets, v.of)
		default:
			p.reject(res, i, v.why)
		}
	}
	return rest, p.update(ctx, q, updates, targets, res)
}

func (p *part) reject(res *result, i int, f fault) {
	line := p.rows.line(i)
	res.rejected = append(res.rejected, csvimport.Reject{
		Line: line, Column: f.column, Kind: f.kind, Reason: f.reason, Raw: p.raw[line],
	})
}

// write records what became of the rows that did not simply go in, and returns
// how far the counters move.
func (res *result) write(ctx context.Context, q *queries.Queries, importID int64) (queries.MoveImportParams, error) {
	errs := make([]queries.InsertImportErrorsParams, len(res.rejected))
	for i, r := range res.rejected {
		errs[i] = queries.InsertImportErrorsParams{
			ImportID: importID, Line: r.Line, Field: plain(r.Column), Reason: plain(r.Reason), Record: []byte(r.Raw),
			Kind: orNull(r.Kind),
		}
	}
	if len(errs) > 0 {
		if _, err := q.InsertImportErrors(ctx, errs); err != nil {
			return queries.MoveImportParams{}, fmt.Errorf("record rejected rows: %w", err)
		}
	}
	// After the rejected rows, as everywhere: both lock what they are counted in.
	if err := res.writeNotices(ctx, q, importID); err != nil {
		return queries.MoveImportParams{}, err
	}
	outcomes := slices.Concat(
		res.outcomes(importID, outcomeUpdated, res.updated),
		res.outcomes(importID, outcomeSkipped, res.skipped),
		res.outcomes(importID, outcomeImported, res.tried),
	)
	if len(outcomes) > 0 {
		if _, err := q.InsertImportOutcomes(ctx, outcomes); err != nil {
			return queries.MoveImportParams{}, fmt.Errorf("record outcomes of rows: %w", err)
		}
	}
	return queries.MoveImportParams{
		ID: importID, Imported: int64(len(res.inserted)), Updated: int64(len(res.updated)),
		Skipped: int64(len(res.skipped)), Rejected: int64(len(res.rejected)),
	}, nil
}

func (res *result) writeNotices(ctx context.Context, q *queries.Queries, importID int64) error {
	if len(res.notices) == 0 {
		return nil
	}
	params := make([]queries.InsertImportNoticesParams, len(res.notices))
	for i, n := range res.notices {
		params[i] = queries.InsertImportNoticesParams{
			ImportID: importID, Line: n.Line, Field: n.Column, Kind: string(n.Kind), Reason: n.Reason,
		}
	}
	if _, err := q.InsertImportNotices(ctx, params); err != nil {
		return fmt.Errorf("record notices: %w", err)
	}
	return nil
}

func (res *result) outcomes(importID int64, what outcome, rows []met) []queries.InsertImportOutcomesParams {
	params := make([]queries.InsertImportOutcomesParams, len(rows))
	for i, m := range rows {
		params[i] = queries.InsertImportOutcomesParams{
			ImportID: importID, Line: m.line, Outcome: string(what), Before: m.before,
		}
		if id := res.id(m.of); id != 0 {
			params[i].RowID = &id
		}
	}
	return params
}

// orNull is what is stored of a kind that nobody told.
func orNull(kind csvimport.ProblemKind) *string {
	if kind == "" {
		return nil
	}
	text := string(kind)
	return &text
}

// plain makes text that names what a file holds fit for Postgres.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// count tells Prometheus, after the commit.
func (d *deps) count(run *importRun, res result) {
	if run.row.DryRun {
		return
	}
	for what, n := range map[outcome]int{
		outcomeImported: len(res.inserted), outcomeUpdated: len(res.updated),
		outcomeSkipped: len(res.skipped), outcomeRejected: len(res.rejected),
	} {
		d.metrics.importRows.WithLabelValues(run.row.Kind, string(what)).Add(float64(n))
	}
}

// all returns 0 to n-1.
func all(n int) []int {
	of := make([]int, n)
	for i := range of {
		of[i] = i
	}
	return of
}

// or returns what p points to, or else instead.
func or[T any](p *T, instead T) T {
	if p == nil {
		return instead
	}
	return *p
}
