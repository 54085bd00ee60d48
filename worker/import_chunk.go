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

// rows are the valid rows of a chunk, in file order and all of one kind: users, links
// or events. A row is identified by its index. Only one goroutine may use them at a
// time.
type rows interface {
	// add parses a record and keeps its row, unless the row rules reject it.
	add(record csvimport.Record) *csvimport.Reject
	// size is the number of rows, and line the line of one of them.
	size() int
	line(i int) int64
	// prepare makes changes that have to be committed before the rows are inserted. In
	// a dry run it changes nothing.
	prepare(ctx context.Context) error
	// references looks up the links or users that rows refer to. It returns, for each
	// row whose link or user does not exist, the column at fault.
	references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error)
	// keys returns the unique keys that each of some rows claims, with their owners.
	keys(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error)
	// lock locks rows of the database, in the order of their ids, so that their keys
	// cannot be changed. It returns their keys. Rows that were deleted are missing from
	// the result.
	lock(ctx context.Context, q *queries.Queries, ids []int64) (map[owner][]uniqueKey, error)
	// insert inserts rows in line order, except for those that conflict with a row
	// which exists by then. It returns the ids of the inserted rows by line.
	insert(ctx context.Context, q *queries.Queries, of []int) (map[int64]int64, error)
	// redraw is called when rows drew an id or a code that is taken; missing is how
	// many did. It makes them draw others in the next transaction.
	redraw(ctx context.Context, q *queries.Queries, missing int) error
	// update changes the locked rows with these ids to the values of the file's rows.
	// It returns the values that were replaced, by line.
	update(ctx context.Context, q *queries.Queries, of []int, ids []int64) (map[int64]json.RawMessage, error)
	// count adds rows that were inserted to the rollups.
	count(ctx context.Context, q *queries.Queries, inserted []int) error
	// notices returns the notices of rows that were inserted, or would have been.
	notices(inserted []int) []csvimport.Notice
}

// An owner is the row that has a unique key: the id of a row in the database, or minus
// the line of a row of the file that is not in the database yet, or nobody.
type owner int64

const nobody owner = 0

// Two uniqueKeys are equal exactly if the unique index considers them equal.
type uniqueKey struct{ column, value string }

// A claim is a unique key that a row of the file wants to have.
type claim struct {
	uniqueKey
	// identifies says that the key identifies the row that an update changes, so an
	// update never changes the key itself.
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

// An outcome is the result for one row.
type outcome string

const (
	outcomeImported outcome = "imported"
	outcomeUpdated  outcome = "updated"
	outcomeSkipped  outcome = "skipped"
	outcomeRejected outcome = "rejected"
)

// resolved is the decision about a row before it is written.
type resolved struct {
	outcome outcome
	owner   owner // the row that is updated, or for which this one is skipped
	fault   fault // of a row that is rejected
}

// chunk holds the rows of one chunk while they are applied.
type chunk struct {
	run       *importRun
	seq       int32
	firstLine int64
	records   int32
	rows      rows
	raw       []string // the records of rows, for the report
	malformed []csvimport.Reject
	// careful says that Postgres refused some value: rows are applied one by one, so
	// that only the one at fault is rejected.
	careful bool
}

// parse parses the rows of a chunk.
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

// report holds the results for the rows of a chunk within one transaction.
type report struct {
	inserted []int
	updated  []rowOutcome
	skipped  []rowOutcome
	tried    []rowOutcome // rows that a dry run would have inserted
	rejected []csvimport.Reject
	notices  []csvimport.Notice
	ids      map[int64]int64 // of inserted rows, by line
}

// rowOutcome is a row of the file that was updated, skipped or only tried.
type rowOutcome struct {
	line   int64
	owner  owner           // of its keys; nobody for a row that was tried
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
	rep.notices = c.rows.notices(rep.inserted)
	if overtaken(err) {
		err = errors.Join(errAgain, err)
	}
	return rep, err
}

// overtaken reports whether a row has changed since it was looked at: a user or a domain
// was deleted, or somebody else took the address that an update wanted to set.
func overtaken(err error) bool {
	switch postgres.Constraint(err) {
	case "urls_user_id_fkey", "urls_domain_id_fkey", "users_email_key":
		return true
	}
	return false
}

func (c *chunk) applyOneByOne(ctx context.Context, tx pgx.Tx, of []int, rep *report) error {
	for _, i := range of {
		before := *rep
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			return c.applyRows(ctx, queries.New(tx), []int{i}, rep)
		})
		switch {
		case err == nil:
		case postgres.DataFault(err) && !overtaken(err):
			*rep = before
			delete(rep.ids, c.rows.line(i))
			c.reject(rep, i, fault{"", csvimport.ProblemValue, "cannot be stored (" + postgres.Code(err) + ")"})
		default:
			return err
		}
	}
	return nil
}

