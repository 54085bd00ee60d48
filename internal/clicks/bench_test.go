package clicks

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkAppend measures one click, from many requests at once. cpu-ns/op is the time
// that the operating system charged the process, waits and wake-ups included.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []Durability{Process, Disk} {
		for _, callers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("%s/callers=%d", mode, callers), func(b *testing.B) {
				s, err := open(Options{Dir: b.TempDir(), Durability: mode}, realDisk(), patient)
				require.NoError(b, err)
				clicks := sampleClicks(1024)
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				before := cpuTime()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for i := rand.IntN(len(clicks)); pb.Next(); i++ {
						if err := s.Append(&clicks[i%len(clicks)]); err != nil {
							b.Error(err)
						}
					}
				})
				b.StopTimer()
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(s.Stats().Bytes)/float64(b.N), "disk-B/op")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkRead measures the cost of shipping for each click in this process, without
// the database.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("clicks=%d", n), func(b *testing.B) {
			o := Options{Dir: b.TempDir(), SegmentAge: time.Hour, SegmentBytes: backlogSegmentBytes, Log: slog.New(slog.DiscardHandler)}
			s, err := open(o, realDisk(), patient)
			require.NoError(b, err)
			for _, c := range sampleClicks(n) {
				if err := s.Append(&c); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.SealNow(b.Context()); err != nil {
				b.Fatal(err)
			}
			segs, err := s.Segments("")
			if err != nil || len(segs) != 1 {
				b.Fatal(segs, err)
			}
			size := 0
			before := cpuTime()
			for b.Loop() {
				batch, err := s.Read(segs[0])
				if err != nil || batch.Clicks != n {
					b.Fatal(batch.Clicks, err)
				}
				size = len(batch.Payload)
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/float64(n), "cpu-ns/click")
			perClick(b, n, size)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	const n = 10_000
	payload := EncodeBatch(testSegment, sampleClicks(n))
	before := cpuTime()
	for b.Loop() {
		if _, err := DecodeBatch(testSegment, payload); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/float64(n), "cpu-ns/click")
	perClick(b, n, len(payload))
}

func perClick(b *testing.B, n, size int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/click")
	b.ReportMetric(float64(size)/float64(n), "B/click")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sampleClicks returns clicks that look like traffic: Zipf over 10,000 links and 200
// user agents, with a visitor's address rarely seen twice.
func sampleClicks(n int) []Click {
	rng := rand.New(rand.NewPCG(1, 2))
	links, agents := rand.NewZipf(rng, 1.1, 1, 9999), rand.NewZipf(rng, 1.1, 1, 199)
	at := time.Date(2026, 1, 31, 9, 5, 7, 0, time.UTC)
	clicks := make([]Click, n)
	for i := range clicks {
		at = at.Add(time.Duration(rng.ExpFloat64()*100) * time.Microsecond)
		url := int64(links.Uint64()) + 1
		c := Click{At: at, URLID: url, UserID: url%400 + 1}
		c.IP = netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
		agent := agents.Uint64()
		c.UserAgent = fmt.Sprintf("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.0 Safari/537.36", 80+agent%50, agent*31)
		if rng.IntN(3) > 0 {
			c.Referrer = fmt.Sprintf("https://www.example%d.com/path/of/the/page?utm=%d", rng.IntN(50), rng.IntN(20))
		}
		clicks[i] = c
	}
	return clicks
}
