package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"riverqueue.com/riverui"
)

const (
	// jobsPath is where JobsUI is served.
	jobsPath = "/jobs"
	// maxJobsError bounds how many bytes of an error of River UI are read.
	maxJobsError = 4 << 10
)

// JobsUI is River UI for operators, under /jobs: they see, retry and cancel jobs and
// pause queues. It does not check who asks, so it is served through Operators.Only.
// Make it with NewJobsUI and Stop it.
type JobsUI struct {
	api *API
	log *slog.Logger

	mu      sync.Mutex
	current http.Handler       // nil until the page is first asked for, and after Stop
	stop    context.CancelFunc // stops the background work of current
	stopped bool
}

// NewJobsUI returns a page that is ready to serve. It uses the API's client of
// River.
func (a *API) NewJobsUI() *JobsUI {
	return &JobsUI{api: a, log: a.Log.With(slog.String("component", "river_ui"))}
}

// Stop ends the background work. From then on requests are answered with 503. Stopping
// twice does nothing.
func (u *JobsUI) Stop(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	if u.current != nil {
		u.stop()
		u.current = nil
	}
	return nil
}

// ServeHTTP implements [http.Handler].
func (u *JobsUI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page, err := u.page()
	if err != nil {
		u.refuse(w, err)
		return
	}
	if !strings.HasPrefix(r.URL.Path, jobsPath+"/api/") {
		page.ServeHTTP(w, r)
		return
	}
	u.ask(page, w, r)
}

// ask passes a request on to River UI's own API, which does the work.
func (u *JobsUI) ask(page http.Handler, w http.ResponseWriter, r *http.Request) {
	if u.api.database.run() != nil {
		u.refuse(w, errDatabase)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	answer := &jobsAnswer{ResponseWriter: w}
	page.ServeHTTP(answer, r)
	if answer.failed != 0 {
		u.rewrite(w, answer)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		u.log.InfoContext(ctx, "jobs were managed", slog.String("by", actorIn(ctx).Name), slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Bool("failed", answer.failed != 0))
	}
}

// page returns River UI, running. While it runs, it counts jobs every few seconds,
// which every replica would do even if nobody uses it. So it starts with the first
// request.
func (u *JobsUI) page() (http.Handler, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
		return nil, unavailable("shutting down")
	case u.current != nil:
		return u.current, nil
	}
	page, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints(u.api.River, nil),
		Logger:    u.log,
		Prefix:    jobsPath,
	})
	if err != nil {
		return nil, fmt.Errorf("set up River UI: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	if err := page.Start(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("start River UI: %w", err)
	}
	u.current, u.stop = page, stop
	return page, nil
}

func (u *JobsUI) refuse(w http.ResponseWriter, err error) { refuse(w, u.log, err) }

// rewrite answers an error of River UI's.
func (u *JobsUI) rewrite(w http.ResponseWriter, answer *jobsAnswer) {
	var own struct{ Message string }
	_ = json.Unmarshal(answer.body.Bytes(), &own)
	e := plainError(answer.failed)
	switch {
	case answer.failed == http.StatusBadRequest: // River UI's words show its insides
	case answer.failed < http.StatusInternalServerError:
		e.Message = cmp.Or(own.Message, e.Message)
	case !u.databaseUp():
		e = errDatabase
	case answer.failed == http.StatusInternalServerError:
		e = errInternal
	}
	w.Header().Del("Content-Length")
	u.refuse(w, e)
}

// databaseUp makes a new check, because the last result may be from before the failure.
func (u *JobsUI) databaseUp() bool {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	return u.api.checkDatabase(ctx) == nil
}

// jobsAnswer holds back the errors of River UI, so that they can be rewritten.
type jobsAnswer struct {
	http.ResponseWriter
	failed int // the status of an error
	body   bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (w *jobsAnswer) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		w.failed = status
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *jobsAnswer) Write(p []byte) (int, error) {
	if w.failed == 0 {
		return w.ResponseWriter.Write(p)
	}
	room := max(0, maxJobsError-w.body.Len())
	w.body.Write(p[:min(len(p), room)])
	return len(p), nil
}
