package api

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

const (
	// hintTimeout bounds what a hint may cost the answer that there is no link.
	hintTimeout = 250 * time.Millisecond
	// hintPause is how long there are none after one could not be had.
	hintPause = 5 * time.Second
)

// A nearLink is the link that somebody may have meant.
type nearLink struct{ code, path string }

// hints bounds what the search for codes in another case occupies: one query at
// once, for which nobody waits, so that a flood of unknown codes gets few.
type hints struct {
	query  chan struct{}
	paused *atomic.Int64 // until when, in Unix nanoseconds
}

func newHints() hints { return hints{make(chan struct{}, 1), new(atomic.Int64)} }

// withHint returns errNoLink for a path, with a hint if there is exactly one link of
// the domain whose code differs in case only.
func (a *API) withHint(domain *linkcache.Domain, path links.Path) *Error {
	code := path.Code
	if path.Trimmed != "" {
		code = path.Trimmed
	}
	near := a.inAnotherCase(domain, code)
	if near == "" {
		return errNoLink
	}
	e := *errNoLink
	e.near = &nearLink{code: near, path: links.CodePath(near)}
	var host *string
	if domain.ID != linkcache.MainDomain {
		host = &domain.Host
		e.near.path = links.DomainCodePath(near)
	}
	e.Hint = "upper and lower case count: there is " + a.service.ShortURL(host, near)
	return &e
}

// inAnotherCase returns the code of the domain's one active link that differs from
// code in case only, "" if there is none, or several, or if it cannot be told soon.
func (a *API) inAnotherCase(domain *linkcache.Domain, code string) string {
	if code == "" || a.hints.paused.Load() > time.Now().UnixNano() {
		return ""
	}
	select {
	case a.hints.query <- struct{}{}:
	default:
		return ""
	}
	defer func() { <-a.hints.query }()
	ctx, cancel := context.WithTimeout(context.Background(), hintTimeout)
	defer cancel()
	codes, err := queries.New(a.Redirects).FindCodesInAnotherCase(ctx, strings.Clone(code), domain.ID)
	if err != nil {
		a.hints.paused.Store(time.Now().Add(hintPause).UnixNano())
	}
	if len(codes) != 1 {
		return ""
	}
	return codes[0]
}
