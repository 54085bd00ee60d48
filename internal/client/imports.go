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

// An Import is the state of an import, as GET /imports/{id} returns it.
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
	Problems       []Problem  `json:"problems"` // empty from an older server
	FirstErrors    []struct {
		Line   int64  `json:"line"`
		Field  string `json:"field"`
		Reason string `json:"reason"`
	} `json:"first_errors"`
}

// A Problem describes rows that were rejected for the same reason, or that were
// imported with the same notice.
type Problem struct {
	Outcome string  `json:"outcome"` // rejected or imported
	Column  string  `json:"column"`
	Kind    string  `json:"kind"`
	Reason  string  `json:"reason"`
	Rows    int64   `json:"rows"`
	Line    int64   `json:"line"` // line of the first of these rows
	Cure    *string `json:"cure"`
}

// Done is how many rows were dealt with.
func (i Import) Done() int64 { return i.RowsImported + i.RowsUpdated + i.RowsSkipped + i.RowsRejected }

// Ended reports whether the import has come to an end, so that nothing more happens by
// itself.
func (i Import) Ended() bool { return i.FinishedAt != nil }

// Whole reports whether every row was dealt with and the results are in the database.
func (i Import) Whole() bool { return i.State == "completed" }

// Upload is a file that is sent to become an import.
type Upload struct {
	Kind string // users, urls or events
	// File is read once. Size is its size in bytes, -1 if it is not known.
	File io.Reader
	Size int64
	// Name is the name of the import; it may be empty.
	Name string
	// Coding is the compression of the file: gzip, zstd, or empty for none.
	Coding string
	// Key is the idempotency key: the server takes only one upload with the same key.
	Key string
	// Query holds further parameters of the request, such as on_conflict.
	Query url.Values
}

// Upload sends a file and returns the import that the server made of it.
func (c *Client) Upload(ctx context.Context, u Upload) (Import, error) {
	query := url.Values{"kind": {u.Kind}}
	for name, values := range u.Query {
		query[name] = values
	}
	// The struct hides the file's other methods, so that net/http neither closes the
	// file nor asks for its size.
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

// Import returns the present state of an import.
func (c *Client) Import(ctx context.Context, id int64) (Import, error) {
	var imp Import
	err := c.get(ctx, "/imports/"+strconv.FormatInt(id, 10), &imp)
	return imp, err
}

// Ready finds out whether the server answers and accepts the token.
func (c *Client) Ready(ctx context.Context) error {
	var list struct{ Data []Import }
	return c.get(ctx, "/imports?limit=1", &list)
}

// Rejected writes the rejected rows of an import to w as CSV, with their lines
// and reasons.
func (c *Client) Rejected(ctx context.Context, id int64, w io.Writer) error {
	return c.download(ctx, fmt.Sprintf("/imports/%d/errors?format=csv", id), "text/csv", w)
}

// Export writes to w all users, urls or events that query selects, as csv or ndjson.
// After an error, w may hold a part of them.
func (c *Client) Export(ctx context.Context, kind, format string, query url.Values, w io.Writer) error {
	all := url.Values{"format": {format}}
	for name, values := range query {
		all[name] = values
	}
	return c.download(ctx, "/"+url.PathEscape(kind)+"?"+all.Encode(), "*/*", w)
}
