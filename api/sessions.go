package api

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// referenceLength is the length of the texts that rand.Text draws: references of sessions
// and the secrets of links to sign in.
const referenceLength = 26

// session is a browser that was signed in with a token.
type session struct {
	id    int64
	actor Actor
}

// hashSession returns the hash under which a session is stored. The sessions of
// ADMIN_TOKEN are stored under one that depends on its value, so that they end when the
// value changes, and that tells nobody who reads the database what to guess.
func (t *Tokens) hashSession(reference string, admin bool) []byte {
	if admin {
		mac := hmac.New(sha256.New, []byte(reference))
		mac.Write([]byte(t.bootstrap))
		return mac.Sum(nil)
	}
	hash := sha256.Sum256([]byte(reference))
	return hash[:]
}

// slowIterations makes slowHash slow. Tests have fewer, since the race detector makes them
// take seconds.
var slowIterations = 600_000

// slowHash returns a hash of ADMIN_TOKEN by which its sessions are told from those of
// another value. It is stored, so it is as slow as a hash of passwords: PBKDF2 with
// HMAC-SHA-256 and the iterations that OWASP asks for.
func slowHash(adminToken string) []byte {
	key, err := pbkdf2.Key(sha256.New, adminToken, []byte("signpost: sessions of ADMIN_TOKEN"), slowIterations, sha256.Size)
	if err != nil {
		panic(err) // the numbers are wrong
	}
	return key
}

// adminKeyOf returns the key that is stored with the sessions of a token.
func (t *Tokens) adminKeyOf(tokenID *int64) []byte {
	if tokenID != nil {
		return nil
	}
	return t.adminKey()
}

// beginSession begins a session of an actor who has just shown a token. It returns the
// reference by which the browser is known from then on.
func (t *Tokens) beginSession(ctx context.Context, actor Actor, agent string) (reference string, err error) {
	reference = rand.Text()
	_, err = queries.New(t.pool).CreateSession(ctx, queries.CreateSessionParams{
		Hash: t.hashSession(reference, actor.TokenID == nil), TokenID: actor.TokenID, AdminKey: t.adminKeyOf(actor.TokenID), Agent: agent,
	})
	if err != nil {
		return "", fmt.Errorf("store session: %w", err)
	}
	return reference, nil
}

var errSession = unauthorized("the session has ended: sign in again")

// verifySession returns the session with a reference, or an error that says why there is
// none. Like verify it asks the database every time, so that a session ends at once with
// its token, and limits how often an address may guess.
func (t *Tokens) verifySession(ctx context.Context, reference string, from netip.Addr) (session, error) {
	var found session
	_, err := t.try(ctx, sha256.Sum256([]byte(reference)), from, func(ctx context.Context) (Actor, error) {
		var err error
		found, err = t.findSession(ctx, reference)
		return found.actor, err
	})
	return found, err
}

// wasSession reports whether a session with a reference was valid in this process within the
// last hour.
func (t *Tokens) wasSession(reference string) bool {
	return t.limiter.wasValid(sha256.Sum256([]byte(reference)))
}

// findSession does the work of verifySession.
func (t *Tokens) findSession(ctx context.Context, reference string) (session, error) {
	if len(reference) != referenceLength {
		return session{}, errSession
	}
	q := queries.New(t.pool)
	row, err := q.FindSession(ctx, queries.FindSessionParams{
		Hash: t.hashSession(reference, false), AdminHash: t.hashSession(reference, true),
		IdleFor: service.Interval(service.SessionIdle), LivesFor: service.Interval(service.SessionLife),
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && row.TokenID == nil && t.bootstrap == "":
		return session{}, errSession
	case err != nil:
		return session{}, fmt.Errorf("look up session: %w", err)
	}
	if row.Idle {
		t.noteSession(ctx, q, row.TokenID, row.ID)
		if row.TokenID != nil {
			t.noteUse(ctx, *row.TokenID)
		}
	}
	if row.TokenID == nil {
		return session{row.ID, t.bootstrapActor()}, nil
	}
	role, _ := service.ParseRole(row.Role) // none if only a later release knows it, as in identify
	return session{row.ID, Actor{TokenID: row.TokenID, Name: row.Name, Role: role}}, nil
}

// noteSession notes that a session is used, as noteUse does for a token.
func (t *Tokens) noteSession(ctx context.Context, q *queries.Queries, tokenID *int64, id int64) {
	key := t.adminKeyOf(tokenID) // which may take long
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	_ = q.UseSession(ctx, key, id)
}

// sessionCheck is how often a feed asks whether its session has ended.
const sessionCheck = time.Second

// sessionHolds returns an error only if a session has ended, or its token.
func (t *Tokens) sessionHolds(ctx context.Context, id int64) error {
	if holds, err := queries.New(t.pool).SessionHolds(ctx, id); err == nil && !holds {
		return errSession
	}
	return nil // also while the database cannot be reached
}

func (t *Tokens) endSession(ctx context.Context, id int64) error {
	return queries.New(t.pool).EndSession(ctx, id)
}

// signInFor is how long a link to sign in is valid.
const signInFor = 10 * time.Minute

// signInLinks are the secrets of links to sign in as the bearer of ADMIN_TOKEN, by their
// hashes. They are not stored: the process that makes one also takes it.
type signInLinks struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
}

// NewSignIn returns a secret with which somebody can sign in to the dashboard of this
// process, once and within ten minutes, as the bearer of the admin token.
func (t *Tokens) NewSignIn() string {
	secret := rand.Text()
	t.links.mu.Lock()
	defer t.links.mu.Unlock()
	if t.links.until == nil {
		t.links.until = map[[sha256.Size]byte]time.Time{}
	}
	t.links.until[sha256.Sum256([]byte(secret))] = time.Now().Add(signInFor)
	return secret
}

var errSignIn = unauthorized("this link to sign in was used already or is too old")

// redeem returns the bearer for whom a link to sign in was made. The link is used up.
func (t *Tokens) redeem(ctx context.Context, secret string, from netip.Addr) (Actor, error) {
	hash := sha256.Sum256([]byte(secret))
	return t.try(ctx, hash, from, func(context.Context) (Actor, error) {
		t.links.mu.Lock()
		defer t.links.mu.Unlock()
		until, ok := t.links.until[hash]
		delete(t.links.until, hash)
		if !ok || time.Now().After(until) {
			return Actor{}, errSignIn
		}
		return t.bootstrapActor(), nil
	})
}
