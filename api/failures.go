package api

import (
	"crypto/sha256"
	"net/netip"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

const (
	// An address may fail this often at once, and again once each interval.
	failuresAtOnce  = 10
	failureInterval = 6 * time.Second
	// Memory is bounded: under an attack from more addresses than this, the
	// ones unseen for longest are forgotten.
	maxAddresses = 10_000
	maxProven    = 1_000
	provenFor    = time.Hour
)

// failures remembers which addresses failed to authenticate, and which tokens
// did not. It may be used concurrently.
type failures struct {
	byAddress *otter.Cache[netip.Prefix, *rate.Limiter]
	valid     *otter.Cache[[sha256.Size]byte, struct{}]
}

func newFailures() *failures {
	return &failures{
		byAddress: otter.Must(&otter.Options[netip.Prefix, *rate.Limiter]{
			MaximumSize: maxAddresses,
			// An address that kept quiet this long has its full allowance.
			ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *rate.Limiter](2 * failuresAtOnce * failureInterval),
		}),
		valid: otter.Must(&otter.Options[[sha256.Size]byte, struct{}]{
			MaximumSize:      maxProven,
			ExpiryCalculator: otter.ExpiryWriting[[sha256.Size]byte, struct{}](provenFor),
		}),
	}
}

// wait returns how long an address has to wait before its next try, 0 if it
// may try now.
func (f *failures) wait(address netip.Prefix) time.Duration {
	limiter, ok := f.byAddress.GetIfPresent(address)
	if !ok {
		return 0
	}
	missing := 1 - limiter.Tokens()
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing * float64(failureInterval))
}

// add notes that an address failed.
func (f *failures) add(address netip.Prefix) {
	fresh := rate.NewLimiter(rate.Every(failureInterval), failuresAtOnce)
	limiter, _ := f.byAddress.SetIfAbsent(address, fresh)
	limiter.Allow()
}

// prove notes that a token was valid, by its hash.
func (f *failures) prove(hash [sha256.Size]byte) { f.valid.Set(hash, struct{}{}) }

// proven reports whether a token was valid within the last hour.
func (f *failures) proven(hash [sha256.Size]byte) bool {
	_, ok := f.valid.GetIfPresent(hash)
	return ok
}

// networkOf returns what counts as one address: an IPv4 address, or the /64
// that one IPv6 subscriber has to itself.
func networkOf(address netip.Addr) netip.Prefix {
	bits := 32
	if address.Is6() && !address.Is4In6() {
		bits = 64
	}
	network, _ := address.Unmap().Prefix(bits) // the zero Prefix for the zero Addr
	return network
}
