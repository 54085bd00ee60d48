package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// load sends the requests of the clients and notes the answers.
type load struct {
	sys    *system
	clicks drive.Clicks
	drops  drive.Drops
	hot    []string
	bad    []badRequest

	mu       sync.Mutex
	phases   []*phase
	coldUsed int
}

// phase is a stretch of the run: one fault, or the time between two.
type phase struct {
	name       string
	interrupts bool // it ends an api that has requests in hand: those may fail
	drops      bool // clicks may be dropped, if they are counted

	lasted, first, whole time.Duration
	died                 time.Time      // when the api was killed
	failed               map[string]int // requests for links that failed, by the answer that came instead
	uncached, refused    int            // requests for new links, and the 503 among them
	wrong                map[string]int // answers that must not be
	malformed            int
	dropped              float64
}

const (
	hotLinks  = 20
	coldLinks = 30_000
	// Requests a second: for links that are cached, for links that nobody has asked for
	// before, and malformed ones.
	hotRate, coldRate, badRate = 150, 20, 20
	// inHand is how long after its kill a process may still take requests: until
	// the kernel has closed its sockets, for which it has to get processor time.
	inHand = 250 * time.Millisecond
)

func newLoad(sys *system) *load {
	return &load{sys: sys, clicks: drive.Clicks{Run: strings.ToLower(rand.Text()[:8])}, bad: badRequests(sys.token)}
}

// prepare makes the links and brings the hot ones into every replica's cache.
func (l *load) prepare(ctx context.Context) error {
	err := l.sys.exec(ctx, `
		WITH u AS (INSERT INTO users (username, email) VALUES ('chaos-' || $1::text, $1 || '@chaos.example.org') RETURNING id)
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT u.id, kind || $1 || n, 'https://example.org/'
		FROM u, (SELECT 'hot' AS kind, generate_series(1, $2::int) AS n UNION ALL SELECT 'cold', generate_series(1, $3::int)) AS l`,
		l.clicks.Run, hotLinks, coldLinks)
	if err != nil {
		return fmt.Errorf("make links: %w", err)
	}
	for n := range hotLinks {
		l.hot = append(l.hot, fmt.Sprintf("hot%s%d", l.clicks.Run, n+1))
	}
	l.begin(phase{name: "(start)"})
	if err := l.warm(ctx); err != nil {
		return err
	}
	l.askDrops(ctx)
	l.phases[0].dropped = 0 // clicks that were dropped before excuse nothing
	return nil
}

// warm follows each hot link on each replica.
func (l *load) warm(ctx context.Context) error {
	ids, err := l.sys.containers(ctx, "api")
	if err != nil {
		return err
	}
	for _, id := range ids {
		ip, err := l.sys.ip(ctx, id, "front")
		if err != nil {
			return err
		}
		for _, code := range l.hot {
			if status := l.click(ip+":8080", code).Status; status != "302" {
				return fmt.Errorf("a new link answered %s", status)
			}
		}
	}
	return nil
}

// begin starts a phase. Requests from now on belong to it.
func (l *load) begin(p phase) *phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.failed, p.wrong, p.first, p.whole = map[string]int{}, map[string]int{}, -1, -1
	l.phases = append(l.phases, &p)
	return &p
}

// noteDeath notes that the phase's api was killed just now.
func (l *load) noteDeath() {
	l.note(l.current(), func(p *phase) { p.died = time.Now() })
}

// fail counts a request that failed. That must not be, unless an api had it in
// hand when it was killed: the load balancer sends nothing more to a dead one, and
// elsewhere what it could not send.
func (p *phase) fail(what string, got drive.Answer) {
	p.failed[got.Status]++
	cut := got.Status == "502" || got.Status == drive.NoAnswer || got.Status == drive.BrokenAnswer
	switch {
	case !p.interrupts || !cut:
		p.wrong[what+": "+got.String()]++
	case !p.died.IsZero() && got.Began.After(p.died.Add(inHand)):
		p.wrong[fmt.Sprintf("%s, asked for more than %s after the kill: %s", what, inHand, got)]++
	}
}

func (l *load) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.phases) - 1
}

// run lets the clients run until ctx ends.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		drive.Every(ctx, hotRate, func(i int) {
			if got := l.click(l.sys.lb, l.hot[i%len(l.hot)]); got.Status != "302" {
				l.failed("cached link", got)
			}
		})
	})
	wg.Go(func() { drive.Every(ctx, coldRate, func(int) { l.newLink() }) })
	wg.Go(func() { drive.Every(ctx, badRate, func(i int) { l.send(l.bad[i%len(l.bad)]) }) })
	for ctx.Err() == nil {
		l.askDrops(ctx)
		drive.Pause(ctx, 500*time.Millisecond)
	}
}

func (l *load) note(phase int, change func(*phase)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l.phases[phase])
}

// failed notes a request that failed, in the phase that it failed in: an api that is
// killed may have requests in hand that were sent before.
func (l *load) failed(what string, got drive.Answer) {
	l.note(l.current(), func(p *phase) { p.fail(what, got) })
}

// click follows a link.
func (l *load) click(addr, code string) drive.Answer {
	return l.clicks.Follow(addr, "/"+code, l.current)
}

// newLink follows a link that no cache knows. It must lead somewhere or be
// refused with a time to try again.
func (l *load) newLink() bool {
	l.mu.Lock()
	l.coldUsed = l.coldUsed%coldLinks + 1
	code := fmt.Sprintf("cold%s%d", l.clicks.Run, l.coldUsed)
	l.mu.Unlock()
	got := l.click(l.sys.lb, code)
	refused := got.Status == "503" && got.Again
	l.note(l.current(), func(p *phase) {
		p.uncached++
		if refused {
			p.refused++
		}
	})
	if got.Status != "302" && !refused {
		l.failed("uncached link", got)
	}
	return got.Status == "302"
}

