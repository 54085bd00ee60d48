package service

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Link is a short code on a domain, and where it leads.
type Link struct {
	ID             int64      `json:"id" example:"7"`
	UserID         int64      `json:"user_id" example:"42"`
	Domain         string     `json:"domain" example:"sign.example" doc:"The host of the short URL."`
	ShortCode      string     `json:"short_code" example:"spring"`
	ShortURL       string     `json:"short_url" example:"https://sign.example/spring"`
	OriginalURL    string     `json:"original_url" example:"https://example.com/sale?season=spring"`
	Title          *string    `json:"title" example:"Spring sale"`
	Tags           []string   `json:"tags" nullable:"false" example:"[\"sale\"]"`
	IsActive       bool       `json:"is_active" example:"true"`
	ExpiresAt      *time.Time `json:"expires_at"`
	RedirectStatus int        `json:"redirect_status" example:"302"`
	ForwardQuery   bool       `json:"forward_query"`
	Clicks         int64      `json:"clicks" doc:"Clicks counted by this service, robots included."`
	People         int64      `json:"people" doc:"Those clicks that are of people."`
	LastClickedAt  *time.Time `json:"last_clicked_at" doc:"When the last of them was; null if there is none."`
	ImportedClicks int64      `json:"imported_clicks" doc:"Clicks that another service had counted before the link was imported."`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`

	domainID int64
}

// Path is the path of the link in the API.
func (l Link) Path() string { return "/urls/" + strconv.FormatInt(l.ID, 10) }

// IsOnMainDomain reports whether the link is on the main domain, which is the host of
// PUBLIC_URL.
func (l Link) IsOnMainDomain() bool { return l.domainID == linkcache.MainDomain }

func (l Link) key() linkcache.Key { return linkcache.NewKey(l.domainID, l.ShortCode) }

// linkNumbers are the statistics that a link shows.
type linkNumbers struct {
	clicks, people int64
	lastAt         time.Time // zero if there is no click
}

// viewLink returns a stored link in the form that clients see. host is nil for the main
// domain.
func (s *Service) viewLink(u queries.URL, host *string, n linkNumbers) Link {
	var last *time.Time
	if !n.lastAt.IsZero() {
		last = &n.lastAt
	}
	return Link{
		ID: u.ID, UserID: u.UserID, Domain: s.hostOf(host), ShortCode: u.ShortCode, ShortURL: s.ShortURL(host, u.ShortCode),
		OriginalURL: u.OriginalURL, Title: u.Title, Tags: u.Tags, IsActive: u.IsActive,
		ExpiresAt: utc(u.ExpiresAt), RedirectStatus: int(u.RedirectStatus), ForwardQuery: u.ForwardQuery,
		Clicks: n.clicks, People: n.people, LastClickedAt: utc(last), ImportedClicks: u.ImportedClicks,
		CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(),
		domainID: u.DomainID,
	}
}

// LinkFields are the fields of a link that a request may set. Their names in JSON are
// those of changes in the details of events.
type LinkFields struct {
	UserID         Optional[int64]    `json:"user_id"`
	Domain         Optional[string]   `json:"domain"`
	OriginalURL    Optional[string]   `json:"original_url"`
	ShortCode      Optional[string]   `json:"short_code"`
	Title          Optional[string]   `json:"title"`
	Tags           Optional[[]string] `json:"tags"`
	IsActive       Optional[bool]     `json:"is_active"`
	ExpiresAt      OptionalTime       `json:"expires_at"`
	RedirectStatus Optional[int]      `json:"redirect_status"`
	ForwardQuery   Optional[bool]     `json:"forward_query"`
}

// CheckNew returns the faults of the fields of a new link. It does not check the code
// against the rules of its domain, because only the database knows the domain.
func (l LinkFields) CheckNew(own links.Hosts) Faults {
	f := l.check(own, true)
	if e := l.ExpiresAt; e.Sent && !e.Null && !e.Wrong && !e.Value.After(time.Now()) {
		f.Add("expires_at", "must be in the future")
	}
	return f
}

// CheckChange returns the faults of the fields of a change. Unlike a new link, a
// changed one may have an expiry in the past.
func (l LinkFields) CheckChange(own links.Hosts) Faults { return l.check(own, false) }

// check returns the faults of the fields. drawn says that a code will be drawn if it is
// null.
func (l LinkFields) check(own links.Hosts, drawn bool) Faults {
	var f Faults
	Check(&f, "user_id", l.UserID, "an integer", false, checkID)
	Check(&f, "domain", l.Domain, "a string", false, nil)
	Check(&f, "original_url", l.OriginalURL, "a string", false, func(s string) error {
		_, err := links.CleanTarget(s, own)
		return err
	})
	checkCode := links.CheckImportedCode
	if drawn && !l.Domain.Sent {
		checkCode = links.CheckCode
	}
	Check(&f, "short_code", l.ShortCode, "a string", drawn, func(s string) error { return checkCode(links.NormalCode(s)) })
	Check(&f, "title", l.Title, "a string", true, func(s string) error {
		_, err := links.CleanTitle(s)
		return err
	})
	Check(&f, "tags", l.Tags, "a list of strings", false, func(tags []string) error {
		_, err := links.CleanTags(tags)
		return err
	})
	Check(&f, "is_active", l.IsActive, "true or false", false, nil)
	l.ExpiresAt.Check(&f, "expires_at")
	Check(&f, "redirect_status", l.RedirectStatus, "301, 302, 307 or 308", false, links.CheckRedirectStatus)
	Check(&f, "forward_query", l.ForwardQuery, "true or false", false, nil)
	return f
}

var errID = errors.New("must be a positive integer")

func checkID(id int64) error {
	if id < 1 {
		return errID
	}
	return nil
}

// checkCode refuses a code that cannot be given by hand to a link of a domain. The
// words of routes are reserved on the main domain only.
func checkCode(domainID int64, code string) error {
	check := links.CheckCode
	if domainID != linkcache.MainDomain {
		check = links.CheckDomainCode
	}
	if err := check(code); err != nil {
		return Invalid(FieldError{"short_code", err.Error()})
	}
	return nil
}

var errNoLink = NotFound("link")

// GetLink returns a link.
func (s *Service) GetLink(ctx context.Context, actor Actor, id int64) (Link, error) {
	return s.getLink(ctx, queries.New(s.Pool), actor, id)
}

func (s *Service) getLink(ctx context.Context, q *queries.Queries, actor Actor, id int64) (Link, error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return Link{}, err
	}
	row, err := q.GetURL(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Link{}, errNoLink
	}
	return s.viewLink(row.URL, row.Host, linkNumbers{row.Clicks, row.People, row.LastAt}), err
}

// drawTries is how often a code is drawn before giving up. Every second draw is one
// character longer, so that codes of a length that is nearly used up are soon left
// behind.
const drawTries = 5

// suggestTries is how many codes in words are looked up before one is drawn.
const suggestTries = 5

// SuggestCode returns a short code that is free on the domain of a link: one in the words
// of its title or target if there are some, or else a drawn one.
func (s *Service) SuggestCode(ctx context.Context, actor Actor, in LinkFields) (string, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return "", err
	}
	domain, err := s.FindDomain(ctx, in.Domain.Value)
	if err != nil {
		return "", err
	}
	words := links.CodeOf(in.Title.Value, in.OriginalURL.Value)
	for try := range suggestTries {
		code := words
		switch {
		case words == "":
			code = links.NewCode(links.CodeLength)
		case try == suggestTries-1:
			code = words + "-" + links.NewCode(links.CodeLength)
		case try > 0:
			code = words + "-" + strconv.Itoa(try+1)
		}
		if checkCode(domain, code) != nil {
			words = "" // it is reserved
			continue
		}
		same, err := s.FindLinks(ctx, actor, in.Domain.Value, code)
		if err != nil || len(same) == 0 {
			return code, err
		}
	}
	return "", errNoCode
}

var errNoCode = Unavailable("no free code was found, try again")

// CreateLink makes a link. user_id and original_url are required. If no code is given,
// one is drawn.
func (s *Service) CreateLink(ctx context.Context, actor Actor, in LinkFields, once *Once) (Link, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return Link{}, err
	}
	if err := s.checkWhole(in).Err(); err != nil {
		return Link{}, err
	}
	fresh := freshLink(in)
	if fresh.ShortCode != "" {
		return s.insertLink(ctx, actor, fresh, in.Domain, once)
	}
	for try := range drawTries {
		fresh.ShortCode = links.NewCode(links.CodeLength + try/2)
		link, err := s.insertLink(ctx, actor, fresh, in.Domain, once)
		if postgres.Constraint(err) != "urls_short_code_key" {
			return link, err
		}
	}
	return Link{}, errNoCode
}

// checkWhole returns the faults of a new link whose fields have all been sent.
func (s *Service) checkWhole(in LinkFields) Faults {
	f := in.CheckNew(s.OwnHosts)
	if !in.UserID.Sent {
		f.Add("user_id", "is required")
	}
	if !in.OriginalURL.Sent {
		f.Add("original_url", "is required")
	}
	return f
}

// freshLink returns the link that fields describe which have been checked.
func freshLink(in LinkFields) Link {
	fresh := Link{Tags: []string{}, IsActive: true, RedirectStatus: 302}
	fresh.apply(in)
	return fresh
}

func (s *Service) insertLink(ctx context.Context, actor Actor, fresh Link, domain Optional[string], once *Once) (Link, error) {
	link, err := create(ctx, s, once, func(q *queries.Queries) (Link, string, error) {
		id, host, err := s.findDomain(ctx, q, domain.Value)
		if err != nil {
			return Link{}, "", err
		}
		if err := checkCode(id, fresh.ShortCode); err != nil {
			return Link{}, "", err
		}
		stored, err := q.CreateURL(ctx, queries.CreateURLParams{
			UserID: fresh.UserID, DomainID: id, ShortCode: fresh.ShortCode, OriginalURL: fresh.OriginalURL,
			Title: fresh.Title, Tags: fresh.Tags, IsActive: fresh.IsActive, ExpiresAt: fresh.ExpiresAt,
			RedirectStatus: int16(fresh.RedirectStatus), ForwardQuery: fresh.ForwardQuery,
		})
		if err != nil {
			return Link{}, "", err
		}
		link := s.viewLink(stored, host, linkNumbers{})
		return link, link.Path(), recordLink(ctx, q, actor, "created", link, nil)
	})
	if err == nil {
		s.Cache.Forget(link.key()) // the cache may remember that there is no such link
	}
	return link, err
}

// apply sets the fields of l, except for the domain, to those of f, which have been
// checked. It returns the changes.
func (l *Link) apply(f LinkFields) changes {
	c := changes{}
	f.OriginalURL.Value, _ = links.CleanTarget(f.OriginalURL.Value, links.Hosts{})
	f.Tags.Value, _ = links.CleanTags(f.Tags.Value)
	f.ShortCode.Value = links.NormalCode(f.ShortCode.Value)
	if f.Title.Sent {
		f.Title.Value, _ = links.CleanTitle(f.Title.Value)
		f.Title.Null = f.Title.Value == ""
	}
	if f.ExpiresAt.Sent {
		// Rounded as the database stores it, so that sending the same time again
		// changes nothing.
		f.ExpiresAt.Value = f.ExpiresAt.Value.UTC().Truncate(time.Microsecond)
	}
	change(c, "user_id", &l.UserID, f.UserID)
	change(c, "original_url", &l.OriginalURL, f.OriginalURL)
	change(c, "short_code", &l.ShortCode, f.ShortCode)
	changeNullable(c, "title", &l.Title, f.Title)
	change(c, "tags", &l.Tags, f.Tags)
	change(c, "is_active", &l.IsActive, f.IsActive)
	changeNullable(c, "expires_at", &l.ExpiresAt, f.ExpiresAt.Optional)
	change(c, "redirect_status", &l.RedirectStatus, f.RedirectStatus)
	change(c, "forward_query", &l.ForwardQuery, f.ForwardQuery)
	return c
}

// UpdateLink changes the fields that were sent. When it returns, the cache of this
// process has the change; other replicas learn of it from the feed.
func (s *Service) UpdateLink(ctx context.Context, actor Actor, id int64, in LinkFields) (link Link, err error) {
	if err := actor.Require(WritesLinks); err != nil {
		return Link{}, err
	}
	if err := in.CheckChange(s.OwnHosts).Err(); err != nil {
		return Link{}, err
	}
	var before linkcache.Key
	err = s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockURL(ctx, id)
		if err != nil {
			return err
		}
		link = s.viewLink(row.URL, row.Host, linkNumbers{row.Clicks, row.People, row.LastAt})
		before = link.key()
		changes, host := link.apply(in), row.Host
		if in.Domain.Sent {
			if link.domainID, host, err = s.findDomain(ctx, q, in.Domain.Value); err != nil {
				return err
			}
			set(changes, "domain", &link.Domain, s.hostOf(host))
		}
		if link.key() != before {
			if err := checkCode(link.domainID, link.ShortCode); err != nil {
				return err
			}
		}
		// An undo may have switched the link off for now, and would later switch it on
		// again. A request that sends is_active decides this itself, even if it changes
		// nothing.
		decides := in.IsActive.Sent
		if len(changes) == 0 && (!decides || row.URL.UndoOf == nil) {
			return nil
		}
		stored, err := q.UpdateURL(ctx, queries.UpdateURLParams{
			ID: link.ID, UserID: link.UserID, DomainID: link.domainID, ShortCode: link.ShortCode, OriginalURL: link.OriginalURL,
			Title: link.Title, Tags: link.Tags, IsActive: link.IsActive, ExpiresAt: link.ExpiresAt,
			RedirectStatus: int16(link.RedirectStatus), ForwardQuery: link.ForwardQuery, DecidesActive: decides,
		})
		if err != nil {
			return err
		}
		link = s.viewLink(stored, host, linkNumbers{row.Clicks, row.People, row.LastAt})
		if len(changes) == 0 {
			return nil
		}
		return recordLink(ctx, q, actor, "updated", link, changes)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Link{}, errNoLink
	}
	if err == nil {
		s.Cache.Forget(before, link.key())
	}
	return link, err
}

// DeleteLink removes a link. Its events and rollups stay.
func (s *Service) DeleteLink(ctx context.Context, actor Actor, id int64) error {
	if err := actor.Require(WritesLinks); err != nil {
		return err
	}
	var link Link
	err := s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockURL(ctx, id)
		if err != nil {
			return err
		}
		link = s.viewLink(row.URL, row.Host, linkNumbers{row.Clicks, row.People, row.LastAt})
		if _, err := q.DeleteURL(ctx, id); err != nil {
			return err
		}
		return recordLink(ctx, q, actor, "deleted", link, nil)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoLink
	}
	if err == nil {
		s.Cache.Forget(link.key())
	}
	return err
}

// linksOf returns the links with these ids, in their order. Links that were deleted
// meanwhile are missing, and links that were changed are returned as they are now.
func (s *Service) linksOf(ctx context.Context, ids []int64) ([]Link, error) {
	rows, err := s.lists().GetURLs(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[int64]Link, len(rows))
	for _, row := range rows {
		byID[row.URL.ID] = s.viewLink(row.URL, row.Host, linkNumbers{row.Clicks, row.People, row.LastAt})
	}
	found := make([]Link, 0, len(rows))
	for _, id := range ids {
		if link, ok := byID[id]; ok {
			found = append(found, link)
		}
	}
	return found, nil
}

// recordLink writes the event of a change of a link, in the transaction of q.
func recordLink(ctx context.Context, q *queries.Queries, actor Actor, event string, l Link, c changes) error {
	return record(ctx, q, actor, event, &l.ID, &l.UserID, detailsOf(l, c))
}

// detailsOf returns the details of the event of a change of a link.
func detailsOf(l Link, c changes) changeDetails {
	details := changeDetails{Entity: "url", ShortCode: l.ShortCode, OriginalURL: l.OriginalURL, Changes: c}
	if !l.IsOnMainDomain() {
		details.Domain = l.Domain
	}
	return details
}

// MaxPicked is how many links can be asked for by their ids.
const MaxPicked = 100

// GetLinks returns the links with these ids, in their order, without those that there are
// not.
func (s *Service) GetLinks(ctx context.Context, actor Actor, ids []int64) ([]Link, error) {
	if err := actor.Require(ReadsLinks); err != nil || len(ids) == 0 {
		return nil, err
	}
	return s.linksOf(ctx, ids)
}
