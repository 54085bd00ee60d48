package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// linkRows is rows of links.
type linkRows struct {
	run   *importRun
	links []csvimport.Link
	draws int // how often rows drew another code
}

func (r *linkRows) add(record csvimport.Record) *csvimport.Reject {
	link, reject := r.run.parser.Link(record)
	if reject == nil {
		r.links = append(r.links, link)
	}
	return reject
}

func (r *linkRows) size() int        { return len(r.links) }
func (r *linkRows) line(i int) int64 { return r.links[i].Line }

func (r *linkRows) prepare(context.Context) error { return nil }

func (r *linkRows) references(ctx context.Context, q *queries.Queries, of []int) (map[int]fault, error) {
	ids := make([]int64, 0, len(of))
	for _, i := range of {
		ids = append(ids, r.links[i].UserID)
	}
	missing, err := missingUsers(ctx, q, ids)
	if err != nil {
		return nil, err
	}
	faults := map[int]fault{}
	for _, i := range of {
		if missing[r.links[i].UserID] {
			faults[i] = noUser
		}
	}
	return faults, nil
}

var noUser = fault{"user_id", csvimport.ProblemMissing, "is not the id of a user"}

func missingUsers(ctx context.Context, q *queries.Queries, ids []int64) (map[int64]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := q.FindMissingUsers(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look for users: %w", err)
	}
	missing := make(map[int64]bool, len(found))
	for _, id := range found {
		missing[id] = true
	}
	return missing, nil
}

func (r *linkRows) keys(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error) {
	var p queries.FindURLKeyOwnersParams
	index := make(map[int64]int, len(of))
	for _, i := range of {
		link := &r.links[i]
		index[link.Line] = i
		p.Lines = append(p.Lines, link.Line)
		p.Ids = append(p.Ids, or(link.ID, 0))
		p.DomainIds = append(p.DomainIds, domainOf(link))
		p.ShortCodes = append(p.ShortCodes, link.ShortCode)
	}
	found, err := q.FindURLKeyOwners(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("look for owners of the keys of links: %w", err)
	}
	claims := make(map[int][]claim, len(of))
	for _, f := range found {
		i := index[f.Line]
		if id := r.links[i].ID; id != nil {
			claims[i] = append(claims[i], claim{idKey(*id), true, owner(f.IDOwner)})
		}
		if link := &r.links[i]; link.ShortCode != "" {
			claims[i] = append(claims[i], claim{codeKey(domainOf(link), link.ShortCode), true, owner(f.ShortCodeOwner)})
		}
	}
	return claims, nil
}

func domainOf(link *csvimport.Link) int64 { return cmp.Or(link.DomainID, linkcache.MainDomain) }

// codeKey is the key of a code on a domain. No code has a colon.
func codeKey(domain int64, code string) uniqueKey {
	if domain != linkcache.MainDomain {
		code = strconv.FormatInt(domain, 10) + ":" + code
	}
	return uniqueKey{"short_code", code}
}

func (r *linkRows) lock(ctx context.Context, q *queries.Queries, ids []int64) (map[owner][]uniqueKey, error) {
	found, err := q.LockURLKeys(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("lock links: %w", err)
	}
	held := make(map[owner][]uniqueKey, len(found))
	for _, f := range found {
		held[owner(f.ID)] = []uniqueKey{idKey(f.ID), codeKey(f.DomainID, f.ShortCode)}
	}
	return held, nil
}

// redraw moves the sequence beyond taken ids, as for users. Codes are drawn again with
// every insert, and become longer after a while.
func (r *linkRows) redraw(ctx context.Context, q *queries.Queries, missing int) error {
	r.draws++
	return postgres.PassTaken(ctx, q.LastTakenURLID, queries.New(r.run.deps.pool).MoveURLsSequence, int64(missing))
}

// insert draws a code for each row that has none.
func (r *linkRows) insert(ctx context.Context, q *queries.Queries, of []int) (map[int64]int64, error) {
	p := queries.ImportURLsParams{ImportID: &r.run.row.ID}
	for _, i := range of {
		link := &r.links[i]
		code := link.ShortCode
		if code == "" {
			code = links.NewCode(links.CodeLength + r.draws/2)
		}
		created := or(link.CreatedAt, time.Time{})
		p.Lines = append(p.Lines, link.Line)
		p.Ids = append(p.Ids, or(link.ID, 0))
		p.UserIds = append(p.UserIds, link.UserID)
		p.DomainIds = append(p.DomainIds, domainOf(link))
		p.ShortCodes = append(p.ShortCodes, code)
		p.OriginalUrls = append(p.OriginalUrls, link.OriginalURL)
		p.Titles = append(p.Titles, or(link.Title, ""))
		p.Tags = append(p.Tags, strings.Join(link.Tags, "|"))
		p.IsActives = append(p.IsActives, or(link.IsActive, true))
		p.ExpiresAts = append(p.ExpiresAts, or(link.ExpiresAt, time.Time{}))
		p.RedirectStatuses = append(p.RedirectStatuses, int16(or(link.RedirectStatus, http.StatusFound)))
		p.ForwardQueries = append(p.ForwardQueries, or(link.ForwardQuery, false))
		p.ImportedClicks = append(p.ImportedClicks, or(link.ImportedClicks, 0))
		p.CreatedAts = append(p.CreatedAts, created)
		p.UpdatedAts = append(p.UpdatedAts, or(link.UpdatedAt, created))
	}
	found, err := q.ImportURLs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("insert links: %w", err)
	}
	ids := make(map[int64]int64, len(found))
	for _, f := range found {
		ids[or(f.ImportLine, 0)] = f.ID
	}
	return ids, nil
}

// update does not change columns that the file does not have. If only the upload names
// an owner, the link keeps its own, because that owner is meant for new links.
func (r *linkRows) update(ctx context.Context, q *queries.Queries, of []int, ids []int64) (map[int64]json.RawMessage, error) {
	p := queries.UpdateImportedURLsParams{Ids: ids}
	for _, i := range of {
		link := &r.links[i]
		owner := int64(0)
		if link.NamesUser {
			owner = link.UserID
		}
		p.Lines = append(p.Lines, link.Line)
		p.UserIds = append(p.UserIds, owner)
		p.OriginalUrls = append(p.OriginalUrls, link.OriginalURL)
		p.Titles = append(p.Titles, or(link.Title, ""))
		p.Tags = append(p.Tags, strings.Join(link.Tags, "|"))
		p.IsActives = append(p.IsActives, boolText(link.IsActive))
		p.ExpiresAts = append(p.ExpiresAts, or(link.ExpiresAt, time.Time{}))
		p.RedirectStatuses = append(p.RedirectStatuses, int16(or(link.RedirectStatus, 0)))
		p.ForwardQueries = append(p.ForwardQueries, boolText(link.ForwardQuery))
		p.ImportedClicks = append(p.ImportedClicks, or(link.ImportedClicks, -1))
		p.CreatedAts = append(p.CreatedAts, or(link.CreatedAt, time.Time{}))
	}
	found, err := q.UpdateImportedURLs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("update links: %w", err)
	}
	before := make(map[int64]json.RawMessage, len(found))
	for _, f := range found {
		before[f.Line] = f.Before
	}
	return before, nil
}

// boolText is "" for a value that the file does not have.
func boolText(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

func (r *linkRows) count(context.Context, *queries.Queries, []int) error { return nil }

func (r *linkRows) notices(inserted []int) []csvimport.Notice {
	var notices []csvimport.Notice
	for _, i := range inserted {
		if notice := r.links[i].Notice(); notice != nil {
			notices = append(notices, *notice)
		}
	}
	return notices
}
