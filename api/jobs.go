package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"riverqueue.com/riverui"
)

const (
	// jobsPath is where JobsUI is served.
	jobsPath = "/jobs"
	// jobsIdle is how long River UI goes on counting jobs for nobody.
	jobsIdle = 5 * time.Minute
	// maxJobsError bounds what is read of an error of River UI, in bytes.
	maxJobsError = 4 << 10
)

// JobsUI is River UI for operators, under /jobs: they see, retry and cancel
// jobs and pause queues. It asks for an admin token as the password of HTTP
// Basic, with any name, and takes writes from its own origin only. It belongs
// on the admin port. Make it with NewJobsUI and Stop it.
type JobsUI struct {
	api    *API
	origin *http.CrossOriginProtection
	log    *slog.Logger
	idle   time.Duration

	mu      sync.Mutex
	current http.Handler       // nil while nobody looks
	stop    context.CancelFunc // stops what current does in the background
	rest    *time.Timer        // runs stop once nobody has looked for a while
	stopped bool
}

// NewJobsUI returns a page that is ready to serve. It uses the API's pool,
// tokens and allowance of failures.
func (a *API) NewJobsUI() *JobsUI {
	return &JobsUI{
		api:    a,
		origin: http.NewCrossOriginProtection(),
		log:    a.Log.With(slog.String("component", "river_ui")),
		idle:   jobsIdle,
	}
}

// Stop ends what runs in the background. Requests are answered with 503 from
// then on. Stopping twice does nothing.
func (u *JobsUI) Stop(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	u.halt()
	return nil
}

// halt lets go of the page. The caller holds mu.
func (u *JobsUI) halt() {
	if u.current != nil {
		u.rest.Stop()
		u.stop()
		u.current = nil
	}
}

// ServeHTTP implements [http.Handler].
func (u *JobsUI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Frame-Options", "DENY") // a click must be meant for this page
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	actor, err := u.admit(r)
	if err != nil {
		u.refuse(w, err)
		return
	}
	page, err := u.page()
	if err != nil {
		u.refuse(w, err)
		return
	}
	if !strings.HasPrefix(r.URL.Path, jobsPath+"/api/") {
		page.ServeHTTP(w, r)
		return
	}
	u.ask(page, w, r, actor)
}

// ask passes a request on to River UI's own API, which does the work.
func (u *JobsUI) ask(page http.Handler, w http.ResponseWriter, r *http.Request, actor Actor) {
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
		u.log.InfoContext(ctx, "jobs were managed", "by", actor.Name, "method", r.Method, "path", r.URL.Path, "failed", answer.failed != 0)
	}
}

// admit lets admins pass, and of their writes those that this page sent itself:
// a browser adds the password to the requests of any other page as well.
func (u *JobsUI) admit(r *http.Request) (Actor, error) {
	_, secret, ok := r.BasicAuth()
	if !ok || secret == "" {
		return Actor{}, unauthorized("this needs an admin token as the password, with any name")
	}
	actor, err := u.api.verify(r.Context(), secret, u.api.originOf(r))
	switch {
	case err != nil:
		return Actor{}, err
	case actor.Role < RoleAdmin:
		return Actor{}, forbidden(fmt.Sprintf("this needs a token of the role admin, yours is %s", actor.Role))
	}
	if u.origin.Check(r) != nil {
		return Actor{}, forbidden("the request came from another site")
	}
	return actor, nil
}

// originOf is addressOf for a request of net/http.
func (a *API) originOf(r *http.Request) netip.Addr {
	hop, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	var lines [][]byte
	for _, line := range r.Header.Values("X-Forwarded-For") {
		lines = append(lines, []byte(line))
	}
	return a.origin(plain(hop.Addr()), lines)
}

// page returns River UI, running. It counts jobs every few seconds as long as
// it runs, which every replica would do all the time though nobody looks; so it
// starts with the first request and rests some time after the last.
func (u *JobsUI) page() (http.Handler, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
		return nil, unavailable("shutting down")
	case u.current != nil:
		u.rest.Reset(u.idle)
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
	u.rest = time.AfterFunc(u.idle, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.halt()
	})
	return page, nil
}

func (u *JobsUI) refuse(w http.ResponseWriter, err error) {
	e := u.api.answerable("", err)
	for name, values := range e.GetHeaders() {
		w.Header()[name] = values
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="signpost", charset="UTF-8"`)
	}
	u.write(w, e)
}

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

// databaseUp asks anew: an answer that is a moment old may be from before.
func (u *JobsUI) databaseUp() bool {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	return u.api.checkDatabase(ctx) == nil
}

// write answers with the JSON of every error, and in it the field that River
// UI shows.
func (u *JobsUI) write(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(struct {
		*Error
		Shown string `json:"message"`
	}{e, e.Message})
}

// jobsAnswer keeps the errors of River UI back.
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
