package service

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// How many rows one query of an export reads, which bounds its memory. An event can
// have 32 KiB, and a rejected row 64 KiB.
const (
	ExportPiece = 2000
	eventPiece  = 500
	errorsPiece = 100
)

// Export is a list that is read to its end, piece by piece, to become a file. It must
// not be used concurrently.
type Export struct {
	Kind   string // a word of a bounded set
	File   string // name of the file, without its extension; "" for one of kind and time
	Piece  int32  // most rows that one piece should have
	Header []string
	// Next returns the next rows, up to limit; fewer mean that there are no more. After
	// an error it may be called again.
	Next func(ctx context.Context, limit int32) ([]ExportRow, error)
}

// ExportRow is a row of an export. Its JSON is the same as in the list.
type ExportRow interface {
	// Cells appends the cells of a CSV row to a list.
	Cells(to []string) []string
}

func exportRows[T ExportRow](rows []T) []ExportRow {
	return views(rows, func(row T) ExportRow { return row })
}

// csvRow is a row of a file that exists only as CSV.
type csvRow []string

// Cells implements ExportRow.
func (r csvRow) Cells(to []string) []string { return append(to, r...) }

// Cells implements ExportRow.
func (u User) Cells(to []string) []string {
	return append(to, cellID(u.ID), cellText(u.Username), cellText(u.Email), cellTime(u.CreatedAt))
}

// Cells implements ExportRow.
func (l Link) Cells(to []string) []string {
	title, expires, clicked := "", "", ""
	if l.LastClickedAt != nil {
		clicked = cellTime(*l.LastClickedAt)
	}
	if l.Title != nil {
		title = *l.Title
	}
	if l.ExpiresAt != nil {
		expires = cellTime(*l.ExpiresAt)
	}
	domain := l.Domain
	if l.IsOnMainDomain() {
		domain = "" // so that the file can be imported on a server whose main domain has another host
	}
	return append(to, cellID(l.ID), cellID(l.UserID), cellText(l.ShortCode), cellText(l.ShortURL),
		cellText(l.OriginalURL), cellText(title), cellTags(l.Tags), strconv.FormatBool(l.IsActive), expires,
		strconv.Itoa(l.RedirectStatus), strconv.FormatBool(l.ForwardQuery), cellID(l.Clicks), cellID(l.ImportedClicks),
		cellTime(l.CreatedAt), cellTime(l.UpdatedAt), domain, cellID(l.People), clicked)
}

// Cells implements ExportRow.
func (e Event) Cells(to []string) []string {
	url, user := "", ""
	if e.URLID != nil {
		url = cellID(*e.URLID)
	}
	if e.UserID != nil {
		user = cellID(*e.UserID)
	}
	return append(to, cellID(e.ID), url, user, e.EventType, cellTime(e.Timestamp), cellText(string(e.Details)))
}

func cellID(n int64) string       { return strconv.FormatInt(n, 10) }
func cellText(s string) string    { return csvimport.Neutralize(s) }
func cellTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
func cellTags(tags []string) string {
	text := strings.Join(tags, "|")
	if strings.HasPrefix(text, "[") {
		text = "|" + text // otherwise an import would take it for a list in JSON
	}
	return cellText(text)
}

// ExportUsers exports the users that SearchUsers finds behind the id after, without the
// first offset ones.
func (s *Service) ExportUsers(_ context.Context, actor Actor, search string, after int64, offset int32) (Export, error) {
	return Export{
		Kind: string(csvimport.KindUsers), Piece: ExportPiece, Header: []string{"id", "username", "email", "created_at"},
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			users, err := s.nextUsers(ctx, actor, search, Page{after, offset, limit})
			if err != nil || len(users) == 0 {
				return nil, err
			}
			after, offset = users[len(users)-1].ID, 0
			return exportRows(users), nil
		},
	}, actor.Require(ReadsUsers)
}

var linksHeader = []string{
	"id", "user_id", "short_code", "short_url", "original_url", "title", "tags", "is_active", "expires_at",
	"redirect_status", "forward_query", "clicks", "imported_clicks", "created_at", "updated_at", "domain",
	"people", "last_clicked_at",
}

// ExportPicked exports the links with these ids, the oldest first.
func (s *Service) ExportPicked(ctx context.Context, actor Actor, ids []int64) (Export, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	links, err := s.GetLinks(ctx, actor, ids)
	return Export{
		Kind: string(csvimport.KindLinks), Piece: ExportPiece, Header: linksHeader,
		Next: func(_ context.Context, limit int32) ([]ExportRow, error) {
			piece := links[:min(int(limit), len(links))]
			links = links[len(piece):]
			return exportRows(piece), nil
		},
	}, err
}

