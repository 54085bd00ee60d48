package worker

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
)

// A device changes its IPv6 address within its /64; IPv4 addresses are the same in both
// of their forms. Salts are read once a day, so the day needs no database.
func TestVisitorNetworks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := dayOf(now.UnixMicro())
	e := &enricher{macs: map[int64]hash.Hash{day: hmac.New(sha256.New, []byte("salt"))}}
	visitor := func(address string) int64 {
		t.Helper()
		v, err := e.visitor(t.Context(), &clicks.Click{At: now, IP: netip.MustParseAddr(address), UserAgent: chrome})
		require.NoError(t, err)
		return v
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"192.0.2.1", "::1", false},
	} {
		if got := visitor(test.a) == visitor(test.b); got != test.same {
			t.Errorf("%s and %s are one visitor: %v, want %v", test.a, test.b, got, test.same)
		}
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]int64{
		"1969-12-31T23:59:59.999999Z": -1, "1970-01-01T00:00:00Z": 0, "1970-01-01T23:59:59.999999Z": 0,
		"1970-01-02T00:00:00Z": 1, "1969-12-31T00:00:00Z": -1, "1969-12-30T23:59:59Z": -2,
	} {
		when, err := time.Parse(time.RFC3339Nano, at)
		require.NoError(t, err)
		if got := dayOf(when.UnixMicro()); got != want {
			t.Errorf("%s: day %d, want %d", at, got, want)
		}
	}
}

// BenchmarkEnrich measures the cost of a click before it is copied. The goal is 2 µs.
func BenchmarkEnrich(b *testing.B) {
	const n = 10_000
	batch, positions, now := make([]clicks.Click, n), make([]int32, n), time.Now()
	for i := range batch {
		batch[i] = click(int64(i%500), now)
		batch[i].UserAgent = fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36", i%200)
		batch[i].IP = netip.AddrFrom4([4]byte{byte(11 + i%180), byte(i >> 8), byte(i), 1})
		positions[i] = int32(i)
	}
	agents, err := newAgents(visits.ReadAgent)
	if err != nil {
		b.Fatal(err)
	}
	e := &enricher{agents: agents, marks: &visits.Marks{}, macs: map[int64]hash.Hash{}}
	e.macs[dayOf(batch[0].At.UnixMicro())] = hmac.New(sha256.New, make([]byte, saltSize))
	b.ReportAllocs()
	for b.Loop() {
		events, err := e.events(b.Context(), batch, positions)
		if err != nil {
			b.Fatal(err)
		}
		var buf []byte
		for i := range events {
			buf = appendEvent(buf[:0], &events[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/click")
}
