package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// ErrStalled says that storage has neither sent nor accepted a byte for a while.
var ErrStalled = errors.New("storage makes no progress")

// progress ends requests that make no progress for a while: in sending, in waiting for
// the answer, or in receiving. The whole duration of a request is not bounded. Time in
// which nobody reads a received body does not count, because its reader may be slow.
type progress struct {
	next  http.RoundTripper
	limit time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (p *progress) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{limit: p.limit, end: func() { cancel(fmt.Errorf("%w for %s", ErrStalled, p.limit)) }}
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body, req.GetBody = &sentBody{req.Body, w}, nil // the client tries again by itself
	}
	w.start()
	resp, err := p.next.RoundTrip(req)
	w.stop()
	if err != nil {
		defer cancel(nil)
		return nil, because(ctx, err)
	}
	resp.Body = &receivedBody{resp.Body, ctx, w, cancel}
	return resp, nil
}

// because returns ErrStalled if a request was ended for that reason, and otherwise err.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrStalled) {
		return cause
	}
	return err
}

// watch calls end when it is running and neither moved nor stopped for limit.
type watch struct {
	limit time.Duration
	end   func()

	mu    sync.Mutex
	timer *time.Timer // nil while it is stopped
}

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.limit, w.end)
}

func (w *watch) moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// sentBody is a request body. The transport reads it as fast as the network accepts it.
// The body itself is in memory, so every wait is for the network.
type sentBody struct {
	io.ReadCloser
	watch *watch
}

// Read implements [io.Reader].
func (b *sentBody) Read(p []byte) (int, error) {
	b.watch.moved()
	return b.ReadCloser.Read(p)
}

// receivedBody counts time without progress only while its reader waits.
type receivedBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // of the request, whose end says why
	watch  *watch
	cancel context.CancelCauseFunc
}

// Read implements [io.Reader].
func (b *receivedBody) Read(p []byte) (int, error) {
	b.watch.start()
	n, err := b.ReadCloser.Read(p)
	b.watch.stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = because(b.ctx, err)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *receivedBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
