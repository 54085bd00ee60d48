package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// ledger is what the clients know: which markers they sent, which were answered.
type ledger struct {
	mu       sync.Mutex
	answered []bool // by marker
	total    int
	last     time.Time
	gap      time.Duration // longest time without any answer
	statuses map[string]int
}

func (l *ledger) attempt() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = append(l.answered, false)
	return len(l.answered) - 1
}

func (l *ledger) result(marker int, outcome string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.statuses == nil {
		l.statuses = map[string]int{}
	}
	l.statuses[outcome]++
	if outcome != "302" {
		return
	}
	now := time.Now()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
	l.answered[marker] = true
	l.total++
}

func (l *ledger) answeredSoFar() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// newClient makes one that follows nothing and repeats nothing: on a connection
// that it kept, Go sends a request again by itself when that was closed, and one
// marker would be two clicks.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       3 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// follow is one client: it follows random links on random replicas.
func (h *harness) follow(ctx context.Context, n int) {
	client := newClient()
	tick := time.NewTicker(time.Duration(h.clients) * time.Second / time.Duration(h.rate))
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		marker := h.ledger.attempt()
		url := "http://" + h.apis[(n+i)%2].addr + "/r/" + h.codes[(n*7+i)%len(h.codes)]
		h.ledger.result(marker, get(client, url, markerHost(marker), agents[marker%len(agents)].name))
	}
}

// markerHost is the referrer host that tells an attempt from all others.
func markerHost(marker int) string { return fmt.Sprintf("m%d.example.org", marker) }

// agents are what the clients say they are.
var agents = []struct {
	name string
	bot  bool
}{
	{"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", false},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36", false},
	{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", true},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1", false},
	{"curl/8.14.1", true},
}

// get follows one link; the answer counts only when all of it has arrived. The
// context of the run is left out: an attempt that began is waited for.
func get(client *http.Client, url, host, agent string) string {
	req, err := http.NewRequest(http.MethodGet, url, nil) //nolint:noctx // bounded by the client's timeout
	if err != nil {
		return "bad request"
	}
	req.Header.Set("Referer", "https://"+host+"/page")
	req.Header.Set("User-Agent", agent)
	resp, err := client.Do(req)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "broken answer"
	}
	return fmt.Sprint(resp.StatusCode)
}

func (h *harness) makeLinks(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	if _, err := conn.Exec(ctx, `INSERT INTO users (id, username, email) VALUES (1, 'torture', 'torture@example.org')`); err != nil {
		return err
	}
	for i := range h.links {
		h.codes = append(h.codes, fmt.Sprintf("link%d", i))
	}
	for _, code := range append(h.codes, changing) {
		if _, err := conn.Exec(ctx, `INSERT INTO urls (user_id, short_code, original_url) VALUES (1, $1, 'https://example.org/')`, code); err != nil {
			return err
		}
	}
	return nil
}

// waitReady waits until every replica can serve.
func (h *harness) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range h.procs {
		for p.role == "api" {
			resp, err := http.Get("http://" + p.addr + "/ready") //nolint:noctx // loopback
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("%s did not become ready; see its log in %s", p.name, h.dir)
			}
		}
	}
	return nil
}
