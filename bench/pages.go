package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"
)

// pages measures how long the server takes for pages of the dashboard, and how large they
// are on their way.
func (s *statsBench) pages(ctx context.Context) error {
	if err := s.sql(ctx, makeSearchIndexes); err != nil {
		return err
	}
	api, err := s.launch(s.environ("ADMIN_TOKEN="+benchToken), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	v, err := newViewer(ctx, "http://"+api.Addr)
	if err != nil {
		return err
	}
	for _, page := range []struct{ what, path string }{
		{"overview", "/app"},
		{"overview of 12 months", "/app?range=12mo"},
		{"links", "/app/links"},
		{"links with the most clicks", "/app/links?sort=-clicks"},
		{"links of a tag", "/app/links?tag=tag10"},
		{"search for a word that all links have", "/app/links?q=example"},
		{"search for a word of few links", "/app/links?q=page/17171"},
		{"search for a word of no link", "/app/links?q=nothing+like+it"},
		{fmt.Sprintf("a link with %d clicks", s.clicks/5), "/app/links/1"},
		{fmt.Sprintf("a link with %d clicks, 12 months", s.clicks/5), "/app/links/1?range=12mo"},
	} {
		if err := s.page(ctx, v, page.what, page.path); err != nil {
			return fmt.Errorf("%s: %w", page.what, err)
		}
	}
	return nil
}

// page measures one page.
func (s *statsBench) page(ctx context.Context, v *viewer, what, path string) error {
	var took []time.Duration
	size := 0
	for i := range 60 {
		start := time.Now()
		text, err := v.get(ctx, path)
		if err != nil {
			return err
		}
		if size = len(text); i >= 10 { // before that, caches are cold
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	median, most := ms(took[len(took)/2]), ms(took[len(took)*95/100])
	s.add(row{
		what: fmt.Sprintf("page: %s, %.1f KB (p50, p95, ms)", what, float64(size)/1000), ours: fmt.Sprintf("%.1f, %.1f", median, most),
		theirs: "-", ratio: "-", goal: "p50 <= 100", ok: median <= 100,
	})
	return nil
}

// viewer is a browser that is signed in.
type viewer struct {
	http *http.Client
	url  string
}

func newViewer(ctx context.Context, to string) (*viewer, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	v := &viewer{&http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, to}
	form := strings.NewReader(url.Values{"token": {benchToken}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to+"/app/sign-in", form)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusSeeOther {
		return nil, errors.Join(err, fmt.Errorf("sign in: %s", resp.Status))
	}
	return v, nil
}

// get returns a page as it comes, which is packed.
func (v *viewer) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return text, err
}
