package service

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/signpost/signpost/queries"
)

// changes holds the fields that an update changed, in the form in which they are part
// of the details of its event.
type changes map[string]changed

type changed struct {
	Old any `json:"old"`
	New any `json:"new"`
}

// change sets a value to the field of a request and notes the change in to if the two
// differ. A null leaves the value as it is.
func change[T any](to changes, field string, value *T, o Optional[T]) {
	if o.Sent && !o.Null {
		set(to, field, value, o.Value)
	}
}

// changeNullable is like change, for a value that null clears.
func changeNullable[T any](to changes, field string, value **T, o Optional[T]) {
	switch {
	case o.Sent && o.Null:
		set(to, field, value, nil)
	case o.Sent:
		set(to, field, value, &o.Value)
	}
}

func set[T any](to changes, field string, value *T, wanted T) {
	if same(*value, wanted) {
		return
	}
	to[field] = changed{Old: *value, New: wanted}
	*value = wanted
}

// same reports whether two values are equal to a client. Times are equal if they are
// the same moment.
func same(a, b any) bool {
	if x, ok := a.(*time.Time); ok {
		y, _ := b.(*time.Time)
		if x == nil || y == nil {
			return x == y
		}
		return x.Equal(*y)
	}
	return reflect.DeepEqual(a, b)
}

// changeDetails are the details of a created, updated or deleted event.
type changeDetails struct {
	Entity      string  `json:"entity"` // user, url, domain, mark, batch or tag
	Username    string  `json:"username,omitempty"`
	Email       string  `json:"email,omitempty"`
	Domain      string  `json:"domain,omitempty"` // of a link, if not the main one
	ShortCode   string  `json:"short_code,omitempty"`
	OriginalURL string  `json:"original_url,omitempty"`
	Network     string  `json:"network,omitempty"`    // of a mark
	UserAgent   string  `json:"user_agent,omitempty"` // likewise
	Kind        string  `json:"kind,omitempty"`       // likewise
	Batch       string  `json:"batch,omitempty"`      // that was retried (updated) or dropped (deleted)
	Clicks      int64   `json:"clicks,omitempty"`     // of a batch that was dropped
	Tag         string  `json:"tag,omitempty"`
	Changes     changes `json:"changes,omitempty"`
	By          by      `json:"by"`
}

type by struct {
	TokenID *int64 `json:"token_id"`
	Name    string `json:"name"`
}

// encode returns the JSON of the details of a change that the actor made.
func (d changeDetails) encode(actor Actor) ([]byte, error) {
	d.By = by{TokenID: actor.TokenID, Name: actor.Name}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode details: %w", err)
	}
	return text, nil
}

// record writes the event of a change that the actor made, in the transaction of q.
func record(ctx context.Context, q *queries.Queries, actor Actor, event string, urlID, userID *int64, details changeDetails) error {
	text, err := details.encode(actor)
	if err != nil {
		return err
	}
	return q.InsertChangeEvent(ctx, queries.InsertChangeEventParams{
		URLID: urlID, UserID: userID, EventType: event, Details: text,
	})
}
