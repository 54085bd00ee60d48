package api

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// URL is a link: a short code and where it leads.
type URL struct {
	ID             int64      `json:"id" example:"7"`
	UserID         int64      `json:"user_id" example:"42"`
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
	ImportedClicks int64      `json:"imported_clicks" doc:"Clicks that another service had counted before the link was imported."`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

func (a *API) viewURL(u queries.URL, clicks int64) URL {
	return URL{
		ID: u.ID, UserID: u.UserID, ShortCode: u.ShortCode, ShortURL: a.shortURL(u.ShortCode),
		OriginalURL: u.OriginalURL, Title: u.Title, Tags: u.Tags, IsActive: u.IsActive,
		ExpiresAt: utc(u.ExpiresAt), RedirectStatus: int(u.RedirectStatus), ForwardQuery: u.ForwardQuery,
		Clicks: clicks, ImportedClicks: u.ImportedClicks,
		CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(),
	}
}

func (a *API) shortURL(code string) string {
	return strings.TrimSuffix(a.PublicURL, "/") + links.CodePath(code)
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// urlFields are what a request may say about a link. The two bodies differ from
// it in their tags only.
type urlFields struct {
	UserID         Optional[int64]
	OriginalURL    Optional[string]
	ShortCode      Optional[string]
	Title          Optional[string]
	Tags           Optional[[]string]
	IsActive       Optional[bool]
	ExpiresAt      OptionalTime
	RedirectStatus Optional[int]
	ForwardQuery   Optional[bool]
}

// URLCreate is the body that makes a link.
type URLCreate struct {
	UserID         Optional[int64]    `json:"user_id" required:"true" minimum:"1" example:"42" doc:"The user who owns the link."`
	OriginalURL    Optional[string]   `json:"original_url" required:"true" minLength:"1" example:"https://example.com/sale?season=spring" doc:"An absolute http or https URL of at most 8192 bytes. Blanks and line ends around it are taken off; what a URL may not hold is percent-encoded in the redirect."`
	ShortCode      Optional[string]   `json:"short_code" required:"false" nullable:"true" minLength:"1" maxLength:"255" example:"spring" doc:"Drawn if absent. Letters and digits of any script, emoji and - _ . ~ + @ ! $, with slashes inside; at most 255 bytes. Case-sensitive."`
	Title          Optional[string]   `json:"title" required:"false" nullable:"true" maxLength:"255" example:"Spring sale"`
	Tags           Optional[[]string] `json:"tags" required:"false" maxItems:"20" example:"[\"sale\"]"`
	IsActive       Optional[bool]     `json:"is_active" required:"false" doc:"true if absent."`
	ExpiresAt      OptionalTime       `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z" doc:"When the link ends; must be in the future."`
	RedirectStatus Optional[int]      `json:"redirect_status" required:"false" enum:"301,302,307,308" example:"302" doc:"302 if absent."`
	ForwardQuery   Optional[bool]     `json:"forward_query" required:"false" doc:"Whether the query of a visit is added to the target's; false if absent."`
}

// URLUpdate is the body that changes a link: fields that are absent stay, and
// null clears title and expires_at.
type URLUpdate struct {
	UserID         Optional[int64]    `json:"user_id" required:"false" minimum:"1" example:"42"`
	OriginalURL    Optional[string]   `json:"original_url" required:"false" minLength:"1" example:"https://example.com/sale?season=spring"`
	ShortCode      Optional[string]   `json:"short_code" required:"false" minLength:"1" maxLength:"255" example:"spring"`
	Title          Optional[string]   `json:"title" required:"false" nullable:"true" maxLength:"255" example:"Spring sale"`
	Tags           Optional[[]string] `json:"tags" required:"false" maxItems:"20" example:"[\"sale\"]"`
	IsActive       Optional[bool]     `json:"is_active" required:"false" example:"false"`
	ExpiresAt      OptionalTime       `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z"`
	RedirectStatus Optional[int]      `json:"redirect_status" required:"false" enum:"301,302,307,308" example:"302"`
	ForwardQuery   Optional[bool]     `json:"forward_query" required:"false"`
}

// Resolve implements huma.Resolver.
func (u *URLCreate) Resolve(h huma.Context) []error {
	fields := urlFields(*u)
	f := fields.check(ownHostsOf(h.Context()), true, links.CheckCode)
	if e := u.ExpiresAt; e.Sent && !e.Null && !e.Wrong && !e.Value.After(time.Now()) {
		f.Add("expires_at", "must be in the future")
	}
	return bodyFaults(f)
}

// Resolve implements huma.Resolver. A link may be changed to have expired. Whether
// its code is a new one, which must be fit to be given by hand, is known later.
func (u *URLUpdate) Resolve(h huma.Context) []error {
	return bodyFaults(urlFields(*u).check(ownHostsOf(h.Context()), false, links.CheckImportedCode))
}

// check returns what is wrong with the fields. drawn says that a code that is
// null will be drawn.
func (u urlFields) check(ownHosts links.Hosts, drawn bool, checkCode func(string) error) service.Faults {
	var f service.Faults
	service.Check(&f, "user_id", u.UserID.Optional, "an integer", false, checkID)
	service.Check(&f, "original_url", u.OriginalURL.Optional, "a string", false, func(s string) error {
		_, err := links.CleanTarget(s, ownHosts)
		return err
	})
	service.Check(&f, "short_code", u.ShortCode.Optional, "a string", drawn, func(s string) error { return checkCode(links.NormalCode(s)) })
	service.Check(&f, "title", u.Title.Optional, "a string", true, func(s string) error {
		_, err := links.CleanTitle(s)
		return err
	})
	service.Check(&f, "tags", u.Tags.Optional, "a list of strings", false, func(tags []string) error {
		_, err := links.CleanTags(tags)
		return err
	})
	service.Check(&f, "is_active", u.IsActive.Optional, "true or false", false, nil)
	u.ExpiresAt.Check(&f, "expires_at")
	service.Check(&f, "redirect_status", u.RedirectStatus.Optional, "301, 302, 307 or 308", false, links.CheckRedirectStatus)
	service.Check(&f, "forward_query", u.ForwardQuery.Optional, "true or false", false, nil)
	return f
}

var errID = errors.New("must be a positive integer")

func checkID(id int64) error {
	if id < 1 {
		return errID
	}
	return nil
}

type (
	urlCreateInput struct{ Body URLCreate }
	urlUpdateInput struct {
		IDInput
		Body URLUpdate
	}
	urlOutput        struct{ Body URL }
	urlCreatedOutput struct {
		Location string `header:"Location" doc:"Path of the new link."`
		Body     URL
	}
)

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// containing returns the LIKE pattern of all text that contains s, nil for
// any text.
func containing(s string) *string {
	if s == "" {
		return nil
	}
	pattern := "%" + likeEscaper.Replace(s) + "%"
	return &pattern
}

func (a *API) getURL(ctx context.Context, in *IDInput) (*urlOutput, error) {
	row, err := queries.New(a.Pool).GetURL(ctx, in.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("link")
	}
	if err != nil {
		return nil, err
	}
	return &urlOutput{a.viewURL(row.URL, row.Clicks)}, nil
}

// drawTries is how often a code is drawn before giving up. Every second draw is
// one character longer, so that a space that fills is left soon.
const drawTries = 5

func (a *API) createURL(ctx context.Context, in *urlCreateInput) (*urlCreatedOutput, error) {
	fresh := newURL(urlFields(in.Body))
	if fresh.ShortCode != "" {
		return a.insertURL(ctx, fresh)
	}
	for try := range drawTries {
		fresh.ShortCode = links.NewCode(links.CodeLength + try/2)
		out, err := a.insertURL(ctx, fresh)
		if postgres.Constraint(err) != "urls_short_code_key" {
			return out, err
		}
	}
	return nil, unavailable("no free code was found, try again")
}

// newURL returns the row that checked fields describe, defaults filled in.
func newURL(u urlFields) queries.CreateURLParams {
	row := queries.CreateURLParams{Tags: []string{}, IsActive: true, RedirectStatus: 302}
	link := URL{Tags: row.Tags, IsActive: row.IsActive, RedirectStatus: int(row.RedirectStatus)}
	link.apply(u)
	row.UserID, row.ShortCode, row.OriginalURL = link.UserID, link.ShortCode, link.OriginalURL
	row.Title, row.Tags, row.IsActive, row.ExpiresAt = link.Title, link.Tags, link.IsActive, link.ExpiresAt
	row.RedirectStatus, row.ForwardQuery = int16(link.RedirectStatus), link.ForwardQuery
	return row
}

// apply changes u to what checked fields say and returns what that changed.
func (u *URL) apply(f urlFields) changes {
	c := changes{}
	f.OriginalURL.Value, _ = links.CleanTarget(f.OriginalURL.Value, links.Hosts{})
	f.Tags.Value, _ = links.CleanTags(f.Tags.Value)
	f.ShortCode.Value = links.NormalCode(f.ShortCode.Value)
	if f.Title.Sent {
		f.Title.Value, _ = links.CleanTitle(f.Title.Value)
		f.Title.Null = f.Title.Value == ""
	}
	if f.ExpiresAt.Sent {
		// What the database keeps of it, so that the same again changes nothing.
		f.ExpiresAt.Value = f.ExpiresAt.Value.UTC().Truncate(time.Microsecond)
	}
	change(c, "user_id", &u.UserID, f.UserID.Optional)
	change(c, "original_url", &u.OriginalURL, f.OriginalURL.Optional)
	change(c, "short_code", &u.ShortCode, f.ShortCode.Optional)
	changeNullable(c, "title", &u.Title, f.Title.Optional)
	change(c, "tags", &u.Tags, f.Tags.Optional)
	change(c, "is_active", &u.IsActive, f.IsActive.Optional)
	changeNullable(c, "expires_at", &u.ExpiresAt, f.ExpiresAt.OptionalTime.Optional)
	change(c, "redirect_status", &u.RedirectStatus, f.RedirectStatus.Optional)
	change(c, "forward_query", &u.ForwardQuery, f.ForwardQuery.Optional)
	return c
}

func (a *API) insertURL(ctx context.Context, row queries.CreateURLParams) (*urlCreatedOutput, error) {
	location, link, err := create(ctx, a, func(q *queries.Queries) (string, URL, error) {
		stored, err := q.CreateURL(ctx, row)
		if err != nil {
			return "", URL{}, err
		}
		link := a.viewURL(stored, 0)
		return "/urls/" + strconv.FormatInt(link.ID, 10), link, recordURL(ctx, q, "created", link, nil)
	})
	if err != nil {
		return nil, err
	}
	a.Cache.Forget(link.ShortCode) // it may be remembered as unknown
	return &urlCreatedOutput{Location: location, Body: link}, nil
}

// updateURL serves PUT and PATCH: both take a partial body.
//
// Whoever changes a link here sees the change here at once; other replicas
// learn of it from the feed.
func (a *API) updateURL(ctx context.Context, in *urlUpdateInput) (*urlOutput, error) {
	var link URL
	var code string // before the change
	err := a.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockURL(ctx, in.ID)
		if err != nil {
			return err
		}
		link, code = a.viewURL(row.URL, row.Clicks), row.URL.ShortCode
		changes := link.apply(urlFields(in.Body))
		if _, renamed := changes["short_code"]; renamed {
			if err := links.CheckCode(link.ShortCode); err != nil {
				return invalid(FieldError{Field: "short_code", Message: err.Error()})
			}
		}
		// A link that an undo has switched off for now would be on again later.
		decides := in.Body.IsActive.Sent
		if len(changes) == 0 && (!decides || row.URL.UndoOf == nil) {
			return nil
		}
		stored, err := q.UpdateURL(ctx, queries.UpdateURLParams{
			ID: link.ID, UserID: link.UserID, ShortCode: link.ShortCode, OriginalURL: link.OriginalURL,
			Title: link.Title, Tags: link.Tags, IsActive: link.IsActive, ExpiresAt: link.ExpiresAt,
			RedirectStatus: int16(link.RedirectStatus), ForwardQuery: link.ForwardQuery, DecidesActive: decides,
		})
		if err != nil {
			return err
		}
		link = a.viewURL(stored, row.Clicks)
		if len(changes) == 0 {
			return nil
		}
		return recordURL(ctx, q, "updated", link, changes)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("link")
	}
	if err != nil {
		return nil, err
	}
	a.Cache.Forget(code, link.ShortCode)
	return &urlOutput{link}, nil
}

func (a *API) deleteURL(ctx context.Context, in *IDInput) (*struct{}, error) {
	var code string
	err := a.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockURL(ctx, in.ID)
		if err != nil {
			return err
		}
		code = row.URL.ShortCode
		if _, err := q.DeleteURL(ctx, in.ID); err != nil {
			return err
		}
		return recordURL(ctx, q, "deleted", a.viewURL(row.URL, row.Clicks), nil)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("link")
	}
	if err == nil {
		a.Cache.Forget(code)
	}
	return nil, err
}
