package worker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/phuslu/iploc"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/queries"
)

const (
	eventClicked = "clicked"
	hostMax      = 255 // bytes, as of a DNS name
	quarter      = 15 * time.Minute
)

// event is a click as it goes into the events table, with its place in the
// batch.
type event struct {
	position int
	row      queries.CopyClicksParams
}

// enricher turns clicks into events. It is for one batch, in one goroutine.
type enricher struct {
	agents    *agents
	salts     *salts
	day       int64 // since 1970, of mac's salt
	mac       hash.Hash
	sum       []byte
	input     []byte
	countries map[string]*string
}

func (d *deps) newEnricher() *enricher {
	return &enricher{agents: d.agents, salts: d.salts, countries: map[string]*string{}}
}

// events returns the clicks as events, oldest first. Only reading a day's salt
// can fail.
func (e *enricher) events(ctx context.Context, batch []clicks.Click) ([]event, error) {
	events := make([]event, len(batch))
	visitors := make([]int64, len(batch))
	for i := range batch {
		c := &batch[i]
		visitor, err := e.visitor(ctx, c)
		if err != nil {
			return nil, err
		}
		visitors[i] = visitor
		a := e.agents.get(c.UserAgent)
		events[i] = event{i, queries.CopyClicksParams{
			OccurredAt: c.At, URLID: &c.URLID, UserID: &c.UserID, Visitor: &visitors[i],
			Bot: a.bot, EventType: eventClicked, Country: e.country(c.IP),
			Browser: a.browser, OS: a.os, Device: a.device, ReferrerHost: referrerHost(c.Referrer),
		}}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.row.OccurredAt.Compare(b.row.OccurredAt) })
	return events, nil
}

// visitor is the first 8 bytes of HMAC-SHA256(salt of the click's UTC day,
// address NUL user agent): the same for one visitor within a day, and nobody's
// once the salt is destroyed.
func (e *enricher) visitor(ctx context.Context, c *clicks.Click) (int64, error) {
	if day := floorDay(c.At); e.mac == nil || day != e.day {
		salt, err := e.salts.get(ctx, day)
		if err != nil {
			return 0, err
		}
		e.day, e.mac = day, hmac.New(sha256.New, salt)
	}
	ip := c.IP.As16()
	e.input = append(e.input[:0], ip[:]...)
	e.input = append(e.input, 0)
	e.input = append(e.input, c.UserAgent...)
	e.mac.Reset()
	e.mac.Write(e.input)
	e.sum = e.mac.Sum(e.sum[:0])
	return int64(binary.BigEndian.Uint64(e.sum)), nil
}

// country returns the two letters of the country that ip is registered in, and
// nil for one that is nowhere. (IP2Location LITE data.)
func (e *enricher) country(ip netip.Addr) *string {
	if !ip.IsValid() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || !ip.IsGlobalUnicast() {
		return nil
	}
	code := iploc.IPCountry(ip)
	if len(code) != 2 || code == "ZZ" {
		return nil
	}
	known, ok := e.countries[code]
	if !ok {
		known = &code
		e.countries[code] = known
	}
	return known
}

// referrerHost returns the host of a Referer header, lower-case and without
// user, port and trailing dot; nil when there is none.
func referrerHost(referrer string) *string {
	_, rest, found := strings.Cut(referrer, "://")
	if !found {
		return nil
	}
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") {
		rest = rest[:i]
	}
	host := strings.ToLower(strings.TrimSuffix(rest, "."))
	if host == "" || len(host) > hostMax || strings.ContainsAny(host, " \t\"<>") {
		return nil
	}
	return &host
}

// floorDay returns the number of t's UTC day since 1970.
func floorDay(t time.Time) int64 {
	const day = 24 * 60 * 60
	seconds := t.Unix()
	n := seconds / day
	if seconds%day < 0 {
		n--
	}
	return n
}
