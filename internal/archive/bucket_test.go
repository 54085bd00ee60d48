package archive

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Storage may return half of an object and then nothing, or accept half of one. Nobody
// waits for it: the connection stays open, so nothing else would end the request. A
// reader may pause for longer.
func TestStalledStorage(t *testing.T) {
	t.Parallel()
	const stall = 500 * time.Millisecond
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
		w.Header().Set("Content-Length", "10000000")
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Etag", `"1"`)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, strings.Repeat("x", 5_000_000))
			w.(http.Flusher).Flush()
			<-ended
		}
	}))
	t.Cleanup(func() { close(ended); server.Close() })
	s, err := Open("s3://bucket", S3{Endpoint: server.URL, Region: "eu", AccessKey: "key", SecretKey: "secret", Stall: stall})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a bound in case of a failure
	defer cancel()
	file, err := s.Open(ctx, "old")
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // only read
	if _, err := io.CopyN(io.Discard, file, 1000); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * stall) // a reader with other things to do
	if n, err := io.Copy(io.Discard, file); n != 4_999_000 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	err = s.Create(ctx, "new", func(w io.Writer) error {
		_, err := w.Write(make([]byte, uploadPiece))
		return err
	})
	// Of the two ends of a connection, the one whose deadline passes first closes it.
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("create: %v", err)
	}
}
