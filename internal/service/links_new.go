package service

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

// MaxNewLinks is how many links one request may make.
const MaxNewLinks = 100

// NewLinks says what became of links that were to be made, in their order.
type NewLinks struct {
	DryRun  bool      `json:"dry_run" doc:"Nothing was made: the errors are those that there would have been."`
	Created int       `json:"created" example:"4"`
	Failed  int       `json:"failed" example:"1"`
	Data    []NewLink `json:"data" nullable:"false"`
}

// NewLink says what became of one of them.
type NewLink struct {
	Index  int          `json:"index" example:"0" doc:"Its place in the request, from 0."`
	URL    *Link        `json:"url" doc:"The link; null if it was not made."`
	Fields []FieldError `json:"fields,omitempty" doc:"Every field at fault, if it failed."`
}

// CreateLinks makes up to MaxNewLinks links, in one transaction. Links with faults are left
// out, and the others are made. In a dry run none are made, and the faults are the same.
func (s *Service) CreateLinks(ctx context.Context, actor Actor, in []LinkFields, dryRun bool, once *Once) (out NewLinks, err error) {
	if err := actor.Require(WritesLinks); err != nil {
		return NewLinks{}, err
	}
	if len(in) == 0 || len(in) > MaxNewLinks {
		return NewLinks{}, &Error{Kind: KindInvalid, Message: fmt.Sprintf("the body must be a list of 1 to %d links", MaxNewLinks)}
	}
	if dryRun {
		batch, err := s.checkBatch(ctx, s.lists(), in)
		if err != nil {
			return NewLinks{}, err
		}
		err = s.findTaken(ctx, batch)
		return batch.outcome(true), err
	}
	var batch *newBatch
	err = s.inTx(ctx, func(q *queries.Queries) error {
		if err := once.Claim(ctx, q, nil); err != nil {
			return err
		}
		if batch, err = s.checkBatch(ctx, q, in); err != nil {
			return err
		}
		if err := s.insertBatch(ctx, q, actor, batch); err != nil {
			return err
		}
		out = batch.outcome(false)
		return once.keep(ctx, q, statusOK, "", out)
	})
	if err == nil {
		s.Cache.Forget(batch.keys()...) // the cache may remember that there are no such links
	}
	return out, err
}

// newBatch are links that are to be made.
type newBatch struct {
	links  []Link
	hosts  []*string // of their domains, nil for the main one
	drawn  []bool    // whether a code is drawn
	made   []bool
	faults []Faults
}

// outcome says what became of the links.
func (b *newBatch) outcome(dryRun bool) NewLinks {
	out := NewLinks{DryRun: dryRun, Data: make([]NewLink, len(b.links))}
	for i := range b.links {
		out.Data[i] = NewLink{Index: i, Fields: b.faults[i]}
		if len(b.faults[i]) > 0 {
			out.Failed++
			continue
		}
		out.Created++
		if !dryRun {
			out.Data[i].URL = &b.links[i]
		}
	}
	return out
}

func (b *newBatch) keys() []linkcache.Key {
	var keys []linkcache.Key
	for i, link := range b.links {
		if b.made[i] {
			keys = append(keys, link.key())
		}
	}
	return keys
}

// checkBatch notes all faults of links but codes that are taken.
func (s *Service) checkBatch(ctx context.Context, q *queries.Queries, in []LinkFields) (*newBatch, error) {
	n := len(in)
	b := &newBatch{make([]Link, n), make([]*string, n), make([]bool, n), make([]bool, n), make([]Faults, n)}
	type domain struct {
		id   int64
		host *string
		err  error
	}
	domains := map[string]domain{}
	var owners []int64
	for i, fields := range in {
		if b.faults[i] = s.checkWhole(fields); len(b.faults[i]) > 0 {
			continue
		}
		b.links[i] = freshLink(fields)
		d, known := domains[fields.Domain.Value]
		if !known {
			d.id, d.host, d.err = s.findDomain(ctx, q, fields.Domain.Value)
			domains[fields.Domain.Value] = d
		}
		b.links[i].domainID, b.hosts[i] = d.id, d.host
		if b.drawn[i] = b.links[i].ShortCode == ""; d.err == nil && !b.drawn[i] {
			d.err = checkCode(d.id, b.links[i].ShortCode)
		}
		if known := Classify(d.err); known != nil && len(known.Fields) > 0 {
			b.faults[i] = known.Fields
		} else if d.err != nil {
			return nil, d.err
		}
		owners = append(owners, b.links[i].UserID)
	}
	missing, err := q.FindMissingUsers(ctx, owners)
	if err != nil {
		return nil, err
	}
	for i, link := range b.links {
		if len(b.faults[i]) == 0 && slices.Contains(missing, link.UserID) {
			b.faults[i].Add("user_id", "is not a user")
		}
	}
	return b, nil
}

