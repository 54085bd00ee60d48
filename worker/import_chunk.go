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

const sequenceMax = csvimport.MaxSequenceID

// rows are the sound rows of a chunk, of one kind and in file order: users, links
// or events. A row is named by its index. They are for one goroutine at a time.
type rows interface {
	// add keeps the row that a record makes, unless the row rules reject it.
	add(record csvimport.Record) *csvimport.Reject
	// size is the number of rows, and line the line of one.
	size() int
	line(i int) int64
	// prepare does what must be committed before the rows are inserted; for a dry
	// run it only looks.
	prepare(ctx context.Context) error
	// references finds what rows refer to, and says for each of those that
	// refer to nothing which column is at fault.
	references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error)
	// keys says which unique keys each of some rows claims, and who owns them.
	keys(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error)
	// lock locks rows of the database against changes of their keys, in the order
	// of their ids, and returns these keys. Those of a row that is gone are missing.
	lock(ctx context.Context, q *queries.Queries, ids []int64) (map[owner][]uniqueKey, error)
	// insert inserts rows in line order, each unless it conflicts with one that is
	// there by then, and returns the ids of those that went in, by line.
	insert(ctx context.Context, q *queries.Queries, of []int) (map[int64]int64, error)
	// redraw sees to it that rows which draw their id or code, of which so many
	// drew one that is taken, draw others in the next transaction.
	redraw(ctx context.Context, q *queries.Queries, missing int) error
	// update gives each of the locked rows with these ids what a row says, and
	// returns the values that were replaced, by line.
	update(ctx context.Context, q *queries.Queries, of []int, ids []int64) (map[int64]json.RawMessage, error)
	// finish does what comes last in the transaction for rows that went in.
	finish(ctx context.Context, q *queries.Queries, inserted []int) error
	// notices returns the notices of rows that went in, or would have.
	notices(inserted []int) []csvimport.Notice
}

// An owner has a unique key: the id of a row of the database, minus the line of a
// row of the file that is not in it, or nobody.
type owner int64

const nobody owner = 0

// A uniqueKey equals another exactly if the unique index takes them for equal.
type uniqueKey struct{ column, value string }

// A claim is a unique key that a row of the file is to have.
type claim struct {
	uniqueKey
	// identifies says that the key tells which row is meant, so that no update
	// changes it.
	identifies bool
	owner      owner // in the database
}

// fault is why a row is rejected.
type fault struct {
	column string
	kind   csvimport.ProblemKind
	reason string
}

func taken(c claim) fault {
	return fault{c.column, csvimport.ProblemTaken, "is taken by an earlier row or by an existing one"}
}

// An outcome is what became of a row.
type outcome string

const (
	outcomeImported outcome = "imported"
	outcomeUpdated  outcome = "updated"
	outcomeSkipped  outcome = "skipped"
	outcomeRejected outcome = "rejected"
)

// resolved is the fate of a row before it is written.
type resolved struct {
	outcome outcome
	owner   owner // the row that is updated, or for which this one is skipped
	fault   fault // of a row that is rejected
}

// chunk is the rows of one chunk on their way into the tables.
type chunk struct {
	run       *importRun
	seq       int32
	firstLine int64
	records   int32
	rows      rows
	raw       []string // the records of rows, for the report
	malformed []csvimport.Reject
	// careful says that Postgres refused some value: rows go one by one, so that
	// only the one at fault is rejected.
	careful bool
}

// parse makes rows of a chunk.
func (run *importRun) parse(row queries.ReadNextImportChunkRow) (*chunk, error) {
	c := &chunk{run: run, seq: row.Seq, firstLine: row.FirstLine, records: row.Rows}
	switch csvimport.Kind(run.row.Kind) {
	case csvimport.KindUsers:
		c.rows = &userRows{run: run}
	case csvimport.KindLinks:
		c.rows = &linkRows{run: run}
	case csvimport.KindEvents:
		c.rows = &eventRows{run: run}
	default:
		return nil, fmt.Errorf("unknown kind of import %q", run.row.Kind)
	}
	records := int32(0)
	for record := range run.layout.Records(row.Data, row.FirstLine) {
		records++
		if reject := c.rows.add(record); reject != nil {
			c.malformed = append(c.malformed, *reject)
			continue
		}
		c.raw = append(c.raw, record.Raw)
	}
	if records != row.Rows {
		return nil, fmt.Errorf("chunk %d of import %d has %d records and should have %d", row.Seq, run.row.ID, records, row.Rows)
	}
	return c, nil
}

