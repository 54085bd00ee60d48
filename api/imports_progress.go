package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/service"
)

// watchers bounds how many clients watch imports at once, because each makes this
// process read one row from the database several times a second.
type watchers struct {
	places *quota
	// look is how often the import is read and the connection checked. beat is how
	// often something is sent while nothing changes, so that proxies keep the
	// connection. life is how long a stream lasts at most.
	look, beat, life time.Duration
}

const maxWatchers = 100 // of a process

func newWatchers(active prometheus.Gauge) *watchers {
	return &watchers{
		places: newQuota(maxWatchers, active, errWatchers, errWatchersHalf),
		look:   500 * time.Millisecond, beat: 15 * time.Second, life: 10 * time.Minute,
	}
}

var (
	errWatchers     = unavailable("too many clients watch imports, ask for the import itself")
	errWatchersHalf = tooMany("too many clients watch imports with this token, ask for the import itself", time.Second)
)

// importProgress sends the progress of an import as server-sent events: one event after
// each change, and a last one named end when nothing will change any more.
//
// The id of an event stands for the state that it reports. An EventSource that has
// received the last event reconnects with its id; it is answered 204, which tells it
// not to come back.
func (a *API) importProgress(c *fiber.Ctx) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	id, err := idParam(c)
	if err != nil {
		return err
	}
	actor := actorOf(c)
	imp, err := a.readProgress(c.UserContext(), actor, id)
	if err != nil {
		return err
	}
	if imp.Rests() && c.Get("Last-Event-ID") == progressID(imp.Import) {
		c.Status(fiber.StatusNoContent)
		return nil
	}
	leave, err := a.watchers.places.take(actor, 1)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, "text/event-stream")
	c.Set("X-Accel-Buffering", "no") // nginx would hold events back
	now := time.Now()
	p := &progress{
		api: a, conn: c.Context().Conn(), actor: actor, holds: a.holderOf(actor), checked: now,
		last: imp, until: now.Add(a.watchers.life),
	}
	a.stream(c, p.next, leave)
	return nil
}

func (a *API) readProgress(ctx context.Context, actor Actor, id int64) (service.ImportDetail, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	leave, err := a.bulkheads.imports.enter(ctx)
	if err != nil {
		return service.ImportDetail{}, err
	}
	defer leave()
	return a.service.GetImport(ctx, actor, id)
}

// progress is the state of an import that was last sent to one client.
type progress struct {
	api     *API
	conn    net.Conn
	actor   Actor
	holds   holder
	checked time.Time            // when the actor's token was last found valid
	last    service.ImportDetail // the state that was last sent, if told
	told    bool
	until   time.Time
	buf     bytes.Buffer
}

// next waits for a change to report. It ends when the token does; a client that comes
// back after that is answered 401.
func (p *progress) next() ([]byte, error) {
	if p.told && p.last.Rests() || time.Now().After(p.until) || p.tokenEnded() {
		return nil, io.EOF
	}
	if !p.told {
		return p.tell(p.last), nil
	}
	w := p.api.watchers
	beat := time.NewTimer(w.beat)
	defer beat.Stop()
	look := time.NewTicker(w.look)
	defer look.Stop()
	for {
		select {
		case <-p.api.stopped:
			return nil, io.EOF
		case <-beat.C:
			return []byte(":\n\n"), nil
		case <-look.C:
		}
		if hungUp(p.conn) || p.tokenEnded() {
			return nil, io.EOF
		}
		imp, err := p.api.readProgress(context.Background(), p.actor, p.last.ID)
		// While the database cannot be reached, the connection is kept, and the client
		// still gets the beat.
		if err == nil && ahead(p.last.Import, imp.Import) {
			return p.tell(imp), nil
		}
	}
}

// tokenEnded checks the token again if the last check is old enough.
func (p *progress) tokenEnded() bool {
	if time.Since(p.checked) < p.holds.every {
		return false
	}
	p.checked = time.Now()
	return p.holds.look(context.Background()) != nil
}

func (p *progress) tell(imp service.ImportDetail) []byte {
	p.last, p.told = imp, true
	p.buf.Reset()
	name := "progress"
	if imp.Rests() {
		name = "end"
	}
	data, err := json.Marshal(imp)
	if err != nil { // never happens: strings and numbers only
		data = []byte("{}")
	}
	fmt.Fprintf(&p.buf, "retry: 1000\nid: %s\nevent: %s\ndata: %s\n\n", progressID(imp.Import), name, data)
	return p.buf.Bytes()
}

// progressID returns the id of the event for the current state of an import.
func progressID(i Import) string {
	m := measures(i)
	return fmt.Sprintf("%s-%d-%d-%d-%d", i.State, m[0], m[1], m[2], m[3])
}

// measures are numbers that only grow while an import goes on.
func measures(i Import) [4]int64 {
	return [4]int64{i.BytesReceived, int64(i.ChunksDone), i.RowsDone(), i.RowsRemoved + i.RowsKept}
}

// ahead reports whether an import is further than before. One that is behind, as one read
// from a replica that has just become the primary may be, is ignored: progress never
// goes backwards.
func ahead(before, now Import) bool {
	was, is := measures(before), measures(now)
	for i := range is {
		if is[i] < was[i] {
			return false
		}
	}
	return now.State != before.State || is != was
}