// insertBatch makes the links that have no faults. Of two with one code the first is made.
func (s *Service) insertBatch(ctx context.Context, q *queries.Queries, actor Actor, b *newBatch) error {
	for try := range drawTries {
		var p queries.CreateURLsParams
		for i, link := range b.links {
			if b.made[i] || len(b.faults[i]) > 0 {
				continue
			}
			if b.drawn[i] {
				link.ShortCode = links.NewCode(links.CodeLength + try/2)
				b.links[i] = link
			}
			appendLink(&p, i, link)
		}
		if len(p.Places) == 0 {
			break
		}
		rows, err := q.CreateURLs(ctx, p)
		if err != nil {
			return err
		}
		stored := make(map[linkcache.Key]queries.URL, len(rows))
		for _, row := range rows {
			stored[linkcache.NewKey(row.DomainID, row.ShortCode)] = row
		}
		for _, place := range p.Places {
			key := b.links[place].key()
			row, made := stored[key]
			delete(stored, key)
			switch {
			case made:
				b.links[place], b.made[place] = s.viewLink(row, b.hosts[place], linkNumbers{}), true
			case !b.drawn[place]:
				b.faults[place].Add("short_code", "is taken")
			case try == drawTries-1:
				return errNoCode
			}
		}
	}
	var steps []bulkStep
	for i, link := range b.links {
		if b.made[i] {
			steps = append(steps, bulkStep{after: link})
		}
	}
	return recordLinks(ctx, q, actor, "created", steps)
}

func appendLink(p *queries.CreateURLsParams, place int, l Link) {
	p.Places = append(p.Places, int64(place))
	p.UserIds = append(p.UserIds, l.UserID)
	p.DomainIds = append(p.DomainIds, l.domainID)
	p.ShortCodes = append(p.ShortCodes, l.ShortCode)
	p.OriginalUrls = append(p.OriginalUrls, l.OriginalURL)
	p.Titles = append(p.Titles, zeroIfNil(l.Title))
	p.Tags = append(p.Tags, strings.Join(l.Tags, "|"))
	p.IsActives = append(p.IsActives, l.IsActive)
	p.ExpiresAts = append(p.ExpiresAts, zeroIfNil(l.ExpiresAt))
	p.RedirectStatuses = append(p.RedirectStatuses, int16(l.RedirectStatus))
	p.ForwardQueries = append(p.ForwardQueries, l.ForwardQuery)
}

func zeroIfNil[T any](v *T) T {
	var zero T
	if v == nil {
		return zero
	}
	return *v
}

// findTaken notes which codes of links that have no other faults are taken: by another
// link, or by one before them.
func (s *Service) findTaken(ctx context.Context, b *newBatch) error {
	var p queries.FindURLKeyOwnersParams
	before := map[linkcache.Key]bool{}
	for i, link := range b.links {
		if b.drawn[i] || len(b.faults[i]) > 0 {
			continue
		}
		if before[link.key()] {
			b.faults[i].Add("short_code", "is taken")
			continue
		}
		before[link.key()] = true
		p.Lines = append(p.Lines, int64(i))
		p.Ids = append(p.Ids, 0)
		p.DomainIds = append(p.DomainIds, link.domainID)
		p.ShortCodes = append(p.ShortCodes, link.ShortCode)
	}
	if len(p.Lines) == 0 {
		return nil
	}
	rows, err := s.lists().FindURLKeyOwners(ctx, p)
	for _, row := range rows {
		if row.ShortCodeOwner != 0 {
			b.faults[row.Line].Add("short_code", "is taken")
		}
	}
	return err
}