// report is what became of the rows of a chunk within one transaction.
type report struct {
	inserted []int
	updated  []met
	skipped  []met
	tried    []met // rows that a dry run would have inserted
	rejected []csvimport.Reject
	notices  []csvimport.Notice
	ids      map[int64]int64 // of inserted rows, by line
}

// met is a row of the file that met one which was there.
type met struct {
	line   int64
	of     owner
	before json.RawMessage // the values that an update replaced; nil in a dry run
}

// id returns the id of a row in the database, 0 if it is not there.
func (rep *report) id(o owner) int64 {
	if o < 0 {
		return rep.ids[int64(-o)]
	}
	return int64(o)
}

// apply applies the rows in line order. errAgain asks for a new transaction.
func (c *chunk) apply(ctx context.Context, tx pgx.Tx) (report, error) {
	rep := report{rejected: slices.Clone(c.malformed), ids: map[int64]int64{}}
	of := make([]int, c.rows.size())
	for i := range of {
		of[i] = i
	}
	var err error
	if c.careful {
		err = c.applyOneByOne(ctx, tx, of, &rep)
	} else {
		err = c.applyRows(ctx, queries.New(tx), of, &rep)
	}
	if err == nil && !c.run.row.DryRun {
		err = c.rows.finish(ctx, queries.New(tx), rep.inserted)
	}
	rep.notices = c.rows.notices(rep.inserted)
	if overtaken(err) {
		err = errors.Join(errAgain, err)
	}
	return rep, err
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

func (c *chunk) applyOneByOne(ctx context.Context, tx pgx.Tx, of []int, rep *report) error {
	for _, i := range of {
		one := report{ids: rep.ids}
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			return c.applyRows(ctx, queries.New(tx), []int{i}, &one)
		})
		switch {
		case err == nil:
			rep.inserted = append(rep.inserted, one.inserted...)
			rep.updated = append(rep.updated, one.updated...)
			rep.skipped = append(rep.skipped, one.skipped...)
			rep.tried = append(rep.tried, one.tried...)
			rep.rejected = append(rep.rejected, one.rejected...)
		case postgres.DataFault(err) && !overtaken(err):
			c.reject(rep, i, fault{"", csvimport.ProblemValue, "cannot be stored (" + postgres.Code(err) + ")"})
		default:
			return err
		}
	}
	return nil
}

// applyRows decides what becomes of each row, and does it. The result is what
// taking them one after the other gives; a row that is rejected or skipped claims
// nothing.
//
// Postgres inserts rows in line order and leaves out those that conflict, so one
// statement settles nearly all of most files, and only the rows that it left out
// are looked at. Where a row may free a key for the next, which only updates of
// users do, all have to be looked at, and in a dry run too.
func (c *chunk) applyRows(ctx context.Context, q *queries.Queries, of []int, rep *report) error {
	of, err := c.withReferences(ctx, q, of, rep)
	if err != nil {
		return err
	}
	frees := c.run.policy == csvimport.PolicyUpdate && csvimport.Kind(c.run.row.Kind) == csvimport.KindUsers
	if !frees && !c.run.row.DryRun {
		if of, err = c.insert(ctx, q, of, rep); err != nil {
			return err
		}
	}
	if len(of) == 0 {
		return nil
	}
	claims, owners, err := c.findOwners(ctx, q, of, rep)
	if err != nil {
		return err
	}
	var b batch
	for _, i := range of {
		line := c.rows.line(i)
		r := owners.resolve(claims[i], line)
		if b.meets(r, claims[i]) {
			if err := c.write(ctx, q, &b, rep); err != nil {
				return err
			}
		}
		switch r.outcome {
		case outcomeRejected:
			c.reject(rep, i, r.fault)
		case outcomeSkipped:
			rep.skipped = append(rep.skipped, met{line: line, of: r.owner})
		default:
			b.add(i, line, r, owners.give(r, claims[i], line))
		}
	}
	if err := c.write(ctx, q, &b, rep); err != nil {
		return err
	}
	return c.remember(ctx, q, owners)
}

