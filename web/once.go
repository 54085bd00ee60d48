package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// newKey returns the key of a form. A form that is sent twice with its key is carried out
// once.
func newKey() string { return rand.Text() }

// onceOf returns the idempotency key of a form, nil if the form has none. One that was
// changed and sent again after it was carried out is another one.
func onceOf(r *Request, route string) *service.Once {
	key := r.Form.text("key")
	if key == "" {
		return nil
	}
	hash := sha256.Sum256([]byte(r.Form.Encode()))
	own := sha256.Sum256(append(hash[:], key...))
	return &service.Once{OnceKey: service.OnceKey{Token: r.Actor.Token(), Route: route, Key: "form-" + hex.EncodeToString(own[:16])}, Hash: hash}
}

// busyPause is the time between two looks at what another request makes of the same form.
const busyPause = 50 * time.Millisecond

// once carries a form out, or returns what was made of it the first time.
func once[T any](ctx context.Context, w *Web, key *service.Once, do func() (T, error)) (thing T, err error) {
	for {
		kept, err := w.Service.Kept(ctx, key)
		if err == nil && kept != nil {
			if err := json.Unmarshal(kept.Body, &thing); err != nil {
				return thing, fmt.Errorf("read kept answer: %w", err)
			}
			return thing, nil
		}
		if err == nil {
			thing, err = do()
		}
		if !errors.Is(err, service.ErrKeyBusy) {
			return thing, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return thing, err
		}
	}
}
