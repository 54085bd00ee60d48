package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

// Tag is a tag that links have, or that has a color.
type Tag struct {
	Name  string `json:"name" example:"sale"`
	Color string `json:"color" enum:",red,orange,yellow,green,teal,blue,purple,pink" example:"green" doc:"Empty if it has none."`
	Links int64  `json:"links" example:"12" doc:"How many links have it."`
	// Becomes is set while links are moved off the tag.
	Becomes *string `json:"becomes" doc:"While the tag is being renamed, merged or deleted: the tag that its links get, empty if none. Otherwise null."`
}

// TagColors are the colors that a tag may have.
var TagColors = []string{"red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"}

var errNoTag = NotFound("tag")

// ListTags returns up to limit tags that begin with a prefix and come after a name, in
// the order of their bytes, without the first offset ones. next is the name after which
// the list goes on, "" at its end. A page may have fewer tags than its limit and not be
// the last.
func (s *Service) ListTags(ctx context.Context, actor Actor, prefix, after string, offset, limit int) (tags []Tag, next string, err error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return nil, "", err
	}
	if offset > maxSifted {
		return nil, "", ErrTooDeep
	}
	rows, err := s.lists().ListTags(ctx, queries.ListTagsParams{After: after, Prefix: prefix, RowLimit: int64(limit) + 1, RowOffset: int64(offset)})
	if err != nil {
		return nil, "", err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = rows[limit-1].Name
	}
	tags = []Tag{}
	for _, row := range rows {
		if tag := Tag(row); tag.exists() {
			tags = append(tags, tag)
		}
	}
	return tags, next, nil
}

func (t Tag) exists() bool { return t.Links > 0 || t.Color != "" || t.Becomes != nil }

// GetTag returns a tag.
func (s *Service) GetTag(ctx context.Context, actor Actor, name string) (Tag, error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return Tag{}, err
	}
	return getTag(ctx, queries.New(s.Pool), name)
}

func getTag(ctx context.Context, q *queries.Queries, name string) (Tag, error) {
	row, err := q.GetTag(ctx, name)
	tag := Tag{Name: name, Color: row.Color, Links: row.Links, Becomes: row.Becomes}
	if err == nil && !tag.exists() {
		err = errNoTag
	}
	return tag, err
}

// TagColors returns the colors of those of the tags that have one.
func (s *Service) TagColors(ctx context.Context, actor Actor, names []string) (map[string]string, error) {
	if err := actor.Require(ReadsLinks); err != nil || len(names) == 0 {
		return nil, err
	}
	rows, err := queries.New(s.Pool).TagColors(ctx, names)
	colors := make(map[string]string, len(rows))
	for _, row := range rows {
		colors[row.Name] = row.Color
	}
	return colors, err
}

// TagFields are the fields of a tag that a request may set.
type TagFields struct {
	Name  Optional[string]
	Color Optional[string]
	// Merge says that the links may get a tag that there is already.
	Merge Optional[bool]
}

var errTagColor = errors.New("must be one of " + strings.Join(TagColors, ", ") + ", or empty")

// Check returns the faults of the fields.
func (t TagFields) Check() Faults {
	var f Faults
	Check(&f, "name", t.Name, "a string", false, func(name string) error {
		_, err := cleanTag(name)
		return err
	})
	Check(&f, "color", t.Color, "a string", false, func(color string) error {
		if color != "" && !slices.Contains(TagColors, color) {
			return errTagColor
		}
		return nil
	})
	Check(&f, "merge", t.Merge, "true or false", false, nil)
	return f
}

var errTagName = errors.New("must be 1 to 50 characters without commas, pipes or control characters, text direction ones included")

func cleanTag(name string) (string, error) {
	clean, err := links.CleanTags([]string{name})
	if err != nil {
		return "", errTagName
	}
	return clean[0], nil
}

