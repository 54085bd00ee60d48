package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A Put is a value to be stored unless what is there is newer.
//
// Values of one key are ordered by Position, the place in a log up to which the
// writer knew everything, and where Subject is the same by Version too. What is
// there stays if its position is higher, or if it is of the same subject and
// its version is higher. A Mark, which takes a value away without bringing
// another, also yields to one of the same position.
type Put struct {
	Key  string
	Body string // opaque
	// Position, Subject and Version are at least 0 and less than 2^53.
	Position, Subject, Version int64
	Mark                       bool
	// Keep is how long the value stays, if nothing takes its place.
	Keep time.Duration
	// Until, if set, is a time of Redis's clock: then the value is not stored.
	// Nor does it shorten the life of the mark whose place it takes.
	Until time.Time
}

// form begins every value; another layout takes another one.
const form = "signpost1"

// putScript compares and stores in one step. What it cannot read, or would stay
// for ever, is none of ours and counts as nothing. Numbers are compared as doubles, hence the bound of 2^53.
var putScript = rueidis.NewLuaScript(`
local keep = tonumber(ARGV[6])
local limit = tonumber(ARGV[7])
if limit > 0 then
  local now = redis.call('TIME')
  local left = limit - (now[1] * 1000 + math.floor(now[2] / 1000))
  if left <= 0 then return 0 end
  keep = math.min(keep, left)
end
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'string' then
  local position, subject, version = string.match(old, '^` + form + ` (%d+) (%d+) (%d+)\n')
  if position and tonumber(position) < 2^53 and redis.call('PTTL', KEYS[1]) > 0 then
    local behind = tonumber(position) - tonumber(ARGV[2])
    if behind > 0 or behind == 0 and ARGV[5] == '1' then return 0 end
    if subject == ARGV[3] and tonumber(version) > tonumber(ARGV[4]) then return 0 end
    if limit > 0 then keep = math.max(keep, redis.call('PTTL', KEYS[1])) end
  end
end
redis.call('SET', KEYS[1], '` + form + ` ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. '\n' .. ARGV[1], 'PX', keep)
return 1`)

// Body returns the body of a value that Put stored, and the position it was
// stored with. ok is false for anything else.
func Body(value string) (body string, position int64, ok bool) {
	head, body, ok := strings.Cut(value, "\n")
	fields := strings.Split(head, " ")
	if !ok || len(fields) != 4 || fields[0] != form {
		return "", 0, false
	}
	position, err := strconv.ParseInt(fields[1], 10, 64)
	return body, position, err == nil
}

// Put stores values, or does nothing while Redis is not there. It waits for
// half a second at most, or while a connection is made a second.
func (c *Client) Put(ctx context.Context, puts []Put) {
	if len(puts) == 0 {
		return
	}
	conn := c.conn.Load()
	if !c.Up() || conn == nil {
		c.metrics.requests.WithLabelValues("put", "skipped").Add(float64(len(puts)))
		return
	}
	done, err := c.breaker.Allow()
	if err != nil {
		c.metrics.requests.WithLabelValues("put", "skipped").Add(float64(len(puts)))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	began := time.Now()
	execs := make([]rueidis.LuaExec, len(puts))
	for i, p := range puts {
		execs[i] = rueidis.LuaExec{Keys: []string{p.Key}, Args: p.args()}
	}
	var lost error
	for _, reply := range putScript.ExecMulti(ctx, *conn, execs...) {
		stored, err := reply.AsInt64()
		switch {
		case err != nil:
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: %w", errTimeout, err)
			}
			result := fault(err)
			c.metrics.requests.WithLabelValues("put", result).Inc()
			if result != "error" {
				lost = err
			}
		case stored == 1:
			c.metrics.requests.WithLabelValues("put", "stored").Inc()
		default:
			c.metrics.requests.WithLabelValues("put", "outdated").Inc()
		}
	}
	c.metrics.seconds.WithLabelValues("put").Observe(time.Since(began).Seconds())
	// A Redis that is full refuses to store and still answers.
	done(lost)
}

func (p *Put) args() []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	mark, until := "0", int64(0)
	if p.Mark {
		mark = "1"
	}
	if !p.Until.IsZero() {
		until = p.Until.UnixMilli()
	}
	return []string{
		p.Body, number(p.Position), number(p.Subject), number(p.Version), mark, number(p.Keep.Milliseconds()), number(until),
	}
}