// withReferences rejects the rows that refer to nothing, and returns the others.
func (c *chunk) withReferences(ctx context.Context, q *queries.Queries, of []int, rep *report) ([]int, error) {
	faults, err := c.rows.references(ctx, q, of)
	if err != nil || len(faults) == 0 {
		return of, err
	}
	sound := make([]int, 0, len(of))
	for _, i := range of {
		if f, bad := faults[i]; bad {
			c.reject(rep, i, f)
		} else {
			sound = append(sound, i)
		}
	}
	return sound, nil
}

func (c *chunk) reject(rep *report, i int, f fault) {
	rep.rejected = append(rep.rejected, csvimport.Reject{
		Line: c.rows.line(i), Column: f.column, Kind: f.kind, Reason: f.reason, Raw: c.raw[i],
	})
}

// insert inserts rows in line order and returns those that were left out.
func (c *chunk) insert(ctx context.Context, q *queries.Queries, of []int, rep *report) (out []int, err error) {
	if len(of) == 0 {
		return nil, nil
	}
	went, err := c.rows.insert(ctx, q, of)
	if err != nil {
		return nil, err
	}
	for _, i := range of {
		line := c.rows.line(i)
		id, in := went[line]
		if !in {
			out = append(out, i)
			continue
		}
		rep.inserted = append(rep.inserted, i)
		rep.ids[line] = id
	}
	return out, nil
}

// A batch is rows that can be inserted and updated in any order.
type batch struct {
	inserts, updates []int
	targets          []owner // of updates
	touched          map[owner]bool
	freed            map[uniqueKey]bool
}

// meets reports whether the batch has to be written before a row joins one: the row
// updates a row that the batch inserts or updates, or takes a key that it frees.
func (b *batch) meets(r resolved, claims []claim) bool {
	switch r.outcome {
	case outcomeImported:
	case outcomeUpdated:
		if b.touched[r.owner] {
			return true
		}
	default:
		return false
	}
	return slices.ContainsFunc(claims, func(c claim) bool { return b.freed[c.uniqueKey] })
}

func (b *batch) add(i int, line int64, r resolved, freed []uniqueKey) {
	if b.touched == nil {
		b.touched, b.freed = map[owner]bool{}, map[uniqueKey]bool{}
	}
	if r.outcome == outcomeImported {
		b.inserts = append(b.inserts, i)
		b.touched[owner(-line)] = true
		return
	}
	b.updates, b.targets = append(b.updates, i), append(b.targets, r.owner)
	b.touched[r.owner] = true
	for _, key := range freed {
		b.freed[key] = true
	}
}

// write writes a batch and empties it. A dry run only notes it.
func (c *chunk) write(ctx context.Context, q *queries.Queries, b *batch, rep *report) error {
	defer func() { *b = batch{} }()
	if c.run.row.DryRun {
		rep.inserted = append(rep.inserted, b.inserts...)
		for _, i := range b.inserts {
			rep.tried = append(rep.tried, met{line: c.rows.line(i)})
		}
		for n, i := range b.updates {
			rep.updated = append(rep.updated, met{line: c.rows.line(i), of: b.targets[n]})
		}
		return nil
	}
	out, err := c.insert(ctx, q, b.inserts, rep)
	if err != nil {
		return err
	}
	if len(out) > 0 {
		// Another transaction came in between, or the row drew an id or a code that is
		// taken. Later rows were resolved by a state that is no more: all is done again.
		if err := c.rows.redraw(ctx, q, len(out)); err != nil {
			return err
		}
		return fmt.Errorf("%d rows conflict with nothing and were not inserted: %w", len(out), errAgain)
	}
	return c.update(ctx, q, b, rep)
}

