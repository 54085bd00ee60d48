package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// Role says how much a token may do.
type Role = service.Role

// The roles, each of which may do everything that the ones before it may.
const (
	RoleReader = service.RoleReader
	RoleEditor = service.RoleEditor
	RoleAdmin  = service.RoleAdmin
)

// Actor is the bearer of the token that a request came with.
type Actor = service.Actor

// bootstrapName names the bearer of ADMIN_TOKEN in the record of changes.
const bootstrapName = "ADMIN_TOKEN"

type actorKey struct{}

// actorFrom returns who the request of ctx is made by; ok is false on routes
// that are open.
func actorFrom(ctx context.Context) (actor Actor, ok bool) {
	actor, ok = ctx.Value(actorKey{}).(Actor)
	return actor, ok
}

// actorIn is actorFrom for routes that need a token.
func actorIn(ctx context.Context) Actor {
	actor, _ := actorFrom(ctx)
	return actor
}

// actorOf returns who a request was authenticated as by require. It is the
// zero Actor, which may do nothing, if require did not run.
func actorOf(c *fiber.Ctx) Actor {
	actor, _ := actorFrom(c.UserContext())
	return actor
}

// require returns a handler that lets only bearers of a token of at least this
// role pass. Later handlers find them with actorOf.
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
	ctx := context.WithValue(c.UserContext(), actorKey{}, actor)
	ctx = context.WithValue(ctx, requestIDKey{}, responseID(c))
	c.SetUserContext(a.Traces.begin(ctx, c))
	return nil
}

// authenticate returns the bearer of the request's token, or why there is none.
func (a *API) authenticate(c *fiber.Ctx) (Actor, error) {
	secret, ok := bearer(c.Context().Request.Header.Peek(fiber.HeaderAuthorization))
	if !ok {
		return Actor{}, unauthorized("this needs a token: send it as Authorization: Bearer <token>")
	}
	return a.Tokens.verify(c.UserContext(), secret, a.clientIP(c))
}

// Tokens tells whose a token is: those in the database, and one that the
// configuration gives. It remembers which addresses guessed. It may be used
// concurrently. Make it with NewTokens.
type Tokens struct {
	pool *pgxpool.Pool
	// bootstrap is accepted as a token of the role admin, without the database.
	// Empty means that there is none.
	bootstrap string
	limiter   *limiter
}

// NewTokens returns the tokens in the database of pool, which it does not close,
// and adminToken as one more of the role admin unless it is empty.
func NewTokens(pool *pgxpool.Pool, adminToken string) *Tokens {
	return &Tokens{pool: pool, bootstrap: adminToken, limiter: newLimiter()}
}

// verify returns whose token a secret is, or why it is nobody's. The database
// is asked every time, so that expiry and revocation hold at once.
//
// An address that failed often is refused before the database is asked: with
// 429, until its allowance has grown again. So that nobody behind a shared
// address is locked out by another's guesses, that does not concern tokens that
// were valid here within the last hour; a token this process has not seen yet
// waits with the rest.
func (t *Tokens) verify(ctx context.Context, secret string, from netip.Addr) (Actor, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	hash := sha256.Sum256([]byte(secret))
	if t.limiter.wasValid(hash) {
		actor, err := t.identify(ctx, secret, hash)
		if errors.Is(err, errToken) {
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
	actor, err := t.identify(ctx, secret, hash)
	failed = errors.Is(err, errToken)
	if err == nil {
		t.limiter.setValid(hash)
	}
	return actor, err
}

var errToken = unauthorized("the token is unknown, expired or revoked")

// identify returns whose secret it is, or errToken.
func (t *Tokens) identify(ctx context.Context, secret string, hash [sha256.Size]byte) (Actor, error) {
	if t.isBootstrap(hash) {
		return Actor{Name: bootstrapName, Role: RoleAdmin}, nil
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
	// A role of a later release is no role here, and may do nothing.
	role, _ := service.ParseRole(token.Role)
	return Actor{TokenID: &token.ID, Name: token.Name, Role: role}, nil
}

// errTokenEnded ends what a token has begun that was revoked or has expired since.
var errTokenEnded = unauthorized("the token has expired or was revoked meanwhile")

// stillHolds returns errTokenEnded if the token of an actor has ended since its
// request began, or the error of asking.
func stillHolds(ctx context.Context, q *queries.Queries, actor Actor) error {
	if actor.TokenID == nil {
		return nil
	}
	holds, err := q.TokenHolds(ctx, *actor.TokenID)
	if err == nil && !holds {
		err = errTokenEnded
	}
	return err
}

// lookAgain is stillHolds for what goes on while the database is away: only that
// the token has ended is an error.
func (a *API) lookAgain(ctx context.Context, actor Actor) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := stillHolds(ctx, queries.New(a.Pool), actor); errors.Is(err, errTokenEnded) {
		return err
	}
	return nil
}

// isBootstrap compares hashes, so that neither content nor length of
// bootstrap can be told from the time it takes.
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
