package csvimport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

func sample(kind Kind, rows int) []byte {
	var b bytes.Buffer
	b.WriteString(map[Kind]string{
		KindUsers:  "id,username,email,created_at\n",
		KindLinks:  "id,user_id,short_code,original_url,title,is_active,created_at,updated_at\n",
		KindEvents: "id,url_id,user_id,event_type,timestamp,details\n",
	}[kind])
	for i := 1; i <= rows; i++ {
		switch kind {
		case KindUsers:
			fmt.Fprintf(&b, "%d,walker%d,walker%d@example.com,2025-09-08 02:40:23\n", i, i, i)
		case KindLinks:
			fmt.Fprintf(&b, "%d,%d,c%d,https://example.org/paths/%d,\"Paths, part %d\",True,2025-09-28 11:47:10,2026-01-24 06:46:53\n",
				i, i%100+1, i, i, i)
		default:
			fmt.Fprintf(&b, "%d,%d,%d,clicked,2025-09-28 11:47:10,\"{\"\"referrer\"\":\"\"https://example.org/%d\"\"}\"\n",
				i, i%1000+1, i%100+1, i)
		}
	}
	return b.Bytes()
}

var kinds = []Kind{KindUsers, KindLinks, KindEvents}

func perRow(b *testing.B, rows int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

func BenchmarkSplitter(b *testing.B) {
	const rows = 20_000
	for _, kind := range kinds {
		data := sample(kind, rows)
		b.Run(string(kind), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := NewSplitter(bytes.NewReader(data), kind, SplitOptions{})
				for err == nil {
					_, err = s.Next()
				}
				if !errors.Is(err, io.EOF) || s.Rows() != rows {
					b.Fatal(err, s.Rows())
				}
			}
			perRow(b, rows)
		})
	}
}

func BenchmarkParser(b *testing.B) {
	const rows = 2_000
	for _, kind := range kinds {
		s, err := NewSplitter(bytes.NewReader(sample(kind, rows)), kind, SplitOptions{})
		if err != nil {
			b.Fatal(err)
		}
		chunk, err := s.Next()
		if err != nil {
			b.Fatal(err)
		}
		parser := s.Layout().Parser(Rules{OwnHosts: ownHosts, Now: time.Now(), KeepIDs: true})
		b.Run(string(kind), func(b *testing.B) {
			b.SetBytes(int64(len(chunk.Data)))
			b.ReportAllocs()
			for b.Loop() {
				for record := range s.Layout().Records(chunk.Data, chunk.FirstLine) {
					if reject := parser.judge(kind, record); reject != nil {
						b.Fatal(reject)
					}
				}
			}
			perRow(b, rows)
		})
	}
}
