package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
)

const (
	defaultLimit = 20
	maxCursor    = 200
)

// PageInput are the parameters of every list: either a cursor or a page number. It is
// exported because Huma ignores embedded types that are not. A type that embeds it and
// has a Resolve of its own must call this one.
type PageInput struct {
	Limit   int    `query:"limit" minimum:"1" maximum:"100" doc:"How many rows to return at most; 20 if not given."`
	Cursor  string `query:"cursor" doc:"next_cursor of the page before this one."`
	Page    int    `query:"page" minimum:"1" maximum:"10000" doc:"Number of the page, for clients that cannot use cursors."`
	PerPage int    `query:"per_page" minimum:"1" maximum:"100" doc:"How many rows a numbered page has; 20 if not given."`
}

// Resolve implements huma.Resolver.
func (p *PageInput) Resolve(huma.Context) []error {
	if p.Cursor != "" && p.numbered() {
		return []error{&huma.ErrorDetail{Location: "query.cursor", Message: "cannot be used together with page or per_page"}}
	}
	return nil
}

// numbered reports whether the request asks for a page by number.
func (p *PageInput) numbered() bool { return p.Page != 0 || p.PerPage != 0 }

// size returns the largest number of rows of the page.
func (p *PageInput) size() int {
	switch {
	case p.PerPage > 0:
		return p.PerPage
	case p.Limit > 0:
		return p.Limit
	}
	return defaultLimit
}

// rows returns how many rows to ask the database for. It is one more than the page has,
// to find out whether there is a next page.
func (p *PageInput) rows() int32 { return int32(p.size() + 1) }

// offset returns how many rows come before the page.
func (p *PageInput) offset() int { return max(p.Page-1, 0) * p.size() }

var errCursor = invalid("cursor", "is not a cursor of this list")

// after returns the number in the cursor of a list, 0 if there is no cursor. It returns
// an error if the cursor is not one of this list.
func (p *PageInput) after(list string) (int64, error) {
	if p.Cursor == "" {
		return 0, nil
	}
	at := parseCursor(p.Cursor, list, 1)
	if at == nil {
		return 0, errCursor
	}
	return at[0], nil
}

// listRows answers with a page of a list whose rows are in the order of one number.
func listRows[T any](
	ctx context.Context, in *PageInput, name string,
	list func(context.Context, Actor, service.Page) ([]T, error), number func(T) int64,
) (*listOutput[T], error) {
	after, err := in.after(name)
	if err != nil {
		return nil, err
	}
	rows, err := list(ctx, actorIn(ctx), service.Page{After: after, Offset: int32(in.offset()), Limit: in.rows()})
	if err != nil {
		return nil, err
	}
	return newList(in, rows, asIs, func(row T) string { return makeCursor(name, number(row)) })
}

func asIs[T any](row T) T { return row }

// The orders of a list.
const (
	newestFirst = "newest"
	oldestFirst = "oldest"
)

// urlCursors and eventCursors give, for each order, the name that the list has in its
// cursors, so that a cursor continues in its own order. The orders that were once the
// only ones kept their names, because cursors do not expire.
var (
	urlCursors   = map[string]string{newestFirst: "urls_newest", oldestFirst: "urls"}
	eventCursors = map[string]string{newestFirst: "events", oldestFirst: "events_oldest"}
)

// OrderInput are the parameters of lists that can be read from both ends. It is
// exported for Huma, like PageInput, and its Resolve must be called too.
type OrderInput struct {
	ExportInput
	Order string `query:"order" enum:"newest,oldest" doc:"Which rows come first: newest if not given, but in a whole file of links oldest. A cursor goes on in the order it comes from."`
}

// place returns the order of the list and the n numbers of the cursor, nil if there is
// no cursor. The order is the request's, or else the cursor's, or else fallback.
func (in *OrderInput) place(cursors map[string]string, fallback string, n int) (order string, at []int64, err error) {
	if in.Cursor == "" {
		return cmp.Or(strings.Clone(in.Order), fallback), nil, nil
	}
	for order, list := range cursors {
		at := parseCursor(in.Cursor, list, n)
		switch {
		case at == nil:
		case in.Order != "" && in.Order != order:
			return "", nil, invalid("cursor", "is of the list in the other order")
		default:
			return order, at, nil
		}
	}
	return "", nil, errCursor
}