// ChangeTag sets the color of a tag, and gives its links another tag for it. If there are
// too many for a request, workers go on with them, and the tag that is returned is the one
// that is going.
func (s *Service) ChangeTag(ctx context.Context, actor Actor, name string, in TagFields) (Tag, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return Tag{}, err
	}
	if err := in.Check().Err(); err != nil {
		return Tag{}, err
	}
	target := name
	if in.Name.Sent {
		target, _ = cleanTag(in.Name.Value)
	}
	err := s.inTx(ctx, func(q *queries.Queries) error {
		tag, err := getTag(ctx, q, name)
		if err != nil {
			return err
		}
		c, shown := changes{}, tag
		change(c, "color", &shown.Color, in.Color)
		if target != name {
			set(c, "name", &shown.Name, target)
			if err := startMove(ctx, q, actor, name, target, in.Merge.Value); err != nil {
				return err
			}
		}
		if len(c) == 0 {
			return nil
		}
		if in.Color.Sent {
			both := []string{name, target}
			slices.Sort(both) // as they are locked by whoever adds up
			for _, of := range both {
				if err := q.SetTagColor(ctx, of, shown.Color); err != nil {
					return err
				}
			}
		}
		return record(ctx, q, actor, "updated", nil, nil, changeDetails{Entity: "tag", Tag: name, Changes: c})
	})
	if err != nil {
		return Tag{}, err
	}
	if target != name {
		if done, err := s.moveNow(ctx, name); err != nil || !done {
			return s.going(ctx, name, target, err)
		}
	}
	row, err := queries.New(s.Pool).GetTag(ctx, target)
	return Tag{Name: target, Color: row.Color, Links: row.Links, Becomes: row.Becomes}, err
}

// DeleteTag takes a tag off all links. If there are too many for a request, workers go on
// with them; the tag that is returned then says so in Becomes.
func (s *Service) DeleteTag(ctx context.Context, actor Actor, name string) (Tag, error) {
	if err := actor.Require(WritesLinks); err != nil {
		return Tag{}, err
	}
	err := s.inTx(ctx, func(q *queries.Queries) error {
		if _, err := getTag(ctx, q, name); err != nil {
			return err
		}
		if err := startMove(ctx, q, actor, name, "", true); err != nil {
			return err
		}
		return record(ctx, q, actor, "deleted", nil, nil, changeDetails{Entity: "tag", Tag: name})
	})
	if err != nil {
		return Tag{}, err
	}
	if done, err := s.moveNow(ctx, name); err != nil || !done {
		return s.going(ctx, name, "", err)
	}
	return Tag{Name: name}, nil
}

// going returns a tag whose move is under way. An error has stopped it here only: workers
// go on.
func (s *Service) going(ctx context.Context, name, target string, err error) (Tag, error) {
	if err != nil && Classify(err) == nil {
		return Tag{}, err
	}
	row, err := queries.New(s.Pool).GetTag(ctx, name)
	return Tag{Name: name, Color: row.Color, Links: row.Links, Becomes: &target}, err
}

