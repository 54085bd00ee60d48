package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// Role says how much a token may do.
type Role = service.Role

// The roles. Each role may also do everything that the roles before it may do.
const (
	RoleReader = service.RoleReader
	RoleEditor = service.RoleEditor
	RoleAdmin  = service.RoleAdmin
)

// Actor is the bearer of the token that a request came with.
type Actor = service.Actor

// bootstrapName is the name of the bearer of ADMIN_TOKEN in the record of changes.
const bootstrapName = "ADMIN_TOKEN"

type actorKey struct{}

// actorIn returns the actor of the request that ctx belongs to. On routes that need no
// token it is the zero Actor, which may do nothing.
func actorIn(ctx context.Context) Actor {
	actor, _ := ctx.Value(actorKey{}).(Actor)
	return actor
}

func actorOf(c *fiber.Ctx) Actor { return actorIn(c.UserContext()) }

// require returns a handler that rejects requests without a token of at least this
// role. Later handlers get the bearer with actorOf.
func (a *API) require(role Role) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if err := a.admit(c, role); err != nil {
			return err
		}
		return c.Next()
	}
}

// admit authenticates a request and puts the actor and the request's id into
// its UserContext.
func (a *API) admit(c *fiber.Ctx, role Role) error {
	actor, err := a.authenticate(c)
	if err != nil {
		return err
	}
	if err := actor.Require(role); err != nil {
		return err
	}
	a.beAdmitted(c, actor)
	return nil
}

// beAdmitted puts the actor and the request's id into the UserContext.
func (a *API) beAdmitted(c *fiber.Ctx, actor Actor) {
	ctx := context.WithValue(c.UserContext(), actorKey{}, actor)
	ctx = context.WithValue(ctx, requestIDKey{}, responseID(c))
	c.SetUserContext(a.Traces.begin(ctx, c))
}

// authenticate returns the bearer of the request's token, or an error that says why
// there is none.
func (a *API) authenticate(c *fiber.Ctx) (Actor, error) {
	secret, ok := bearer(c.Context().Request.Header.Peek(fiber.HeaderAuthorization))
	if !ok {
		return Actor{}, unauthorized("this needs a token: send it as Authorization: Bearer <token>")
	}
	return a.Tokens.verify(c.UserContext(), secret, a.clientIP(c))
}

// Tokens finds the bearer of a token. It knows the tokens in the database and the one
// in the configuration, and it remembers which addresses sent wrong ones. It may be
// used concurrently. Make it with NewTokens.
type Tokens struct {
	pool *pgxpool.Pool
	// bootstrap is accepted as a token of the role admin, without the database.
	// Empty means that there is none.
	bootstrap string
	// adminKey is the key of bootstrap in its sessions. It is worked out when it is first
	// asked for, since that takes a while.
	adminKey func() []byte
	limiter  *limiter
	links    signInLinks
}

// NewTokens returns the tokens in the database of pool, which it does not close. If
// adminToken is not empty, it is a further token with the role admin.
func NewTokens(pool *pgxpool.Pool, adminToken string) *Tokens {
	return &Tokens{
		pool: pool, bootstrap: adminToken, limiter: newLimiter(),
		adminKey: sync.OnceValue(func() []byte { return slowHash(adminToken) }),
	}
}

// verify returns the bearer of a token, or an error that says why it is not valid. It
// asks the database every time, so that expiry and revocation take effect at once.
//
// An address that failed often is refused with 429, before the database is asked, until
// its allowance has grown again. Several people may share an address, and nobody should
// be locked out by another's guesses. So a token that was valid in this process within
// the last hour is still accepted. A token that this process has not seen yet has to
// wait.
func (t *Tokens) verify(ctx context.Context, secret string, from netip.Addr) (Actor, error) {
	hash := sha256.Sum256([]byte(secret))
	return t.try(ctx, hash, from, func(ctx context.Context) (Actor, error) { return t.identify(ctx, secret, hash) })
}

