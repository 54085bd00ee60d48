package worker

import (
	"context"
	"errors"
	"fmt"
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
	// prepare does what must be committed before the rows are inserted.
	prepare(ctx context.Context) error
	// references finds what rows refer to, and says for each of those that
	// refer to nothing which column is at fault.
	references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error)
	// claims says which unique keys each of some rows claims.
	claims(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error)
	// insert inserts what conflicts with nothing and returns the lines of what
	// went in. try counts from 0 how often rows that draw had to draw again.
	insert(ctx context.Context, q *queries.Queries, of []int, try int) (map[int64]bool, error)
	// finish does what comes last in the transaction for rows that went in.
	finish(ctx context.Context, q *queries.Queries, inserted []int) error
}

// fault is why a row is rejected.
type fault struct{ column, reason string }

// claim is a unique key of a row.
type claim struct {
	column string
	key    string // equal exactly if the unique index takes two for equal
	taken  bool   // by a row in the database
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
	// careful says that Postgres refused some value: rows go one by one, so
	// that only the one at fault is rejected.
	careful bool
}

// result is what became of the rows of a part within one transaction.
type result struct {
	inserted []int
	rejected []csvimport.Reject
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

// apply inserts the rows that are in of and rejects those that cannot be. The
// result is what inserting them one by one in line order gives. errAgain asks
// for a new transaction.
func (p *part) apply(ctx context.Context, tx pgx.Tx, of []int) (result, error) {
	res := result{rejected: append([]csvimport.Reject(nil), p.rejected...)}
	var err error
	if p.careful {
		err = p.applyOneByOne(ctx, tx, of, &res)
	} else {
		err = p.applyAll(ctx, queries.New(tx), of, &res)
	}
	if err == nil {
		err = p.rows.finish(ctx, queries.New(tx), res.inserted)
	}
	if postgres.Constraint(err) == "urls_user_id_fkey" {
		err = errors.Join(errAgain, err) // a user was deleted since references looked
	}
	return res, err
}

func (p *part) applyOneByOne(ctx context.Context, tx pgx.Tx, of []int, res *result) error {
	for _, i := range of {
		one := result{}
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			return p.applyAll(ctx, queries.New(tx), []int{i}, &one)
		})
		switch {
		case err == nil:
			res.inserted = append(res.inserted, one.inserted...)
			res.rejected = append(res.rejected, one.rejected...)
		case postgres.DataFault(err) && postgres.Constraint(err) != "urls_user_id_fkey":
			p.reject(res, i, fault{"", "cannot be stored (" + postgres.Code(err) + ")"})
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
	if p.ordered {
		if sound, err = p.pick(ctx, q, sound, res); err != nil {
			return err
		}
	}
	return p.insert(ctx, q, sound, res)
}

// pick goes through rows in line order and leaves out each that claims a key
// which is taken or which an earlier row got. A row that is left out claims
// nothing, whichever of its keys it was.
func (p *part) pick(ctx context.Context, q *queries.Queries, of []int, res *result) ([]int, error) {
	claims, err := p.rows.claims(ctx, q, of)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	picked := make([]int, 0, len(of))
	for _, i := range of {
		if c, lost := firstLost(claims[i], held); lost {
			p.reject(res, i, taken(c))
			continue
		}
		for _, c := range claims[i] {
			held[c.column+"\x00"+c.key] = true
		}
		picked = append(picked, i)
	}
	return picked, nil
}

func firstLost(claims []claim, held map[string]bool) (claim, bool) {
	for _, c := range claims {
		if c.taken || held[c.column+"\x00"+c.key] {
			return c, true
		}
	}
	return claim{}, false
}

func taken(c claim) fault {
	return fault{c.column, "is taken by an earlier row or by an existing one"}
}

// insert inserts rows of which no two claim the same key, and rejects those
// whose key somebody else has.
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
			if went[p.rows.line(i)] {
				res.inserted = append(res.inserted, i)
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

// losers rejects the missing rows that lost a key and returns the rest, which
// are to be tried again. Where order matters, a loss means that another
// transaction came in between, so that later rows were judged by what is no
// longer true: all has to be done again.
func (p *part) losers(ctx context.Context, q *queries.Queries, missing []int, res *result) ([]int, error) {
	if len(missing) == 0 {
		return nil, nil
	}
	claims, err := p.rows.claims(ctx, q, missing)
	if err != nil {
		return nil, err
	}
	var rest []int
	for _, i := range missing {
		c, lost := firstLost(claims[i], nil)
		switch {
		case lost && p.ordered:
			return nil, errAgain
		case lost:
			p.reject(res, i, taken(c))
		default:
			rest = append(rest, i)
		}
	}
	return rest, nil
}

func (p *part) reject(res *result, i int, f fault) {
	line := p.rows.line(i)
	res.rejected = append(res.rejected, csvimport.Reject{
		Line: line, Column: f.column, Reason: f.reason, Raw: p.raw[line],
	})
}

// write records the rejected rows and returns how far the counters move.
func (res *result) write(ctx context.Context, q *queries.Queries, importID int64) (queries.MoveImportParams, error) {
	errs := make([]queries.InsertImportErrorsParams, len(res.rejected))
	for i, r := range res.rejected {
		errs[i] = queries.InsertImportErrorsParams{
			ImportID: importID, Line: r.Line, Field: plain(r.Column), Reason: plain(r.Reason), Record: []byte(r.Raw),
		}
	}
	if len(errs) > 0 {
		if _, err := q.InsertImportErrors(ctx, errs); err != nil {
			return queries.MoveImportParams{}, fmt.Errorf("record rejected rows: %w", err)
		}
	}
	return queries.MoveImportParams{
		ID: importID, Imported: int64(len(res.inserted)), Rejected: int64(len(res.rejected)),
	}, nil
}

// plain makes text that names what a file holds fit for Postgres.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// count tells Prometheus, after the commit.
func (d *deps) count(kind string, res result) {
	d.metrics.importRows.WithLabelValues(kind, "imported").Add(float64(len(res.inserted)))
	d.metrics.importRows.WithLabelValues(kind, "rejected").Add(float64(len(res.rejected)))
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
