package api

import (
	"context"
	"crypto/sha256"
	"net/netip"
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

// allowance says how often an address may still fail. Its tries take turns, so that
// concurrent guesses get no more tries than successive ones.
type allowance struct {
	turn chan struct{} // has an element while a try is under way
	left *rate.Limiter
}

func newAllowance() *allowance {
	return &allowance{turn: make(chan struct{}, 1), left: rate.NewLimiter(rate.Every(failureInterval), failuresAtOnce)}
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

// begin begins a try, which end has to end. It waits for its turn, or until ctx ends. If
// the try is not allowed, begin returns how long the address has to wait.
func (a *allowance) begin(ctx context.Context) (wait time.Duration, err error) {
	if wait := a.wait(); wait > 0 {
		return wait, nil
	}
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if wait = a.wait(); wait > 0 {
		<-a.turn
	}
	return wait, nil
}

// wait returns how long it takes until the address may fail again.
func (a *allowance) wait() time.Duration {
	missing := 1 - a.left.Tokens()
	if missing <= 0 {
		return 0
	}
	return max(1, time.Duration(missing*float64(failureInterval)))
}

// end ends a try. A try that did not fail leaves the allowance as it was.
func (a *allowance) end(failed bool) {
	if failed {
		a.left.Allow() // there is one: begin has made sure of that
	}
	<-a.turn
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
