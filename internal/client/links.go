package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/links"
)

// Link is a link, as GET /urls/{id} returns it.
type Link struct {
	ID             int64      `json:"id"`
	UserID         int64      `json:"user_id"`
	Domain         string     `json:"domain"`
	ShortCode      string     `json:"short_code"`
	ShortURL       string     `json:"short_url"`
	OriginalURL    string     `json:"original_url"`
	Title          *string    `json:"title"`
	Tags           []string   `json:"tags"`
	IsActive       bool       `json:"is_active"`
	ExpiresAt      *time.Time `json:"expires_at"`
	RedirectStatus int        `json:"redirect_status"`
	ForwardQuery   bool       `json:"forward_query"`
	Clicks         int64      `json:"clicks"`
	People         int64      `json:"people"`
	LastClickedAt  *time.Time `json:"last_clicked_at"`
	CreatedAt      time.Time  `json:"created_at"`

	// JSON is the link as the server wrote it, with fields that this release may not know.
	JSON json.RawMessage `json:"-"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Link) UnmarshalJSON(data []byte) error {
	type plain Link
	if err := json.Unmarshal(data, (*plain)(l)); err != nil {
		return err
	}
	l.JSON = bytes.Clone(data)
	return nil
}

func (l Link) path() string { return "/urls/" + strconv.FormatInt(l.ID, 10) }

// linkPage is a page of a list of links.
type linkPage struct {
	Data       []Link  `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

// Links calls show with each link of the list that query asks for, up to most of them,
// or all if most is 0. It stops at an error of show and returns it.
func (c *Client) Links(ctx context.Context, query url.Values, most int, show func(Link) error) error {
	const page = 100
	left, size := most, page
	for {
		if most > 0 {
			size = min(left, page)
		}
		query.Set("limit", strconv.Itoa(size))
		var got linkPage
		if err := c.get(ctx, "/urls?"+query.Encode(), &got); err != nil {
			return err
		}
		for _, link := range got.Data {
			if err := show(link); err != nil {
				return err
			}
		}
		left -= len(got.Data)
		if got.NextCursor == nil || most > 0 && left <= 0 {
			return nil
		}
		query.Set("cursor", *got.NextCursor)
	}
}

// FindLink returns the link with a short code on the domain with a host; "" is the main
// domain. If there is no such link and the code is a number, it is taken for the id of a
// link.
func (c *Client) FindLink(ctx context.Context, host, code string) (link Link, err error) {
	query := url.Values{"short_code": {code}}
	if host != "" {
		query.Set("domain", host)
	}
	var found linkPage
	if err := c.get(ctx, "/urls?"+query.Encode(), &found); err != nil {
		return Link{}, err
	}
	// A server of an earlier release would ignore the code and list other links.
	if len(found.Data) == 1 && found.Data[0].ShortCode == links.NormalCode(code) {
		return found.Data[0], nil
	}
	id, err := strconv.ParseInt(code, 10, 64)
	if err != nil || host != "" || id < 1 {
		return Link{}, &Error{Status: http.StatusNotFound, Message: "there is no such link"}
	}
	err = c.get(ctx, Link{ID: id}.path(), &link)
	return link, err
}

// CreateLink makes a link. Under the same key, one is made once.
func (c *Client) CreateLink(ctx context.Context, fields map[string]any, key string) (link Link, err error) {
	err = c.send(ctx, http.MethodPost, "/urls", fields, key, http.StatusCreated, into(&link))
	return link, err
}

// ChangeLink changes some fields of a link.
func (c *Client) ChangeLink(ctx context.Context, link Link, fields map[string]any) (changed Link, err error) {
	err = c.send(ctx, http.MethodPatch, link.path(), fields, "", http.StatusOK, into(&changed))
	return changed, err
}

// DeleteLink deletes a link.
func (c *Client) DeleteLink(ctx context.Context, link Link) error {
	return c.send(ctx, http.MethodDelete, link.path(), nil, "", http.StatusNoContent, func(io.Reader) error { return nil })
}

// DrawLink writes the QR code of a link to w. format is svg or png; query says how it is
// drawn.
func (c *Client) DrawLink(ctx context.Context, link Link, format string, query url.Values, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.download(ctx, link.path()+"/qr."+format+"?"+query.Encode(), "*/*", w)
}

// OnlyUser returns the id of the user, if there is just one, and otherwise 0.
func (c *Client) OnlyUser(ctx context.Context) (int64, error) {
	var users struct {
		Data []struct {
			ID int64 `json:"id"`
		} `json:"data"`
	}
	if err := c.get(ctx, "/users?limit=2", &users); err != nil || len(users.Data) != 1 {
		return 0, err
	}
	return users.Data[0].ID, nil
}

// send sends fields as JSON, or nothing if there are none.
func (c *Client) send(ctx context.Context, method, path string, fields map[string]any, key string, want int, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var body io.Reader
	if fields != nil {
		text, err := json.Marshal(fields)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return c.do(req, want, read)
}
