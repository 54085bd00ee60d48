package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// keyPatience is how long a request waits for the transaction of another request with
// the same key. It is text that Postgres reads.
const keyPatience = "1ms"

// ErrKeyBusy refuses a request because another request with its key is under way.
var ErrKeyBusy = &Error{
	Kind: KindConflict, Message: "the first request with this Idempotency-Key is under way, ask again",
	Fields:     []FieldError{{"Idempotency-Key", "belongs to a request under way"}},
	RetryAfter: time.Second,
}

// Once is the idempotency key of a request that its client may repeat. The work for a
// key is done once, and its answer is kept in the same transaction; but see
// Service.claimed. Keys belong to a token and a route. A request that failed leaves its
// key free. A nil *Once stands for a request without a key.
type Once struct {
	OnceKey
	Hash [sha256.Size]byte // of the request
}

// OnceKey identifies the requests that are to be done once.
type OnceKey struct {
	Token int64 // 0 for the bootstrap token
	Route string
	Key   string
}

// KeptAnswer is the answer to the first request with a key.
type KeptAnswer struct {
	Request  []byte // the request's hash
	Status   int
	Location string
	Body     []byte
}

// Find returns the answer to the first request with the key, nil if none has succeeded,
// or an error if one is under way.
func (o *Once) Find(ctx context.Context, q *queries.Queries) (*KeptAnswer, error) {
	if err := q.FreeIdempotencyKey(ctx, o.Token, o.Route, o.Key); err != nil {
		return nil, fmt.Errorf("free key of a failed request: %w", err)
	}
	row, err := q.FindIdempotencyKey(ctx, o.Token, o.Route, o.Key)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the key of a request: %w", err)
	case row.Status == 0:
		return nil, ErrKeyBusy
	}
	return &KeptAnswer{row.Request, int(row.Status), row.Location, row.Body}, nil
}

// Kept returns the answer to the first request with a key, nil if there is none yet.
func (s *Service) Kept(ctx context.Context, once *Once) (*KeptAnswer, error) {
	if once == nil {
		return nil, nil
	}
	return once.Find(ctx, queries.New(s.Pool))
}

// Claim takes the key within the transaction that does the work. If several requests
// come at once, the constraint lets one of them have the key, and the others are told
// to ask again. An upload that begins passes the id of its import; its hash is not
// known yet.
func (o *Once) Claim(ctx context.Context, q *queries.Queries, importID *int64) error {
	if o == nil {
		return nil
	}
	if err := q.FreeIdempotencyKey(ctx, o.Token, o.Route, o.Key); err != nil {
		return fmt.Errorf("free key of a failed request: %w", err)
	}
	patience := keyPatience
	if err := q.WaitForLocks(ctx, &patience); err != nil {
		return fmt.Errorf("wait no longer for locks: %w", err)
	}
	var hash []byte
	if importID == nil {
		hash = o.Hash[:]
	}
	claimed, err := q.ClaimIdempotencyKey(ctx, queries.ClaimIdempotencyKeyParams{
		TokenID: o.Token, Route: o.Route, Key: o.Key, ImportID: importID, Request: hash,
	})
	switch {
	case postgres.LockTimeout(err), err == nil && claimed == 0:
		return ErrKeyBusy
	case err != nil:
		return fmt.Errorf("claim key of a request: %w", err)
	}
	if err := q.WaitForLocks(ctx, nil); err != nil {
		return fmt.Errorf("wait for locks as usual: %w", err)
	}
	return nil
}

// Keep stores the answer, in the transaction that did the work.
func (o *Once) Keep(ctx context.Context, q *queries.Queries, status int, location string, body []byte) error {
	if o == nil {
		return nil
	}
	err := q.KeepAnswer(ctx, queries.KeepAnswerParams{
		TokenID: o.Token, Route: o.Route, Key: o.Key,
		Request: o.Hash[:], Status: int16(status), Location: location, Body: body,
	})
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	return nil
}

// keep stores the answer that has a thing as its body.
func (o *Once) keep(ctx context.Context, q *queries.Queries, status int, location string, thing any) error {
	if o == nil {
		return nil
	}
	var answer bytes.Buffer
	encoder := json.NewEncoder(&answer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(thing); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return o.Keep(ctx, q, status, location, answer.Bytes())
}

// claimed claims the key of a request that takes several transactions, before the first of
// them. Until end is called others with the key are told to ask again. end keeps the answer,
// or frees the key if done is false or the answer cannot be kept. If the process is killed
// before, the key is free after a minute, which is longer than such a request takes.
func (s *Service) claimed(ctx context.Context, once *Once) (end func(answer any, done bool), err error) {
	if once == nil {
		return func(any, bool) {}, nil
	}
	if err := s.inTx(ctx, func(q *queries.Queries) error { return once.Claim(ctx, q, nil) }); err != nil {
		return nil, err
	}
	return func(answer any, done bool) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
		defer cancel()
		q := queries.New(s.Pool)
		if done && once.keep(ctx, q, statusOK, "", answer) == nil {
			return
		}
		_ = q.DropIdempotencyKey(ctx, once.Token, once.Route, once.Key) // otherwise it is free after a minute
	}, nil
}

// keepTime is how long the end of a request may take that has claimed its key.
const keepTime = 2 * time.Second

// The statuses that are stored with the answers to a request about many things, to a
// creation and to an upload.
const statusOK, statusCreated, statusAccepted = 200, 201, 202

// create makes a thing in a transaction of its own, once for the request's key. The
// function do returns the thing and its path.
func create[T any](ctx context.Context, s *Service, once *Once, do func(*queries.Queries) (thing T, path string, err error)) (thing T, err error) {
	err = s.inTx(ctx, func(q *queries.Queries) error {
		if err := once.Claim(ctx, q, nil); err != nil {
			return err
		}
		var path string
		if thing, path, err = do(q); err != nil {
			return err
		}
		return once.keep(ctx, q, statusCreated, path, thing)
	})
	return thing, err
}
