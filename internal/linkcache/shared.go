package linkcache

import (
	"context"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/redis"
)

// The links that all replicas share in Redis.
//
// A miss asks Redis before Postgres, and a link that was asked of Postgres is stored
// there in the background. Nothing in Redis is believed: it may have been flushed,
// restored or failed over, and a link may have been on its way there for any time.
// So every link says at which place in the change log it was read, and is taken only
// if this process's own feed knows of no change since (recent.confirms). From then on
// the feed follows it like any other link. I4 rests on the feed alone, as without
// Redis. Links of another server, or from before a restart or failover of Postgres,
// have other keys, and so have links with other fields.
const (
	keepShared = time.Hour
	// maxFills is how many links wait to be stored; more are dropped. They are sent
	// in batches.
	maxFills, fillBatch = 8192, 128
)

// A fill is a link that is to be stored in Redis.
type fill struct {
	key  Key
	link *Link
	seen view
}

// A sharedLink is a value in Redis.
type sharedLink struct {
	Low  int64     `cbor:"1,keyasint"` // of the place at which the link was read
	Link savedLink `cbor:"2,keyasint"`
}

// hash returns the number that recent uses for a key. If two keys have the same number,
// that only costs a query.
func (c *Cache) hash(key Key) uint64 {
	return maphash.String(c.seed, key.code) ^ uint64(key.domain)*0x9e3779b97f4a7c15 //nolint:gosec // any number will do
}

func sharedKey(history string, key Key) string {
	return "signpost:link:" + layout + ":" + history + ":" + strconv.FormatInt(key.domain, 10) + ":" + key.code
}

// fill queues a link to be stored in Redis. It is dropped if the queue is full.
func (c *Cache) fill(f fill) {
	if c.redis == nil || f.link == nil || f.seen.place == nil || !c.redis.Up() {
		return
	}
	select {
	case c.fills <- f:
	default:
		c.metrics.sharedDropped.Inc()
	}
}

// fillRedis stores links in Redis until ctx ends.
func (c *Cache) fillRedis(ctx context.Context) {
	for {
		var puts []redis.Put
		select {
		case <-ctx.Done():
			return
		case f := <-c.fills:
			puts = append(puts, f.put())
		}
		for more := true; more && len(puts) < fillBatch; {
			select {
			case f := <-c.fills:
				puts = append(puts, f.put())
			default:
				more = false
			}
		}
		c.redis.Put(ctx, puts)
	}
}

func (f fill) put() redis.Put {
	value := sharedLink{f.seen.place.low, savedLink{Domain: f.key.domain, Code: f.key.code, Link: f.link, ValidAt: f.seen.at}}
	return redis.Put{Key: sharedKey(f.seen.place.history, f.key), Value: string(encode(value)), Keep: keepShared}
}

// lookupShared ends a load with the link in Redis, if it is there and can be trusted.
// It reports whether it did.
func (c *Cache) lookupShared(ctx context.Context, s *shard, l *load) (ended bool) {
	if c.redis == nil || l.renews {
		return false
	}
	seen := c.look()
	if seen.place == nil {
		return false
	}
	value, ok := c.redis.Get(ctx, sharedKey(seen.place.history, l.key))
	if !ok {
		return false
	}
	link, validAt, result := c.believe(l.key, value, seen)
	c.metrics.shared.WithLabelValues(result).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if link == nil || l.touched || seen.epoch != c.epoch.Load() {
		l.touched = false // Postgres is asked next
		return false
	}
	s.add(&entry{key: l.key, link: link, validAt: validAt, epoch: seen.epoch})
	c.dirty.Store(true)
	delete(s.loads, l.key)
	l.link = link
	close(l.done)
	return true
}

// believe returns the link in a value of Redis, if it is certain to be right.
func (c *Cache) believe(key Key, value string, seen view) (link *Link, validAt int64, result string) {
	if value == "" {
		return nil, 0, "none"
	}
	var v sharedLink
	if n, err := decode(strings.NewReader(value), &v); err != nil || n != len(value) ||
		NewKey(v.Link.Domain, v.Link.Code) != key || !v.Link.Link.valid() {
		return nil, 0, "damaged"
	}
	validAt = min(v.Link.ValidAt, seen.at)
	if !c.recent.confirms(c.hash(key), v.Low) || seen.at-max(validAt, seen.epoch.followed.Load()) > c.staleMax {
		return nil, 0, "outdated"
	}
	return v.Link.Link, validAt, "used"
}