// startMove notes that the links of a tag are to get another, or none. A tag is part of one
// move at a time, so that each has an end that can be told.
func startMove(ctx context.Context, q *queries.Queries, actor Actor, name, target string, merge bool) error {
	if err := q.LockTagMoves(ctx); err != nil {
		return err
	}
	names := []string{name}
	if target != "" {
		names = append(names, target)
		if there, err := getTag(ctx, q, target); err == nil && !merge {
			has := fmt.Sprintf("%d links", there.Links)
			if there.Links == 1 {
				has = "1 link"
			}
			return Conflict("there is a tag "+target+" already, with "+has+": send merge to put both together", FieldError{"name", "is a tag already, with " + has})
		} else if err != nil && !errors.Is(err, errNoTag) {
			return err
		}
	}
	under, err := q.FindTagMove(ctx, names)
	switch {
	case err == nil && under.Target == "":
		return Conflict("the tag " + under.Name + " is just being deleted, try again when that is done")
	case err == nil:
		return Conflict("the tag " + under.Name + " is just becoming " + under.Target + ", try again when that is done")
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	by, err := json.Marshal(by{TokenID: actor.TokenID, Name: actor.Name})
	if err != nil {
		return err
	}
	return q.StartTagMove(ctx, name, target, by)
}

// moveTime is how long a request moves links itself and how long a turn of a move takes,
// movePiece how many links are moved at a time, and moveWait how long a piece waits for one
// that others write.
const (
	moveTime  = 2 * time.Second
	movePiece = 500
)

var moveWait = "2s"

// MoveTags goes on with the moves of tags that requests have begun, in turns, and adds the
// changes of numbers up after each turn, until there are no more or ctx ends. What fails
// holds nothing else up; MoveTags returns the last error.
func (s *Service) MoveTags(ctx context.Context) error {
	failed := s.addUpTags(ctx)
	for more := true; more; {
		more = false
		names, err := queries.New(s.Pool).ListTagMoves(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			done, err := s.moveTag(ctx, name, time.Now().Add(moveTime))
			more = more || !done && err == nil
			failed = cmp.Or(err, s.addUpTags(ctx), failed)
		}
	}
	return failed
}

func (s *Service) addUpTags(ctx context.Context) error {
	for {
		var added int64
		err := s.inTx(ctx, func(q *queries.Queries) (err error) {
			if err := q.WaitForLocks(ctx, &moveWait); err != nil {
				return err
			}
			added, err = q.AddUpTags(ctx, addUpPiece)
			return err
		})
		if err != nil {
			return err
		}
		if added < addUpPiece { // what has come since waits for its turn
			return queries.New(s.Pool).DropEmptyTags(ctx)
		}
	}
}

// addUpPiece is how many changes of numbers of tags are added up at a time.
const addUpPiece = 50_000

// moveNow moves links off a tag for as long as a request may. A piece that waits for others
// then gets a second more, and the answer still has its time.
func (s *Service) moveNow(ctx context.Context, name string) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, moveTime+time.Second)
	defer cancel()
	return s.moveTag(ctx, name, time.Now().Add(moveTime))
}

// moveTag moves links off a tag, in the order of their ids and piece by piece, until none
// has it or the time is over. Several processes may do it at once.
func (s *Service) moveTag(ctx context.Context, name string, until time.Time) (done bool, err error) {
	for !done && err == nil {
		if time.Now().After(until) {
			return false, nil
		}
		done, err = s.moveTagPiece(ctx, name)
	}
	return done, err
}

func (s *Service) moveTagPiece(ctx context.Context, name string) (done bool, err error) {
	move, err := queries.New(s.Pool).GetTagMove(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil // another process has done it
	} else if err != nil {
		return false, err
	}
	got, err := s.piece(ctx, linkList{oldest: true, at: move.AtID, tag: &name}, movePiece)
	if err != nil {
		return false, err
	}
	at := got.edge
	if at == 0 && len(got.ids) == movePiece {
		at = got.ids[movePiece-1]
	}
	// Links that got the tag meanwhile may be before the place: at the end of the list it
	// begins again, until there are none in all of it.
	noneInAll := at == 0 && len(got.ids) == 0 && move.AtID == 0
	err = s.inTx(ctx, func(q *queries.Queries) error {
		if err := q.WaitForLocks(ctx, &moveWait); err != nil {
			return err
		}
		locked, err := q.LockTagMove(ctx, name)
		if errors.Is(err, pgx.ErrNoRows) {
			done = true
			return nil
		} else if err != nil {
			return err
		}
		if _, err := q.MoveTag(ctx, queries.MoveTagParams{Actor: locked.Actor, Ids: got.ids, Name: name, Target: locked.Target}); err != nil {
			return err
		}
		left, err := q.GetTag(ctx, name)
		if err != nil {
			return err
		}
		done = left.Links <= 0
		if !done && noneInAll { // a link has got it just now, or the number is wrong
			has, err := q.HasTag(ctx, name)
			if err != nil {
				return err
			}
			done = !has
		}
		if done {
			return q.EndTagMove(ctx, name)
		}
		return q.AdvanceTagMove(ctx, at, name)
	})
	return done && err == nil, err
}
