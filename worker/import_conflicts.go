package worker

import (
	"context"
	"fmt"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// owners knows which row owns which unique key while the rows are applied one after the
// other.
type owners struct {
	policy csvimport.Policy
	of     map[uniqueKey]owner
	keys   map[owner][]uniqueKey // of rows that may be updated
	given  map[uniqueKey]owner   // by the rows resolved so far
	lines  map[owner]int64       // of rows that were inserted in this transaction
}

// resolve decides the outcome of the row on the given line, which makes these claims.
func (o *owners) resolve(claims []claim, line int64) resolved {
	if o.policy == csvimport.PolicyUpdate {
		return o.resolveUpdate(claims, line)
	}
	for _, c := range claims {
		by := o.owner(c, line)
		switch {
		case by == nobody:
		case o.policy == csvimport.PolicySkip:
			return resolved{outcome: outcomeSkipped, owner: by}
		default:
			return resolved{outcome: outcomeRejected, fault: taken(c)}
		}
	}
	return resolved{outcome: outcomeImported}
}

// resolveUpdate finds the row that has to be updated. All keys that identify a row have
// to identify the same one. Otherwise a file from elsewhere, in which an id and a code
// belong together that do not belong together here, would overwrite an unrelated row.
func (o *owners) resolveUpdate(claims []claim, line int64) resolved {
	meant, by := nobody, ""
	for _, c := range claims {
		if found := o.owner(c, line); c.identifies && found != nobody {
			meant, by = found, c.column
			break
		}
	}
	for _, c := range claims {
		switch found := o.owner(c, line); {
		case found == meant:
		case c.identifies:
			return resolved{outcome: outcomeRejected, fault: fault{c.column, csvimport.ProblemMismatch, "is not that of the existing row with this " + by}}
		case found != nobody:
			return resolved{outcome: outcomeRejected, fault: taken(c)}
		}
	}
	if meant == nobody {
		return resolved{outcome: outcomeImported}
	}
	return resolved{outcome: outcomeUpdated, owner: meant}
}

// owner returns the owner of a key at the time when the row on the given line is
// applied. A later row does not count: it may be inserted already, but not in file
// order.
func (o *owners) owner(c claim, line int64) owner {
	by := o.of[c.uniqueKey]
	if o.lines[by] > line {
		return nobody
	}
	return by
}

// give gives a row that is imported or updated its keys. It returns the keys that this
// frees.
func (o *owners) give(r resolved, claims []claim, line int64) (freed []uniqueKey) {
	if r.outcome == outcomeImported {
		r.owner = owner(-line)
	}
	for _, c := range claims {
		if c.identifies && r.outcome == outcomeUpdated {
			continue
		}
		old, had := o.replaceKey(r.owner, c.uniqueKey)
		if had && old != c.uniqueKey {
			o.of[old], o.given[old] = nobody, nobody
			freed = append(freed, old)
		}
		o.of[c.uniqueKey], o.given[c.uniqueKey] = r.owner, r.owner
	}
	return freed
}

// replaceKey replaces a row's key in one column. It returns the old key, if there was
// one.
func (o *owners) replaceKey(of owner, key uniqueKey) (old uniqueKey, had bool) {
	for i, old := range o.keys[of] {
		if old.column == key.column {
			o.keys[of][i] = key
			return old, true
		}
	}
	o.keys[of] = append(o.keys[of], key)
	return uniqueKey{}, false
}

// findOwners looks up the owners of the keys of some rows. Rows that may be updated are
// locked, and must not have changed since they were read.
func (c *chunk) findOwners(ctx context.Context, q *queries.Queries, of []int, rep *report) (map[int][]claim, *owners, error) {
	claims, err := c.rows.keys(ctx, q, of)
	if err != nil {
		return nil, nil, err
	}
	o := &owners{
		policy: c.run.policy, of: map[uniqueKey]owner{}, keys: map[owner][]uniqueKey{},
		given: map[uniqueKey]owner{}, lines: make(map[owner]int64, len(rep.ids)),
	}
	for line, id := range rep.ids {
		o.lines[owner(id)] = line
	}
	for _, of := range claims {
		for _, c := range of {
			o.of[c.uniqueKey] = c.owner
		}
	}
	if o.policy == csvimport.PolicyUpdate {
		if err := c.lockOwners(ctx, q, o); err != nil {
			return nil, nil, err
		}
	}
	if c.run.row.DryRun {
		if err := c.recall(ctx, q, o); err != nil {
			return nil, nil, err
		}
	}
	return claims, o, nil
}

func (c *chunk) lockOwners(ctx context.Context, q *queries.Queries, o *owners) error {
	seen := map[owner]bool{nobody: true}
	var ids []int64
	for _, by := range o.of {
		if !seen[by] {
			seen[by] = true
			ids = append(ids, int64(by))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var err error
	if o.keys, err = c.rows.lock(ctx, q, ids); err != nil {
		return err
	}
	has := map[uniqueKey]owner{}
	for by, keys := range o.keys {
		for _, key := range keys {
			has[key] = by
		}
	}
	for key, by := range o.of {
		if by != nobody && has[key] != by {
			return errAgain // it was changed or deleted since
		}
	}
	return nil
}

// recall adds the keys that earlier chunks of a dry run would have given and freed.
func (c *chunk) recall(ctx context.Context, q *queries.Queries, o *owners) error {
	var columns, values []string
	for key := range o.of {
		columns, values = append(columns, key.column), append(values, key.value)
	}
	found, err := q.FindTrialOwners(ctx, columns, values, c.run.row.ID)
	if err != nil {
		return fmt.Errorf("recall owners of keys: %w", err)
	}
	for _, f := range found {
		o.of[uniqueKey{f.Field, f.Key}] = owner(f.Owner)
	}
	if o.policy != csvimport.PolicyUpdate {
		return nil
	}
	var ids []int64
	for _, by := range o.of {
		ids = append(ids, int64(by))
	}
	own, err := q.ListTrialKeys(ctx, c.run.row.ID, ids)
	if err != nil {
		return fmt.Errorf("recall keys of rows: %w", err)
	}
	for _, k := range own {
		o.replaceKey(owner(k.Owner), uniqueKey{k.Field, k.Key})
	}
	return nil
}

// remember stores the keys that a dry run would have given and freed, for later chunks.
func (c *chunk) remember(ctx context.Context, q *queries.Queries, o *owners) error {
	if !c.run.row.DryRun || len(o.given) == 0 {
		return nil
	}
	params := queries.SetTrialOwnersParams{ImportID: c.run.row.ID}
	for key, by := range o.given {
		params.Fields = append(params.Fields, key.column)
		params.Keys = append(params.Keys, key.value)
		params.Owners = append(params.Owners, int64(by))
	}
	if err := q.SetTrialOwners(ctx, params); err != nil {
		return fmt.Errorf("remember owners of keys: %w", err)
	}
	return nil
}
