package drive

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clicks is the account of the clicks that clients try. Every attempt has a marker of
// its own, which is stored in its event as the host of the referrer. It is safe for
// concurrent use.
type Clicks struct {
	// Run distinguishes the markers of this run from those of other runs in the same
	// database. If it is empty, every click in the database must be an attempt of this
	// run.
	Run string

	mu       sync.Mutex
	attempts []attempt // the index is the marker
	answered int
	last     time.Time     // when the last answer came
	gap      time.Duration // the longest time without an answer
	statuses map[string]int
}

type attempt struct {
	phase    int // in which it ended
	answered bool
}

// agents are the browsers and robots that clients claim to be.
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

// Follow follows a link. The attempt belongs to the phase of the run that phase returns
// when the answer is there: what happens to a click happens before that.
func (c *Clicks) Follow(addr, path string, phase func() int) Answer {
	c.mu.Lock()
	marker := len(c.attempts)
	c.attempts = append(c.attempts, attempt{})
	c.mu.Unlock()
	a := Ask(http.MethodGet, addr, path, agents[marker%len(agents)].name, "https://"+c.host(marker)+"/page")
	c.note(marker, a.Status, phase())
	return a
}

func (c *Clicks) host(marker int) string {
	if c.Run == "" {
		return fmt.Sprintf("m%d.example.org", marker)
	}
	return fmt.Sprintf("m%d.%s.example.org", marker, c.Run)
}

func (c *Clicks) note(marker int, status string, phase int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.statuses == nil {
		c.statuses = map[string]int{}
	}
	c.statuses[status]++
	c.attempts[marker].phase = phase
	if status != "302" {
		return
	}
	now := time.Now()
	if !c.last.IsZero() {
		c.gap = max(c.gap, now.Sub(c.last))
	}
	c.last = now
	c.attempts[marker].answered = true
	c.answered++
}

// Answered returns how many attempts were answered with a redirect so far.
func (c *Clicks) Answered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// Saw returns how often clients saw each status, and the longest time without a
// redirect. It must be called only when no client is at work any more.
func (c *Clicks) Saw() (statuses map[string]int, gap time.Duration) { return c.statuses, c.gap }

// Tally compares attempts with their events.
type Tally struct {
	Attempted, Answered int
	Counted             int // events of the attempts
	Bots                int // events that count as clicks of robots
	Missing             int // attempts that were answered and have no event
	Doubled             int // attempts with more than one event
	Mistaken            int // robots that count as people, or the reverse
}

// Add adds another tally to this one.
func (t *Tally) Add(other Tally) {
	t.Attempted += other.Attempted
	t.Answered += other.Answered
	t.Counted += other.Counted
	t.Bots += other.Bots
	t.Missing += other.Missing
	t.Doubled += other.Doubled
	t.Mistaken += other.Mistaken
}

// Compare compares the attempts of each phase with the events in the database. unknown
// is the number of markers among the events that belong to no attempt.
func (c *Clicks) Compare(ctx context.Context, db *pgx.Conn) (phases map[int]Tally, unknown int, err error) {
	pattern := "%"
	if c.Run != "" {
		pattern = "%." + c.Run + ".example.org"
	}
	rows, err := db.Query(ctx, `
		SELECT COALESCE(referrer_host, ''), count(*), count(*) FILTER (WHERE bot)
		FROM events WHERE event_type = 'clicked' AND COALESCE(referrer_host, '') LIKE $1 GROUP BY 1`, pattern)
	if err != nil {
		return nil, 0, fmt.Errorf("count clicks: %w", err)
	}
	type count struct{ clicks, bots int }
	counted := map[string]count{}
	var host string
	var n count
	_, err = pgx.ForEachRow(rows, []any{&host, &n.clicks, &n.bots}, func() error { counted[host] = n; return nil })
	if err != nil {
		return nil, 0, fmt.Errorf("count clicks: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	phases = map[int]Tally{}
	for marker, a := range c.attempts {
		host := c.host(marker)
		n := counted[host]
		delete(counted, host)
		one := Tally{Attempted: 1, Counted: n.clicks, Bots: n.bots}
		one.Answered = number(a.answered)
		one.Missing = number(a.answered && n.clicks == 0)
		one.Doubled = number(n.clicks > 1)
		one.Mistaken = number(n.clicks > 0 && agents[marker%len(agents)].bot != (n.bots > 0))
		t := phases[a.phase]
		t.Add(one)
		phases[a.phase] = t
	}
	return phases, len(counted), nil
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}
