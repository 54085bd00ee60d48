package worker

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

const (
	eventClicked = "clicked"
	utcDay       = 24 * time.Hour
)

// event is a click as a row of the events table, with its position in the batch. It is
// small and has few pointers, because a batch has tens of thousands.
type event struct {
	at            int64 // microseconds since 1970
	urlID, userID int64
	visitor       int64 // see private
	day           int64 // of the visitor's salt
	agent         *agent
	kind          visits.Kind
	host          string // of the referrer; "" is none
	position      int32
	rules         int16
	firsts        int16 // see events.firsts; set before it is stored
	country       [2]byte
	trigger       clicks.Trigger
	private       bool // there is no visitor
}

func (e *event) time() time.Time { return time.UnixMicro(e.at).UTC() }

// enricher turns clicks into events. It is for one batch, in one goroutine.
type enricher struct {
	pool   *pgxpool.Pool
	agents *agents
	marks  *visits.Marks
	panics map[int32]any // by position in the batch
	days   calendar
	macs   map[int64]hash.Hash // by day since 1970, each keyed with its salt
	day    int64               // of mac
	mac    hash.Hash
	sum    []byte
	input  []byte
}

func (d *deps) newEnricher(ctx context.Context) (*enricher, error) {
	marks, agents, err := d.judge.current(ctx, queries.New(d.pool), time.Now())
	if err != nil {
		return nil, err
	}
	return &enricher{pool: d.pool, agents: agents, marks: marks, days: calendar{zone: d.zone}, macs: map[int64]hash.Hash{}}, nil
}

// events returns the clicks at the given positions as events, oldest first,
// but for those that it panicked on, which are in panics afterwards. Only
// reading a day's salt can fail.
func (e *enricher) events(ctx context.Context, batch []clicks.Click, positions []int32) ([]event, error) {
	events := make([]event, 0, len(positions))
	for done := 0; done < len(positions); {
		var err error
		if events, err = e.appendEvents(ctx, events, batch, positions, &done); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events, nil
}

// appendEvents goes on after the click that done counts to, and stops at the first
// click that it panics on, so that such a click costs no other.
func (e *enricher) appendEvents(ctx context.Context, to []event, batch []clicks.Click, positions []int32, done *int) (events []event, err error) {
	events = to
	defer func() {
		if value := recover(); value != nil {
			if e.panics == nil {
				e.panics = map[int32]any{}
			}
			e.panics[positions[*done]] = value
			*done++
		}
	}()
	for ; *done < len(positions); *done++ {
		event, err := e.event(ctx, &batch[positions[*done]])
		if err != nil {
			return nil, err
		}
		event.position = positions[*done]
		events = append(events, event)
	}
	return events, nil
}

// event returns a click as an event. Of a visitor who does not want to be tracked, it
// has neither visitor nor referrer nor anything of the User-Agent but the kind.
func (e *enricher) event(ctx context.Context, c *clicks.Click) (event, error) {
	of := e.agents.get(c.UserAgent)
	row := event{
		at: c.At.UnixMicro(), urlID: c.URLID, userID: c.UserID, agent: of, country: visits.Country(c.IP),
		trigger: c.Trigger, private: c.Private,
	}
	row.kind, row.rules = e.marks.Judge(c.IP, of.Kind, c.Prefetch)
	if c.Private {
		row.agent = untold
		return row, nil
	}
	row.host = visits.ReferrerHost(c.Referrer)
	var err error
	row.visitor, err = e.visitor(ctx, c)
	row.day = e.day
	return row, err
}

// visitor returns the first 8 bytes of HMAC-SHA256(salt of the click's day, network
// NUL user agent). They are the same for one visitor within a day, and cannot be traced
// to anybody once the salt is destroyed.
func (e *enricher) visitor(ctx context.Context, c *clicks.Click) (int64, error) {
	if day := e.days.day(c.At.UnixMicro()); e.mac == nil || day != e.day {
		if err := e.turnTo(ctx, day); err != nil {
			return 0, err
		}
	}
	ip := visits.Network(c.IP).As16()
	e.input = append(e.input[:0], ip[:]...)
	e.input = append(e.input, 0)
	e.input = append(e.input, c.UserAgent...)
	e.mac.Reset()
	e.mac.Write(e.input)
	e.sum = e.mac.Sum(e.sum[:0])
	return int64(binary.BigEndian.Uint64(e.sum)), nil
}

// turnTo sets mac to the one of another day.
func (e *enricher) turnTo(ctx context.Context, day int64) error {
	if e.macs[day] == nil {
		salt, err := readSalt(ctx, e.pool, day)
		if err != nil {
			return err
		}
		e.macs[day] = hmac.New(sha256.New, salt)
	}
	e.day, e.mac = day, e.macs[day]
	return nil
}

// dayOf returns how many whole UTC days lie between 1970 and at, which is in
// microseconds; negative before 1970.
func dayOf(at int64) int64 { return floorDiv(at, utcDay.Microseconds()) }

// floorDiv returns a/b, rounded down.
func floorDiv(a, b int64) int64 {
	n := a / b
	if a%b < 0 {
		n--
	}
	return n
}
