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
	// hintTimeout bounds how much longer the answer for an unknown code takes because
	// of a hint.
	hintTimeout = 250 * time.Millisecond
	// hintPause is how long no hint is searched for after a search failed.
	hintPause = 5 * time.Second
)

// A nearLink is the link that the visitor may have meant.
type nearLink struct{ Code, Path string }

// hints bounds the search for codes in another case: there is one query at a time, and
// no request waits for another's, so that a flood of unknown codes causes few queries.
type hints struct {
	query  chan struct{}
	paused *atomic.Int64 // the end of the pause, in Unix nanoseconds
}

func newHints() hints { return hints{make(chan struct{}, 1), new(atomic.Int64)} }

// withHint returns errNoLink for a path. It has a hint if exactly one link of the
// domain has a code that differs only in case.
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
	e.near = &nearLink{Code: near, Path: links.CodePath(near)}
	var host *string
	if domain.ID != linkcache.MainDomain {
		host = &domain.Host
		e.near.Path = links.DomainCodePath(near)
	}
	e.Hint = "upper and lower case count: there is " + a.service.ShortURL(host, near)
	return &e
}

// inAnotherCase returns the code of the domain's only active link whose code differs
// from code in nothing but case. It returns "" if there is none, if there are several,
// or if the answer takes too long.
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
