package drive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// These stand in place of a status if there was no answer of HTTP.
const (
	NoAnswer     = "no answer"
	BrokenAnswer = "broken answer"
)

// Answer is the outcome of a request for a link.
type Answer struct {
	Status   string // the status of HTTP, NoAnswer or BrokenAnswer
	Location string
	Again    bool   // the answer says when to try again
	Says     string // the error in the answer's body
	Began    time.Time
}

// String returns the status, and the error if there is one.
func (a Answer) String() string {
	if a.Says == "" {
		return a.Status
	}
	return fmt.Sprintf("%s %q", a.Status, a.Says)
}

// Longest is how long a request for a link waits for its answer.
const Longest = 5 * time.Second

// once follows no redirect and repeats no request. A client that repeats a request by
// itself, when a kept connection turns out to be closed, would click twice with one
// marker.
var once = &http.Client{
	Timeout:       Longest,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Ask requests a path once. An answer counts only when all of it has arrived. Ask takes
// no context, because the end of a run waits for attempts that have begun.
func Ask(method, addr, path, agent, referrer string) Answer {
	a := Answer{Status: NoAnswer, Began: time.Now()}
	req, err := http.NewRequest(method, "http://"+addr+path, nil) //nolint:noctx // bounded by the client's timeout
	if err != nil {
		a.Says = err.Error()
		return a
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Referer", referrer)
	resp, err := once.Do(req)
	if err != nil {
		return a
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Status = BrokenAnswer
		return a
	}
	var body struct{ Error string }
	_ = json.Unmarshal(text, &body) // a redirect has no such body
	a.Status, a.Says = fmt.Sprint(resp.StatusCode), body.Error
	a.Location, a.Again = resp.Header.Get("Location"), resp.Header.Get("Retry-After") != ""
	return a
}

// Client sends requests of the management API.
type Client struct{ Addr, Token string }

// Send sends a request and returns the status and the body of the answer. Without a
// body of its own it waits half a minute for the answer.
func (c Client) Send(ctx context.Context, method, path, kind string, body io.Reader) (status int, text []byte, err error) {
	if body == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addr+path, body)
	if err != nil {
		return 0, nil, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := direct.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// Get decodes the answer to a GET, which has to be 200.
func (c Client) Get(ctx context.Context, path string, answer any) error {
	return c.want(ctx, http.StatusOK, answer, http.MethodGet, path, "", nil)
}

// Post decodes the answer to a POST, which has to have the status want.
func (c Client) Post(ctx context.Context, want int, answer any, path, kind string, body io.Reader) error {
	return c.want(ctx, want, answer, http.MethodPost, path, kind, body)
}

func (c Client) want(ctx context.Context, want int, answer any, method, path, kind string, body io.Reader) error {
	status, text, err := c.Send(ctx, method, path, kind, body)
	if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("%s %s answered %d: %.200s", method, path, status, text)
	}
	return json.Unmarshal(text, answer)
}

// Upload sends a CSV file to be imported and returns the id of the import.
func (c Client) Upload(ctx context.Context, kind string, file io.Reader) (id int64, err error) {
	var got struct{ ID int64 }
	err = c.Post(ctx, http.StatusAccepted, &got, "/imports?kind="+kind, "text/csv", file)
	return got.ID, err
}

// Ready returns an error unless the process says that it can do all its work.
func Ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, Longest)
	defer cancel()
	status, text, err := Client{Addr: addr}.Send(ctx, http.MethodGet, "/ready", "", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/ready answered %d: %s", status, text)
	}
	return err
}