// try does the work of verify for anything that lets somebody in. identify returns the
// actor, or an error that isWrong if there is none.
func (t *Tokens) try(ctx context.Context, hash [sha256.Size]byte, from netip.Addr, identify func(context.Context) (Actor, error)) (Actor, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if t.limiter.wasValid(hash) {
		actor, err := identify(ctx)
		switch {
		case err == nil:
			t.limiter.setValid(hash) // for an hour from now
		case isWrong(err):
			t.limiter.setInvalid(hash)
		}
		return actor, err
	}
	allowed := t.limiter.of(networkOf(from))
	wait, err := allowed.begin(ctx)
	switch {
	case err != nil:
		return Actor{}, fmt.Errorf("wait for other tokens of the address: %w", err)
	case wait > 0:
		return Actor{}, tooMany("too many wrong tokens came from this address, wait before the next", wait)
	}
	failed := true // also if it panics
	defer func() { allowed.end(failed) }()
	actor, err := identify(ctx)
	failed = isWrong(err)
	if err == nil {
		t.limiter.setValid(hash)
	}
	return actor, err
}

var errToken = unauthorized("the token is unknown, expired or revoked")

// isWrong reports whether an error says that somebody was not let in.
func isWrong(err error) bool {
	return errors.Is(err, errToken) || errors.Is(err, errSession) || errors.Is(err, errSignIn)
}

func (t *Tokens) bootstrapActor() Actor { return Actor{Name: bootstrapName, Role: RoleAdmin} }

// identify returns the bearer of a token, or errToken.
func (t *Tokens) identify(ctx context.Context, secret string, hash [sha256.Size]byte) (Actor, error) {
	if t.isBootstrap(hash) {
		return t.bootstrapActor(), nil
	}
	if !service.IsSecret(secret) {
		return Actor{}, errToken
	}
	token, err := queries.New(t.pool).FindToken(ctx, hash[:])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Actor{}, errToken
	case err != nil:
		return Actor{}, fmt.Errorf("look up token: %w", err)
	}
	if token.Idle {
		t.noteUse(ctx, token.ID)
	}
	// A role that only a later release knows counts as none here, and may do nothing.
	role, _ := service.ParseRole(token.Role)
	return Actor{TokenID: &token.ID, Name: token.Name, Role: role}, nil
}

// noteTime is how long a request waits for a note of its use.
const noteTime = 200 * time.Millisecond

// noteUse notes that a token is used, once a minute. A database that is busy, or cannot be
// written to, such as a standby, refuses nobody for it.
func (t *Tokens) noteUse(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	_ = queries.New(t.pool).UseToken(ctx, id)
}

// A holder tells whether somebody may still get an answer that goes on.
type holder struct {
	look  func(context.Context) error // an error if not
	every time.Duration               // between two looks
}

func (a *API) holderOf(actor Actor) holder {
	return holder{func(ctx context.Context) error { return a.lookAgain(ctx, actor) }, a.clientLimits.recheckToken}
}

// lookAgain checks the token of work that goes on while the database cannot be reached:
// it returns an error only if the token has ended.
func (a *API) lookAgain(ctx context.Context, actor Actor) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := a.service.TokenHolds(ctx, actor); errors.Is(err, service.ErrTokenEnded) {
		return err
	}
	return nil
}

// isBootstrap compares hashes, so that the time it takes tells neither the content nor
// the length of bootstrap.
func (t *Tokens) isBootstrap(hash [sha256.Size]byte) bool {
	if t.bootstrap == "" {
		return false
	}
	own := sha256.Sum256([]byte(t.bootstrap))
	return subtle.ConstantTimeCompare(hash[:], own[:]) == 1
}

// bearer returns the token of an Authorization header.
func bearer(header []byte) (secret string, ok bool) {
	scheme, secret, _ := strings.Cut(string(header), " ")
	secret = strings.TrimSpace(secret)
	return secret, strings.EqualFold(scheme, "Bearer") && secret != ""
}