// newLinks reports whether several links in a row could be looked up, on
// whichever replica the load balancer chose.
func (l *load) newLinks(context.Context) bool {
	for range 3 {
		if !l.newLink() {
			return false
		}
	}
	return true
}

// redirects reports whether a cached link is served.
func (l *load) redirects(context.Context) bool {
	return l.click(l.sys.lb, l.hot[0]).Status == "302"
}

// keepsClicks reports whether every replica keeps clicks and drops none.
func (l *load) keepsClicks(ctx context.Context) bool {
	before, dropped, err := l.clicksKept(ctx)
	if err != nil {
		return false
	}
	drive.Pause(ctx, 300*time.Millisecond)
	after, droppedAfter, err := l.clicksKept(ctx)
	if err != nil || droppedAfter > dropped {
		return false
	}
	for id, n := range after {
		if n <= before[id] {
			return false
		}
	}
	return true
}

// clicksKept returns how many clicks each replica has kept, by its address, and how many
// all have dropped.
func (l *load) clicksKept(ctx context.Context) (kept map[string]float64, dropped float64, err error) {
	addrs, err := l.sys.Admins(ctx)
	kept = map[string]float64{}
	for _, addr := range addrs {
		metrics, metricsErr := drive.Scrape(ctx, addr)
		drops, _ := metrics.Sum("signpost_clicks_dropped_total")
		kept[addr], dropped = metrics["signpost_clicks_appended_total"], dropped+drops
		err = errors.Join(err, metricsErr)
	}
	return kept, dropped, err
}

// askDrops notes how many clicks the replicas say they have dropped.
func (l *load) askDrops(ctx context.Context) {
	now := l.current()
	addrs, _ := l.sys.Admins(ctx) // of those that are up
	for _, addr := range addrs {
		more := l.drops.Ask(ctx, addr)
		l.note(now, func(p *phase) { p.dropped += more })
	}
}

// badRequest is a malformed request, byte by byte, and never the way to a click. It is
// HTTP enough for the load balancer to pass it on.
type badRequest struct {
	name, text string
}

func badRequests(token string) []badRequest {
	const end = "\r\nHost: chaos\r\nConnection: close\r\n"
	auth := "Authorization: Bearer " + token + "\r\n"
	post := func(path, kind, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1%s%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, end, auth, kind, len(body), body)
	}
	return []badRequest{
		{name: "half a JSON object", text: post("/urls", "application/json", `{"user_id": 1, "original_url": `)},
		{name: "JSON of the wrong types", text: post("/users", "application/json", `{"username": 7, "email": []}`)},
		{name: "a link that is none", text: post("/urls", "application/json", `{"user_id": 1, "original_url": "javascript:alert(1)"}`)},
		{name: "bytes instead of JSON", text: post("/urls", "application/json", "\xff\xfe\x00{}")},
		{name: "a ZIP file as CSV", text: post("/imports?kind=users", "text/csv", "PK\x03\x04\x00\x00\x00\x00\x00\x00")},
		{name: "no token", text: "GET /users HTTP/1.1" + end + "\r\n"},
		{name: "a wrong token", text: "GET /users HTTP/1.1" + end + "Authorization: Bearer nonsense\r\n\r\n"},
		{name: "a limit that is no number", text: "GET /users?limit=many HTTP/1.1" + end + auth + "\r\n"},
		{name: "a method that is not allowed", text: "DELETE /ready HTTP/1.1" + end + "\r\n"},
		{name: "a method that nobody knows", text: "BREW /ready HTTP/1.1" + end + "\r\n"},
		{name: "a path with broken percent signs", text: "GET /r/%zz%1 HTTP/1.1" + end + "\r\n"},
		{name: "a header that is too long", text: "GET /users HTTP/1.1" + end + "X-Long: " + strings.Repeat("x", 20_000) + "\r\n\r\n"},
	}
}

// send sends a malformed request, and notes the fault of its answer.
func (l *load) send(b badRequest) {
	now := l.current()
	fault := b.fault(l.sys.lb)
	l.note(now, func(p *phase) {
		p.malformed++
		if fault != "" {
			p.wrong["malformed ("+b.name+"): "+fault]++
		}
	})
}

// fault sends the request and returns the fault of the answer, if it has one: every
// error must be JSON with the status in it.
func (b badRequest) fault(addr string) string {
	conn, err := net.DialTimeout("tcp", addr, drive.Longest)
	if err != nil {
		return "no connection"
	}
	defer conn.Close() //nolint:errcheck // done with it
	_ = conn.SetDeadline(time.Now().Add(drive.Longest))
	// The answer may come before all was sent.
	_, _ = io.WriteString(conn, b.text)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	var body struct {
		Error string `json:"error"`
		Code  int    `json:"code"`
	}
	err = json.NewDecoder(resp.Body).Decode(&body)
	kind := resp.Header.Get("Content-Type")
	switch {
	case err != nil || body.Error == "" || !strings.HasPrefix(kind, "application/json"):
		return fmt.Sprintf("status %d in %s", resp.StatusCode, kind)
	case body.Code != resp.StatusCode:
		return fmt.Sprintf("status %d, but code %d", resp.StatusCode, body.Code)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "":
		return "503 without Retry-After"
	case resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError:
		return fmt.Sprintf("status %d", resp.StatusCode)
	}
	return ""
}
