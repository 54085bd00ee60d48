package client

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An Import is how far a file is, as GET /imports/{id} tells.
type Import struct {
	ID             int64      `json:"id"`
	Kind           string     `json:"kind"`
	State          string     `json:"state"`
	Format         string     `json:"format"`
	IgnoredColumns []string   `json:"ignored_columns"`
	IgnoredTotal   int        `json:"ignored_columns_total"`
	Error          *string    `json:"error"`
	DryRun         bool       `json:"dry_run"`
	RowsTotal      int64      `json:"rows_total"`
	RowsImported   int64      `json:"rows_imported"`
	RowsUpdated    int64      `json:"rows_updated"`
	RowsSkipped    int64      `json:"rows_skipped"`
	RowsRejected   int64      `json:"rows_rejected"`
	FinishedAt     *time.Time `json:"finished_at"`
	Encoding       *string    `json:"encoding"`
	Problems       []Problem  `json:"problems"` // none from an older server
	FirstErrors    []struct {
		Line   int64  `json:"line"`
		Field  string `json:"field"`
		Reason string `json:"reason"`
	} `json:"first_errors"`
}

// A Problem is what rows have in common that were rejected, or of which something
// is to be known.
type Problem struct {
	Outcome string  `json:"outcome"` // rejected or imported
	Column  string  `json:"column"`
	Kind    string  `json:"kind"`
	Reason  string  `json:"reason"`
	Rows    int64   `json:"rows"`
	Line    int64   `json:"line"` // of the first of the rows
	Cure    *string `json:"cure"`
}

// Done is how many rows are accounted for.
func (i Import) Done() int64 { return i.RowsImported + i.RowsUpdated + i.RowsSkipped + i.RowsRejected }

// Ended reports whether nothing more happens by itself.
func (i Import) Ended() bool { return i.FinishedAt != nil }

// Whole reports whether every row was looked at, and what it made is there.
func (i Import) Whole() bool { return i.State == "completed" }

// Upload is a file on its way to become an import.
type Upload struct {
	Kind string // users, urls or events
	// File is read once. Size is what it comes to in bytes, -1 if nobody knows.
	File io.Reader
	Size int64
	// Name is what the import is called; may be empty.
	Name string
	// Coding is how the file is compressed: gzip, zstd or nothing.
	Coding string
	// Key names the upload: under the same key the server does it once.
	Key string
	// Query is what else the server is asked for, such as on_conflict.
	Query url.Values
}

// Upload sends a file and returns the import that the server made of it.
func (c *Client) Upload(ctx context.Context, u Upload) (Import, error) {
	query := url.Values{"kind": {u.Kind}}
	for name, values := range u.Query {
		query[name] = values
	}
	// Hidden in a struct, so that net/http neither closes the file nor asks its size.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server+"/imports?"+query.Encode(), struct{ io.Reader }{u.File})
	if err != nil {
		return Import{}, err
	}
	req.ContentLength = u.Size
	req.Header.Set("Content-Type", "text/csv")
	req.Header.Set("Idempotency-Key", u.Key)
	if u.Coding != "" {
		req.Header.Set("Content-Encoding", u.Coding)
	}
	if u.Name != "" {
		req.Header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": u.Name}))
	}
	var imp Import
	err = c.do(req, http.StatusAccepted, into(&imp))
	return imp, err
}

// Import asks how far an import is.
func (c *Client) Import(ctx context.Context, id int64) (Import, error) {
	var imp Import
	err := c.get(ctx, "/imports/"+strconv.FormatInt(id, 10), &imp)
	return imp, err
}

// Ready finds out whether the server is there and knows the token.
func (c *Client) Ready(ctx context.Context) error {
	var list struct{ Data []Import }
	return c.get(ctx, "/imports?limit=1", &list)
}

// Rejected writes the rejected rows of an import to w as CSV, with their lines
// and reasons.
func (c *Client) Rejected(ctx context.Context, id int64, w io.Writer) error {
	return c.download(ctx, fmt.Sprintf("/imports/%d/errors?format=csv", id), "text/csv", w)
}

// Export writes all users, urls or events that query leaves to w, as csv or
// ndjson. After an error, w holds a part of them at best.
func (c *Client) Export(ctx context.Context, kind, format string, query url.Values, w io.Writer) error {
	all := url.Values{"format": {format}}
	for name, values := range query {
		all[name] = values
	}
	return c.download(ctx, "/"+url.PathEscape(kind)+"?"+all.Encode(), "*/*", w)
}