// update updates locked rows, each of them once.
func (c *chunk) update(ctx context.Context, q *queries.Queries, b *batch, rep *report) error {
	if len(b.updates) == 0 {
		return nil
	}
	ids := make([]int64, len(b.updates))
	for n, o := range b.targets {
		ids[n] = rep.id(o)
	}
	if err := actAs(ctx, q, c.run.row.ID); err != nil {
		return err
	}
	before, err := c.rows.update(ctx, q, b.updates, ids)
	if err != nil {
		return err
	}
	for n, i := range b.updates {
		line := c.rows.line(i)
		old, went := before[line]
		if !went {
			return fmt.Errorf("row %d was not updated: %w", ids[n], errAgain)
		}
		rep.updated = append(rep.updated, met{line: line, of: owner(ids[n]), before: old})
	}
	return nil
}

// write records what became of the rows that did not simply go in, and moves the
// counters of the import, last, since its row is then locked.
func (rep *report) write(ctx context.Context, q *queries.Queries, importID int64) error {
	errs := make([]queries.InsertImportErrorsParams, len(rep.rejected))
	for i, r := range rep.rejected {
		kind := string(r.Kind)
		errs[i] = queries.InsertImportErrorsParams{
			ImportID: importID, Line: r.Line, Field: storable(r.Column), Reason: storable(r.Reason), Record: []byte(r.Raw), Kind: &kind,
		}
	}
	notices := make([]queries.InsertImportNoticesParams, len(rep.notices))
	for i, n := range rep.notices {
		notices[i] = queries.InsertImportNoticesParams{
			ImportID: importID, Line: n.Line, Field: n.Column, Kind: string(n.Kind), Reason: n.Reason,
		}
	}
	outcomes := slices.Concat(
		rep.outcomes(importID, outcomeUpdated, rep.updated),
		rep.outcomes(importID, outcomeSkipped, rep.skipped),
		rep.outcomes(importID, outcomeImported, rep.tried),
	)
	if err := copyIn(ctx, "rejected rows", errs, q.InsertImportErrors); err != nil {
		return err
	}
	if err := copyIn(ctx, "notices", notices, q.InsertImportNotices); err != nil {
		return err
	}
	if err := copyIn(ctx, "outcomes of rows", outcomes, q.InsertImportOutcomes); err != nil {
		return err
	}
	err := q.MoveImport(ctx, queries.MoveImportParams{
		ID: importID, Chunks: 1, Imported: int64(len(rep.inserted)), Updated: int64(len(rep.updated)),
		Skipped: int64(len(rep.skipped)), Rejected: int64(len(rep.rejected)),
	})
	if err != nil {
		return fmt.Errorf("move import: %w", err)
	}
	return nil
}

// copyIn copies rows into a table, if there are any.
func copyIn[P any](ctx context.Context, what string, params []P, insert func(context.Context, []P) (int64, error)) error {
	if len(params) == 0 {
		return nil
	}
	if _, err := insert(ctx, params); err != nil {
		return fmt.Errorf("record %s: %w", what, err)
	}
	return nil
}

func (rep *report) outcomes(importID int64, what outcome, rows []met) []queries.InsertImportOutcomesParams {
	params := make([]queries.InsertImportOutcomesParams, len(rows))
	for i, m := range rows {
		params[i] = queries.InsertImportOutcomesParams{
			ImportID: importID, Line: m.line, Outcome: string(what), Before: m.before,
		}
		if id := rep.id(m.of); id != 0 {
			params[i].RowID = &id
		}
	}
	return params
}

// storable makes text that names content of a file fit for Postgres.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// count tells Prometheus, after the commit.
func (d *deps) count(run *importRun, rep report) {
	if run.row.DryRun {
		return
	}
	for what, n := range map[outcome]int{
		outcomeImported: len(rep.inserted), outcomeUpdated: len(rep.updated),
		outcomeSkipped: len(rep.skipped), outcomeRejected: len(rep.rejected),
	} {
		d.metrics.importRows.WithLabelValues(run.row.Kind, string(what)).Add(float64(n))
	}
}

// or returns what p points to, or else instead.
func or[T any](p *T, instead T) T {
	if p == nil {
		return instead
	}
	return *p
}