// makeCursor returns the cursor for a position in a list. It is opaque to clients, so
// that its contents may change.
func makeCursor(list string, at ...int64) string {
	text := list
	for _, n := range at {
		text += ":" + strconv.FormatInt(n, 10)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// parseCursor returns the n numbers of a cursor of the list, or nil.
func parseCursor(cursor, list string, n int) []int64 {
	if len(cursor) > maxCursor {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil
	}
	parts := strings.Split(string(text), ":")
	if len(parts) != n+1 || parts[0] != list {
		return nil
	}
	at := make([]int64, n)
	for i, part := range parts[1:] {
		if at[i], err = strconv.ParseInt(part, 10, 64); err != nil {
			return nil
		}
	}
	return at
}

// list is the body of every list.
type list[T any] struct {
	Data       []T     `json:"data" nullable:"false" doc:"The rows of this page."`
	Count      int     `json:"count" doc:"How many rows this page has."`
	NextCursor *string `json:"next_cursor" doc:"Cursor of the next page; null if this is the last."`
	// OrderAsOf is only of sorted lists of links.
	OrderAsOf *time.Time `json:"order_as_of,omitempty" doc:"Of links with sort: they are in the order of the numbers that they had at this time or later. The numbers shown may be newer."`
}

type listOutput[T any] struct{ Body list[T] }

// maxPage bounds the JSON of a page's rows in bytes, unless the first row is longer.
const maxPage = 1 << 20

// errPageLarge refuses a numbered page that is too large: if it ended early, rows would
// be missing.
var errPageLarge = invalid("per_page", "is too much here: the page is larger than 1 MiB, ask for fewer rows or walk with cursor")

// newList makes the answer from rows, which may have one row more than the page. after
// returns the cursor behind a row. A page that would exceed maxPage ends early.
func newList[R, T any](p *PageInput, rows []R, view func(R) T, after func(R) string) (*listOutput[T], error) {
	out := &listOutput[T]{}
	out.Body.Data = make([]T, 0, min(len(rows), p.size()))
	var bytes jsonSize
	encoder := json.NewEncoder(&bytes)
	encoder.SetEscapeHTML(false)
	for _, row := range rows {
		if len(out.Body.Data) == p.size() {
			break
		}
		shown := view(row)
		if err := encoder.Encode(shown); err != nil {
			return nil, fmt.Errorf("encode row: %w", err)
		}
		if bytes > maxPage && len(out.Body.Data) > 0 {
			if p.numbered() {
				return nil, errPageLarge
			}
			break
		}
		out.Body.Data = append(out.Body.Data, shown)
	}
	out.Body.Count = len(out.Body.Data)
	if out.Body.Count < len(rows) {
		next := after(rows[out.Body.Count-1])
		out.Body.NextCursor = &next
	}
	return out, nil
}

// jsonSize counts the bytes that are written to it.
type jsonSize int

func (s *jsonSize) Write(p []byte) (int, error) {
	*s += jsonSize(len(p))
	return len(p), nil
}

// given returns v as a filter for a query: nil if v is the zero value.
func given[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// checkText returns an error for a text parameter that the database cannot store.
func checkText(name, value string, limit int) []error {
	var message string
	switch {
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		message = "must be text in UTF-8 without NUL"
	case utf8.RuneCountInString(value) > limit:
		message = "must be at most " + strconv.Itoa(limit) + " characters"
	default:
		return nil
	}
	return []error{&huma.ErrorDetail{Location: "query." + name, Message: message}}
}

// IDInput is the id in a path, which guard has checked. It is exported for Huma, like
// PageInput.
type IDInput struct {
	ID int64 `path:"id" minimum:"1" example:"42"`
}

// idParam returns the id in the path of a request. A path whose id is not a number is
// answered like one whose id does not exist.
func idParam(c *fiber.Ctx) (int64, error) {
	id, err := strconv.ParseUint(c.Params("id"), 10, 63) // takes no sign
	if err != nil || id == 0 {
		return 0, plainError(http.StatusNotFound)
	}
	return int64(id), nil
}

// filterParam is a parameter that is true, false or absent.
type filterParam struct {
	On    bool // set by Huma
	given bool
}

// Schema implements huma.SchemaProvider.
func (filterParam) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeBoolean} }

// Receiver implements huma.ParamWrapper.
func (p *filterParam) Receiver() reflect.Value { return reflect.ValueOf(&p.On).Elem() }

// OnParamSet implements huma.ParamReactor.
func (p *filterParam) OnParamSet(given bool, _ any) { p.given = given }

func (p filterParam) value() *bool {
	if !p.given {
		return nil
	}
	return &p.On
}
