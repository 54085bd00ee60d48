// Package client speaks to a Signpost server over HTTP, for the commands that
// people run on machines of their own. It knows no database.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// askTimeout bounds a request whose answer is small.
	askTimeout = 15 * time.Second
	// answerTimeout bounds the wait for the answer after an upload was sent.
	answerTimeout = time.Minute
	// maxAnswer bounds an answer that is read into memory, in bytes. The rows of a page
	// may have half of it.
	maxAnswer = 2 << 20
)

// A Client sends requests to one server, with one token. It may be used concurrently.
// Its maker closes it.
type Client struct {
	server string // without a slash at its end
	token  string
	http   *http.Client
}

// New returns a client of the server at an absolute http or https URL.
func New(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the server must be a URL such as https://sho.rt, not %q", server)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	return &Client{server: strings.TrimSuffix(u.String(), "/"), token: token, http: &http.Client{
		Transport: transport,
		// A redirect would send the token, or a file, to a place for which it was not
		// meant.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an answer of the server other than a success.
type Error struct {
	Status     int
	Message    string // a sentence that can be shown to people
	Fields     []FieldError
	RetryAfter time.Duration // 0 if the server does not say
}

// FieldError says why one field or parameter is wrong.
type FieldError struct{ Field, Message string }

// Error implements error. It returns the sentence, and the fields that the sentence
// does not name.
func (e *Error) Error() string {
	text := e.Message
	for _, f := range e.Fields {
		if !strings.Contains(text, f.Message) {
			text += "; " + f.Field + " " + f.Message
		}
	}
	return text
}

// Temporary reports whether the same request may well work later, because the server
// did not answer, or said so.
func Temporary(err error) bool {
	var own *Error
	if errors.As(err, &own) {
		switch own.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		case http.StatusConflict: // an earlier request is not done yet
			return own.RetryAfter > 0
		}
		return false
	}
	var broken *brokenError
	return errors.As(err, &broken)
}

// Status returns the status of an answer that is an error, 0 if there was none.
func Status(err error) int {
	var own *Error
	if errors.As(err, &own) {
		return own.Status
	}
	return 0
}

// RetryAfter returns how long the server asked to wait before the next request, 0 if it
// did not say.
func RetryAfter(err error) time.Duration {
	var own *Error
	if errors.As(err, &own) {
		return own.RetryAfter
	}
	return 0
}

// brokenError is the error of a request that got no answer, or only a part of one.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// do sends a request. If the answer has the wanted status, read gets its body; an
// answer with any other status is an error.
func (c *Client) do(req *http.Request, want int, read func(io.Reader) error) error {
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("User-Agent", "signpost")
	resp, err := c.http.Do(req)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err // without the URL, which people know already
		}
		return &brokenError{fmt.Errorf("%s cannot be reached: %w", c.server, err)}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != want {
		return readError(resp)
	}
	return read(brokenReader{resp.Body})
}

// into returns a function that reads JSON into v.
func into(v any) func(io.Reader) error {
	return func(r io.Reader) error {
		body, err := io.ReadAll(io.LimitReader(r, maxAnswer))
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if err := json.Unmarshal(body, v); err != nil {
			return fmt.Errorf("the answer is not one of Signpost: %w", err)
		}
		return nil
	}
}

func readError(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	var body struct {
		Error  string
		Fields []FieldError
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // if the text is incomplete, the part that arrived is used
	if json.Unmarshal(text, &body) != nil || body.Error == "" {
		body.Error = "the server answered " + resp.Status
	}
	e.Message, e.Fields = body.Error, body.Fields
	return e
}

// get requests path and reads the answer, which is JSON, into v.
func (c *Client) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	return c.do(req, http.StatusOK, into(v))
}

// download writes a file that the server makes to w. After an error, w may hold a part
// of the file.
func (c *Client) download(ctx context.Context, path, accept string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	return c.do(req, http.StatusOK, func(r io.Reader) error {
		if _, err := io.Copy(w, r); err != nil {
			return fmt.Errorf("receive the file: %w", err)
		}
		return nil
	})
}

// brokenReader marks errors of the connection, so that they can be told from errors of
// writing.
type brokenReader struct{ io.Reader }

func (r brokenReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &brokenError{err}
	}
	return n, err
}
