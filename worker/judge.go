package worker

import (
	"context"
	"fmt"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// holder says who has a key: the id of a row in the database, minus the line of
// a row of the file that is not in it yet, or nobody.
type holder int64

const nobody holder = 0

// slot is a unique key: equal exactly if the unique index takes two for equal.
type slot struct{ column, key string }

// claim is a unique key of a row.
type claim struct {
	slot
	// names says that the key tells which row is meant, so that no update
	// changes it.
	names bool
	by    holder // who has it in the database
}

// What becomes of a row.
type outcome string

const (
	outcomeImported outcome = "imported"
	outcomeUpdated  outcome = "updated"
	outcomeSkipped  outcome = "skipped"
	outcomeRejected outcome = "rejected"
)

// verdict is what is to become of a row.
type verdict struct {
	outcome outcome
	of      holder // the row that is to be updated, or that the row is skipped for
	why     fault  // of a row that is rejected
}

// keyring knows who has which key while rows are taken one after the other.
type keyring struct {
	policy  csvimport.Policy
	holders map[slot]holder
	held    map[holder][]slot // of rows that may be updated
	moved   map[slot]holder   // what take changed
}

func newKeyring(policy csvimport.Policy, claims map[int][]claim) *keyring {
	k := &keyring{policy: policy, holders: map[slot]holder{}, held: map[holder][]slot{}, moved: map[slot]holder{}}
	for _, of := range claims {
		for _, c := range of {
			k.holders[c.slot] = c.by
		}
	}
	return k
}

// judge says what becomes of the row with these claims.
func (k *keyring) judge(claims []claim) verdict {
	if k.policy == csvimport.PolicyUpdate {
		return k.judgeUpdate(claims)
	}
	for _, c := range claims {
		h := k.holders[c.slot]
		switch {
		case h == nobody:
		case k.policy == csvimport.PolicySkip:
			return verdict{outcome: outcomeSkipped, of: h}
		default:
			return verdict{outcome: outcomeRejected, why: taken(c)}
		}
	}
	return verdict{outcome: outcomeImported}
}

// judgeUpdate finds the row that is meant. All keys that name one have to name
// the same: an id and a code that belong together here and not there would
// otherwise write over a stranger.
func (k *keyring) judgeUpdate(claims []claim) verdict {
	meant, by := k.meant(claims)
	for _, c := range claims {
		switch h := k.holders[c.slot]; {
		case h == meant:
		case c.names:
			return verdict{outcome: outcomeRejected, why: fault{c.column, csvimport.ProblemMismatch, "is not that of the existing row with this " + by}}
		case h != nobody:
			return verdict{outcome: outcomeRejected, why: taken(c)}
		}
	}
	if meant == nobody {
		return verdict{outcome: outcomeImported}
	}
	return verdict{outcome: outcomeUpdated, of: meant}
}

// meant returns the row that the first taken one of the naming keys names.
func (k *keyring) meant(claims []claim) (of holder, by string) {
	for _, c := range claims {
		if h := k.holders[c.slot]; c.names && h != nobody {
			return h, c.column
		}
	}
	return nobody, ""
}

// unsettled reports whether the row's fate may hang on an update of another row
// of the file, or another's on its own: it takes a key that someone has, or
// sets one free. Such rows share no key by which the file would tell.
func (k *keyring) unsettled(claims []claim) bool {
	if k.policy != csvimport.PolicyUpdate {
		return false
	}
	meant, _ := k.meant(claims)
	for _, c := range claims {
		if !c.names && k.holders[c.slot] != meant {
			return true
		}
	}
	return false
}

// take gives the keys of a row to whom the verdict says, and returns the keys
// that this sets free.
func (k *keyring) take(v verdict, claims []claim, line int64) (freed []slot) {
	switch v.outcome {
	case outcomeImported:
		of := holder(-line)
		for _, c := range claims {
			k.give(c.slot, of)
			k.held[of] = append(k.held[of], c.slot)
		}
	case outcomeUpdated:
		for _, c := range claims {
			if !c.names {
				freed = append(freed, k.exchange(v.of, c.slot)...)
			}
		}
	}
	return freed
}

// exchange gives a row a key in place of the one it has in that column.
func (k *keyring) exchange(of holder, s slot) (freed []slot) {
	for i, old := range k.held[of] {
		if old.column != s.column || old == s {
			continue
		}
		k.held[of][i] = s
		k.give(old, nobody)
		k.give(s, of)
		freed = append(freed, old)
	}
	return freed
}

func (k *keyring) give(s slot, to holder) {
	k.holders[s], k.moved[s] = to, to
}

// look finds out who has the keys of some rows. Rows that may be updated are
// locked, and what was read before they were has to hold still.
func (p *part) look(ctx context.Context, q *queries.Queries, of []int) (*keyring, map[int][]claim, error) {
	claims, err := p.rows.claims(ctx, q, of)
	if err != nil {
		return nil, nil, err
	}
	k := newKeyring(p.run.policy, claims)
	if k.policy == csvimport.PolicyUpdate {
		if err := p.lockHolders(ctx, q, k); err != nil {
			return nil, nil, err
		}
	}
	if p.remembers {
		if err := p.recall(ctx, q, k); err != nil {
			return nil, nil, err
		}
	}
	return k, claims, nil
}

func (p *part) lockHolders(ctx context.Context, q *queries.Queries, k *keyring) error {
	seen := map[holder]bool{nobody: true}
	var ids []int64
	for _, h := range k.holders {
		if !seen[h] {
			seen[h] = true
			ids = append(ids, int64(h))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var err error
	if k.held, err = p.rows.lock(ctx, q, ids); err != nil {
		return err
	}
	has := map[slot]holder{}
	for h, slots := range k.held {
		for _, s := range slots {
			has[s] = h
		}
	}
	for s, h := range k.holders {
		if h != nobody && has[s] != h {
			return errAgain // it was changed or deleted since
		}
	}
	return nil
}

// recall adds what a dry run would have done by now in earlier batches.
func (p *part) recall(ctx context.Context, q *queries.Queries, k *keyring) error {
	var columns, keys []string
	for s := range k.holders {
		columns, keys = append(columns, s.column), append(keys, s.key)
	}
	found, err := q.FindTrialHolders(ctx, columns, keys, p.run.row.ID)
	if err != nil {
		return fmt.Errorf("recall holders of keys: %w", err)
	}
	for _, f := range found {
		k.holders[slot{f.Field, f.Key}] = holder(f.Holder)
	}
	var ids []int64
	for _, h := range k.holders {
		ids = append(ids, int64(h))
	}
	own, err := q.ListTrialKeys(ctx, p.run.row.ID, ids)
	if err != nil {
		return fmt.Errorf("recall keys of rows: %w", err)
	}
	for _, o := range own {
		k.recalled(holder(o.Holder), slot{o.Field, o.Key})
	}
	return nil
}

// recalled puts a key in place of the one that the row has in that column.
func (k *keyring) recalled(of holder, s slot) {
	for i, old := range k.held[of] {
		if old.column == s.column {
			k.held[of][i] = s
			return
		}
	}
	k.held[of] = append(k.held[of], s)
}

// remember keeps what a dry run would have done for the batches to come.
func (p *part) remember(ctx context.Context, q *queries.Queries, k *keyring) error {
	if !p.remembers || len(k.moved) == 0 {
		return nil
	}
	params := queries.SetTrialHoldersParams{ImportID: p.run.row.ID}
	for s, h := range k.moved {
		params.Fields = append(params.Fields, s.column)
		params.Keys = append(params.Keys, s.key)
		params.Holders = append(params.Holders, int64(h))
	}
	if err := q.SetTrialHolders(ctx, params); err != nil {
		return fmt.Errorf("remember holders of keys: %w", err)
	}
	return nil
}
