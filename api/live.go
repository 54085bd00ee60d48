package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/live"
)

const maxListeners = 100 // of a process

// newListeners returns the places of clients that listen to clicks. They cost a connection
// and a goroutine each, and those of the dashboard one short query a second.
func newListeners(active prometheus.Gauge) *watchers {
	return &watchers{
		places: newQuota(maxListeners, active, errListeners, errListenersHalf),
		look:   500 * time.Millisecond, beat: 15 * time.Second, life: 10 * time.Minute,
	}
}

var (
	errListeners     = unavailable("too many clients listen to clicks, try again later")
	errListenersHalf = tooMany("too many clients listen to clicks with this token", time.Second)
)

// live sends the clicks of all links, and linkLive those of one, as server-sent events,
// while they are ingested. The event ready comes first, with the id from which on
// nothing is left out. A client that comes back within some minutes with the last id as
// Last-Event-ID, as an EventSource does, gets what it missed; some clicks may come twice.
func (a *API) live(c *fiber.Ctx) error { return a.listen(c, 0, a.holderOf(actorOf(c))) }

func (a *API) linkLive(c *fiber.Ctx) error {
	id, err := idParam(c)
	if err != nil {
		return err
	}
	return a.listen(c, id, a.holderOf(actorOf(c)))
}

func (a *API) listen(c *fiber.Ctx, urlID int64, holds holder) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	actor := actorOf(c)
	leave, err := a.listeners.places.take(actor, 1)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	clicks, err := a.beginLive(ctx, actor, urlID, c.Get("Last-Event-ID"))
	if err != nil {
		leave()
		return err
	}
	c.Set(fiber.HeaderContentType, "text/event-stream")
	c.Set("X-Accel-Buffering", "no") // nginx would hold events back
	now := time.Now()
	l := &listener{
		progress: progress{api: a, conn: c.Context().Conn(), actor: actor, holds: holds, checked: now, until: now.Add(a.listeners.life)},
		clicks:   clicks,
	}
	a.stream(c, l.next, func() { clicks.Close(); leave() })
	return nil
}

// beginLive begins to listen, which reads what came since the last id.
func (a *API) beginLive(ctx context.Context, actor Actor, urlID int64, last string) (*live.Listener, error) {
	leave, err := a.bulkheads.lists.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return a.service.Live(ctx, actor, urlID, last)
}

// listener is a client that listens to clicks.
type listener struct {
	progress // its connection and token
	clicks   *live.Listener
	greeted  bool
}

// next waits for clicks. It ends when the token does.
func (l *listener) next() ([]byte, error) {
	if time.Now().After(l.until) || l.tokenEnded() {
		return nil, io.EOF
	}
	if !l.greeted {
		l.greeted = true
		return l.write(l.clicks.First(), true), nil
	}
	beat := time.NewTimer(l.api.listeners.beat)
	defer beat.Stop()
	look := time.NewTicker(l.api.listeners.look)
	defer look.Stop()
	for {
		select {
		case <-l.api.stopped:
			return nil, io.EOF
		case <-beat.C:
			return l.keepAlive(), nil
		case page := <-l.clicks.Pages():
			if only := l.clicks.Only(page); len(only.Clicks) > 0 || only.Missed > 0 {
				return l.write(only, false), nil
			}
		case <-look.C:
			if hungUp(l.conn) || l.tokenEnded() {
				return nil, io.EOF
			}
		}
	}
}

// keepAlive returns a comment. It also moves the id on, so that a client that has heard
// nothing for long does not come back with an id that is too old.
func (l *listener) keepAlive() []byte {
	l.buf.Reset()
	l.buf.WriteString(":\n")
	if at := l.clicks.Position(); at != "" {
		fmt.Fprintf(&l.buf, "id: %s\n", at)
	}
	l.buf.WriteString("\n")
	return l.buf.Bytes()
}

// write returns the events of a page. Only the last one has the id: a client that got
// only a part of a page gets all of it once more.
func (l *listener) write(page live.Page, ready bool) []byte {
	l.buf.Reset()
	if ready {
		l.buf.WriteString("retry: 1000\n")
	}
	if page.Missed > 0 {
		writeEvent(&l.buf, "missed", fmt.Appendf(nil, `{"clicks":%d}`, page.Missed))
	}
	for i := range page.Clicks {
		if i == len(page.Clicks)-1 && !ready {
			fmt.Fprintf(&l.buf, "id: %s\n", page.ID)
		}
		writeEvent(&l.buf, "click", page.Clicks[i].JSON())
	}
	if ready {
		fmt.Fprintf(&l.buf, "id: %s\n", page.ID)
		writeEvent(&l.buf, "ready", []byte("{}"))
	}
	return l.buf.Bytes()
}

func writeEvent(b *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(b, "event: %s\ndata: %s\n\n", name, data)
}
