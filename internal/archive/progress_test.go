package archive

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Storage may return half of an object and then nothing, or accept half of one. Nobody
// waits for it: the connection stays open, so nothing else would end the request.
func TestStalledStorage(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			<-ended
			return
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
			return
		case strings.HasSuffix(r.URL.Path, "new"):
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Etag", `"1"`)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, strings.Repeat("x", 500))
			w.(http.Flusher).Flush()
			<-ended
		}
	}))
	t.Cleanup(func() { close(ended); server.Close() })
	s, err := Open("s3://bucket", S3{Endpoint: server.URL, Region: "eu", AccessKey: "key", SecretKey: "secret", Stall: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a bound in case of a failure
	defer cancel()
	file, err := s.Open(ctx, "old")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	if n, err := io.Copy(io.Discard, file); !errors.Is(err, ErrStalled) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	err = s.Create(ctx, "new", func(w io.Writer) error {
		_, err := w.Write(make([]byte, uploadPiece))
		return err
	})
	if !errors.Is(err, ErrStalled) {
		t.Errorf("create: %v", err)
	}
}

// slow is storage that pauses before an answer and before each byte.
type slow struct {
	pause time.Duration
	left  int
	ctx   context.Context
}

func (s *slow) wait() error {
	select {
	case <-time.After(s.pause):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *slow) RoundTrip(req *http.Request) (*http.Response, error) {
	s.ctx = req.Context()
	if err := s.wait(); err != nil {
		return nil, err
	}
	return &http.Response{Body: s}, nil
}

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.left--
	return copy(p, "x"), s.wait()
}

func (s *slow) Close() error { return nil }

// However long a request takes, it goes on as long as bytes move, and a reader may
// pause.
func TestProgressBoundsPausesOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pause time.Duration
		ok    bool
	}{{59 * time.Second, true}, {61 * time.Second, false}} {
		synctest.Test(t, func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://storage.test/", nil)
			resp, err := (&progress{&slow{pause: c.pause, left: 100}, time.Minute}).RoundTrip(req)
			if err == nil {
				<-time.After(time.Hour) // time of the bubble: a reader with other things to do
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrStalled) {
				t.Errorf("pauses of %v: %v", c.pause, err)
			}
		})
	}
}
