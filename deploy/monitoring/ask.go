package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// ask puts the queries until each has returned something, with traffic going
// on. The error lists those that never did.
func (s *system) ask(ctx context.Context, open []query, patience time.Duration) error {
	return drive.Until(ctx, patience, 500*time.Millisecond, func(ctx context.Context) error {
		if err := s.traffic(ctx); err != nil {
			return err
		}
		var left []query
		var errs []error
		for _, q := range open {
			if err := s.returns(ctx, q.expr); err != nil {
				left = append(left, q)
				errs = append(errs, fmt.Errorf("%s: %w: %s", q.where, err, strings.TrimSpace(q.expr)))
			}
		}
		open = left
		return errors.Join(errs...)
	})
}

// returns is an error unless a query has a value that is a number.
func (s *system) returns(ctx context.Context, expr string) error {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := (drive.Client{Addr: s.prometheus}).Get(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return err
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" { // 0/0: there was nothing
			return nil
		}
	}
	return errors.New("returns nothing")
}
