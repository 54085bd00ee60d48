package api

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

const (
	// An address may fail this often at once, and then once more in each interval.
	failuresAtOnce  = 10
	failureInterval = 6 * time.Second
	// Memory is bounded: under an attack from more addresses than this, those that were
	// not seen for the longest time are removed.
	maxAddresses = 10_000
	maxValid     = 1_000
	validFor     = time.Hour
)

// limiter limits wrong tokens: it bounds how often each address may send one, and
// remembers which tokens were valid. It may be used concurrently.
type limiter struct {
	byAddress *otter.Cache[netip.Prefix, *allowance]
	valid     *otter.Cache[[sha256.Size]byte, struct{}]
}

// allowance says how often an address may still fail. Tries under way count as failed
// until they end, so that concurrent guesses get no more tries than successive ones.
type allowance struct {
	mu     sync.Mutex
	left   *rate.Limiter // does not count those under way
	trying int
	ended  chan struct{} // closed when a try ends
}

func newAllowance() *allowance {
	return &allowance{left: rate.NewLimiter(rate.Every(failureInterval), failuresAtOnce), ended: make(chan struct{})}
}

func newLimiter() *limiter {
	return &limiter{
		byAddress: otter.Must(&otter.Options[netip.Prefix, *allowance]{
			MaximumSize: maxAddresses,
			// After this long without a try, an address has its full allowance again.
			ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *allowance](2 * failuresAtOnce * failureInterval),
		}),
		valid: otter.Must(&otter.Options[[sha256.Size]byte, struct{}]{
			MaximumSize:      maxValid,
			ExpiryCalculator: otter.ExpiryWriting[[sha256.Size]byte, struct{}](validFor),
		}),
	}
}

// of returns the allowance of an address.
func (l *limiter) of(address netip.Prefix) *allowance {
	if known, ok := l.byAddress.GetIfPresent(address); ok {
		return known
	}
	a, _ := l.byAddress.SetIfAbsent(address, newAllowance())
	return a
}

// begin begins a try, which end has to end. If the try is not allowed, begin returns
// how long the address has to wait. As long as it depends on tries under way whether
// this one is allowed, begin waits for them, or until ctx ends.
func (a *allowance) begin(ctx context.Context) (wait time.Duration, err error) {
	for {
		wait, ended := a.try()
		if ended == nil {
			return wait, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// try begins a try; it has done so if wait is 0 and ended is nil. If another try has to
// end first, ended is closed when one does.
func (a *allowance) try() (wait time.Duration, ended <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	missing := 1 + float64(a.trying) - a.left.Tokens()
	switch {
	case missing <= 0:
		a.trying++
		return 0, nil
	case a.trying > 0:
		return 0, a.ended
	}
	return max(1, time.Duration(missing*float64(failureInterval))), nil
}

// end ends a try. A try that did not fail leaves the allowance as it was.
func (a *allowance) end(failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trying--
	if failed {
		a.left.Allow() // there is one: try has made sure of that
	}
	close(a.ended)
	a.ended = make(chan struct{})
}

// setValid notes that a token was valid, by its hash.
func (l *limiter) setValid(hash [sha256.Size]byte) { l.valid.Set(hash, struct{}{}) }

// setInvalid notes that a token is no longer valid.
func (l *limiter) setInvalid(hash [sha256.Size]byte) { l.valid.Invalidate(hash) }

// wasValid reports whether a token was valid within the last hour.
func (l *limiter) wasValid(hash [sha256.Size]byte) bool {
	_, ok := l.valid.GetIfPresent(hash)
	return ok
}

// networkOf returns the network that counts as one address: an IPv4 address, or the /64
// of an IPv6 address, which one subscriber has alone.
func networkOf(address netip.Addr) netip.Prefix {
	bits := 32
	if address.Is6() && !address.Is4In6() {
		bits = 64
	}
	network, _ := address.Unmap().Prefix(bits) // the zero Prefix for the zero Addr
	return network
}