// applyRows decides the outcome of each row and carries it out. The result is the same
// as if the rows were applied one after the other; a row that is rejected or skipped
// claims no key.
//
// Postgres inserts rows in line order and leaves out those that conflict. So for most
// files one statement is enough for nearly all rows, and only the rows that it left out
// have to be looked at. Only updates of users can free a key for a later row: there,
// and in a dry run, every row has to be looked at.
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
			rep.skipped = append(rep.skipped, rowOutcome{line: line, owner: r.owner})
		default:
			b.add(i, line, r, owners.give(r, claims[i], line))
		}
	}
	if err := c.write(ctx, q, &b, rep); err != nil {
		return err
	}
	return c.remember(ctx, q, owners)
}

// withReferences rejects the rows whose link or user does not exist, and returns the
// others.
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

// A batch holds rows that can be inserted and updated in any order.
type batch struct {
	inserts, updates []int
	targets          []owner // of updates
	touched          map[owner]bool
	freed            map[uniqueKey]bool
}

// meets reports whether the batch has to be written before the row is added to one:
// because the row updates a row that the batch inserts or updates, or takes a key that
// the batch frees.
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

// write writes a batch and empties it. In a dry run it only records the batch.
func (c *chunk) write(ctx context.Context, q *queries.Queries, b *batch, rep *report) error {
	defer func() { *b = batch{} }()
	if c.run.row.DryRun {
		rep.inserted = append(rep.inserted, b.inserts...)
		for _, i := range b.inserts {
			rep.tried = append(rep.tried, rowOutcome{line: c.rows.line(i)})
		}
		for n, i := range b.updates {
			rep.updated = append(rep.updated, rowOutcome{line: c.rows.line(i), owner: b.targets[n]})
		}
		return nil
	}
	out, err := c.insert(ctx, q, b.inserts, rep)
	if err != nil {
		return err
	}
	if len(out) > 0 {
		// Either another transaction came in between, or the row drew an id or a code
		// that is taken. Later rows were resolved with a state that is out of date, so
		// the whole chunk is applied again.
		if err := c.rows.redraw(ctx, q, len(out)); err != nil {
			return err
		}
		return fmt.Errorf("%d rows conflict with nothing and were not inserted: %w", len(out), errAgain)
	}
	return c.update(ctx, q, b, rep)
}

// update updates locked rows, each of them at most once.
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
		rep.updated = append(rep.updated, rowOutcome{line: line, owner: owner(ids[n]), before: old})
	}
	return nil
}

// write stores the outcomes of the rows that were not simply inserted. It changes the
// counters of the import after that, because that locks the import's row.
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

func (rep *report) outcomes(importID int64, what outcome, rows []rowOutcome) []queries.InsertImportOutcomesParams {
	params := make([]queries.InsertImportOutcomesParams, len(rows))
	for i, m := range rows {
		params[i] = queries.InsertImportOutcomesParams{
			ImportID: importID, Line: m.line, Outcome: string(what), Before: m.before,
		}
		if id := rep.id(m.owner); id != 0 {
			params[i].RowID = &id
		}
	}
	return params
}

// storable makes text from a file fit for Postgres.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// count updates the metrics after the commit.
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

// or returns the value that p points to, or instead if p is nil.
func or[T any](p *T, instead T) T {
	if p == nil {
		return instead
	}
	return *p
}
