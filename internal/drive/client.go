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

// Call sends a request with a token, and returns the status and the body of the answer.
// The caller limits its time.
func Call(ctx context.Context, method, url, token, kind string, body io.Reader) (status int, text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
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