// ExportLinks exports the links of a list. With an offset, it is one page of the list.
func (s *Service) ExportLinks(ctx context.Context, actor Actor, in LinkList, offset int) (Export, error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return Export{}, err
	}
	l, err := s.linkList(ctx, in)
	return Export{
		Kind: string(csvimport.KindLinks), Piece: ExportPiece, Header: linksHeader,
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			if offset > 0 {
				links, _, err := s.ListLinks(ctx, actor, in, offset, int(limit))
				return exportRows(links), err
			}
			links, at, err := s.nextLinks(ctx, l, int(limit))
			if err == nil {
				l.at = at
			}
			return exportRows(links), err
		},
	}, err
}

// ExportEvents exports the events of a list, without its first offset ones.
func (s *Service) ExportEvents(_ context.Context, actor Actor, l EventList, offset int) (Export, error) {
	return Export{
		Kind: string(csvimport.KindEvents), Piece: eventPiece,
		Header: []string{"id", "url_id", "user_id", "event_type", "timestamp", "details"},
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			events, err := s.ListEvents(ctx, actor, l, offset, int(limit))
			if err != nil || len(events) == 0 {
				return nil, err
			}
			l, offset = l.Behind(events[len(events)-1].At()), 0
			return exportRows(events), nil
		},
	}, actor.Require(ReadsEvents)
}

// ExportImportErrors exports the rejected rows of an import, as a file to be mended and
// imported again.
func (s *Service) ExportImportErrors(ctx context.Context, actor Actor, id int64) (Export, error) {
	row, err := s.findImport(ctx, actor, id)
	if err != nil {
		return Export{}, err
	}
	var layout csvimport.Layout
	if err := json.Unmarshal(row.Layout, &layout); err != nil {
		return Export{}, fmt.Errorf("read layout of import: %w", err)
	}
	after := int64(0)
	return Export{
		Kind: "import_errors", File: fmt.Sprintf("import-%d-errors", id), Piece: errorsPiece, Header: layout.MendHeader(),
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			rows, err := s.lists().ListImportErrors(ctx, queries.ListImportErrorsParams{
				ImportID: id, AfterLine: after, RowLimit: limit, RecordBytes: math.MaxInt32,
			})
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			after = rows[len(rows)-1].Line
			return views(rows, func(r queries.ListImportErrorsRow) ExportRow {
				return csvRow(layout.MendRecord(csvimport.Reject{Line: r.Line, Column: r.Field, Reason: r.Reason, Raw: string(r.Record)}))
			}), nil
		},
	}, nil
}

// ExportImportResult exports the outcome of each row of an import, in file order.
func (s *Service) ExportImportResult(ctx context.Context, actor Actor, id int64) (Export, error) {
	row, err := s.findImport(ctx, actor, id)
	if err != nil {
		return Export{}, err
	}
	after := int64(0)
	return Export{
		Kind: "import_results", File: fmt.Sprintf("import-%d-result", id), Piece: ExportPiece,
		Header: []string{"line", "outcome", "id", "short_url", "field", "reason"},
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			rows, err := s.listResults(ctx, row, after, limit)
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			after = rows[len(rows)-1].Line
			return views(rows, s.viewResult), nil
		},
	}, nil
}

func (s *Service) listResults(ctx context.Context, row queries.Import, after int64, limit int32) ([]queries.ListURLResultsRow, error) {
	switch csvimport.Kind(row.Kind) {
	case csvimport.KindUsers:
		rows, err := s.lists().ListUserResults(ctx, &row.ID, after, limit)
		return views(rows, func(r queries.ListUserResultsRow) queries.ListURLResultsRow { return queries.ListURLResultsRow(r) }), err
	case csvimport.KindLinks:
		return s.lists().ListURLResults(ctx, &row.ID, after, limit)
	default:
		rows, err := s.lists().ListEventResults(ctx, &row.ID, after, limit)
		return views(rows, func(r queries.ListEventResultsRow) queries.ListURLResultsRow { return queries.ListURLResultsRow(r) }), err
	}
}

func (s *Service) viewResult(r queries.ListURLResultsRow) ExportRow {
	cells := csvRow{cellID(r.Line), r.Outcome, "", "", cellText(r.Field), cellText(r.Reason)}
	if r.RowID != 0 {
		cells[2] = cellID(r.RowID)
	}
	if r.ShortCode != "" {
		var host *string
		if r.Host != "" {
			host = &r.Host
		}
		cells[3] = s.ShortURL(host, r.ShortCode)
	}
	return cells
}
