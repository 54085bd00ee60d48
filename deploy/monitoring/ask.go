package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ask puts the queries until each has returned something, with traffic going
// on. The error lists those that never did.
func (s *system) ask(ctx context.Context, list queryList, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		if err := s.traffic(ctx); err != nil {
			return err
		}
		var open queryList
		for _, q := range list {
			ok, err := s.returns(ctx, q.expr)
			if err != nil {
				return fmt.Errorf("%s: %w", q.where, err)
			}
			if !ok {
				open = append(open, q)
			}
		}
		if list = open; len(list) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			var errs []error
			for _, q := range list {
				errs = append(errs, fmt.Errorf("%s: returns nothing: %s", q.where, strings.TrimSpace(q.expr)))
			}
			return errors.Join(errs...)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// returns reports whether a query has a value that is a number.
func (s *system) returns(ctx context.Context, expr string) (bool, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct{ Value [2]any }
		}
	}
	body, err := s.get(ctx, s.prometheusURL+"/api/v1/query?query="+url.QueryEscape(expr))
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, fmt.Errorf("read the answer to %s: %w", expr, err)
	}
	if answer.Status != "success" {
		return false, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" { // 0/0: there was nothing
			return true, nil
		}
	}
	return false, nil
}

// get returns the body of an answer, whatever its status.
func (s *system) get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	return io.ReadAll(resp.Body)
}
