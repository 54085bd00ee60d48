package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// A Put is a value to be stored. It replaces the one under its key.
type Put struct {
	Key, Value string
	// Keep is how long the value stays, if it is not replaced.
	Keep time.Duration
}

// Put stores values, or does nothing while Redis is not there. It waits for at most
// half a second, or a second while a connection is being made.
func (c *Client) Put(ctx context.Context, puts []Put) {
	if len(puts) == 0 {
		return
	}
	conn, done := c.allow("put", len(puts))
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	began := time.Now()
	sets := make(rueidis.Commands, len(puts))
	for i, p := range puts {
		sets[i] = (*conn).B().Set().Key(p.Key).Value(p.Value).Px(p.Keep).Build()
	}
	var lost error
	for _, reply := range (*conn).DoMulti(ctx, sets...) {
		err := reply.Error()
		if err == nil {
			c.metrics.requests.WithLabelValues("put", "stored").Inc()
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", errTimeout, err)
		}
		result := fault(err)
		c.metrics.requests.WithLabelValues("put", result).Inc()
		if result != "error" {
			lost = err
		}
	}
	c.metrics.seconds.WithLabelValues("put").Observe(time.Since(began).Seconds())
	// A Redis that is full refuses to store and still answers.
	done(lost)
}
