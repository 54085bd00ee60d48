package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/queries"
)

// Role is what a token may do. Each role may do what the ones below it may.
type Role int

// The roles. Readers read users, links, events and imports; editors also write
// and import links; admins do everything.
const (
	RoleReader Role = iota + 1
	RoleEditor
	RoleAdmin
)

var roleNames = [...]string{"none", "reader", "editor", "admin"}

// String returns the name of the role as the API and the database spell it.
func (r Role) String() string { return roleNames[r] }

// ParseRole returns the role of that name; ok is false if there is none.
func ParseRole(name string) (role Role, ok bool) {
	for r := RoleReader; r <= RoleAdmin; r++ {
		if roleNames[r] == name {
			return r, true
		}
	}
	return 0, false
}

// Actor is who a request is made by.
type Actor struct {
	TokenID *int64 // nil for the bootstrap token
	Name    string
	Role    Role
}

// token tells the tokens of actors apart: an id, 0 for the bootstrap token.
func (a Actor) token() int64 {
	if a.TokenID == nil {
		return 0
	}
	return *a.TokenID
}

// bootstrapName names the bearer of ADMIN_TOKEN in the record of changes.
const bootstrapName = "ADMIN_TOKEN"

type actorKey struct{}

// actorFrom returns who the request of ctx is made by; ok is false on routes
// that are open.
func actorFrom(ctx context.Context) (actor Actor, ok bool) {
	actor, ok = ctx.Value(actorKey{}).(Actor)
	return actor, ok
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
	if actor.Role < role {
		return forbidden(fmt.Sprintf("this needs a token of the role %s, yours is %s", role, actor.Role))
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
	failures  *failures
}

// NewTokens returns the tokens in the database of pool, which it does not close,
// and adminToken as one more of the role admin unless it is empty.
func NewTokens(pool *pgxpool.Pool, adminToken string) *Tokens {
	return &Tokens{pool: pool, bootstrap: adminToken, failures: newFailures()}
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
	if t.failures.proven(hash) {
		actor, err := t.identify(ctx, secret, hash)
		if errors.Is(err, errToken) {
			t.failures.disprove(hash)
		}
		return actor, err
	}
	allowed := t.failures.of(networkOf(from))
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
		t.failures.prove(hash)
	}
	return actor, err
}

var errToken = unauthorized("the token is unknown, expired or revoked")

// identify returns whose secret it is, or errToken.
func (t *Tokens) identify(ctx context.Context, secret string, hash [sha256.Size]byte) (Actor, error) {
	if t.isBootstrap(hash) {
		return Actor{Name: bootstrapName, Role: RoleAdmin}, nil
	}
	if !isToken(secret) {
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
	role, _ := ParseRole(token.Role)
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

const (
	tokenPrefix = "sp_"
	tokenBytes  = 32
	// tokenDigits is how many digits of base 62 hold tokenBytes.
	tokenDigits = 43
)

// newSecret draws the secret of a token: sp_ and 256 random bits in base 62.
func newSecret() string {
	var random [tokenBytes]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	digits := new(big.Int).SetBytes(random[:]).Text(62)
	return tokenPrefix + strings.Repeat("0", tokenDigits-len(digits)) + digits
}

// isToken reports whether secret has the form of newSecret's, so that other
// guesses cost no query.
func isToken(secret string) bool {
	digits, ok := strings.CutPrefix(secret, tokenPrefix)
	if !ok || len(digits) != tokenDigits {
		return false
	}
	for _, c := range []byte(digits) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return true
}

// CreateToken stores a new token and returns its secret, which is kept nowhere:
// the database holds a hash of it. name is 1 to 100 characters, role one of
// admin, editor and reader; expires is when the token ends, nil for never. The
// error of a wrong name or role can be shown to a user.
func CreateToken(ctx context.Context, q *queries.Queries, name, role string, expires *time.Time) (queries.CreateTokenRow, string, error) {
	if err := checkToken(name, role); err != nil {
		return queries.CreateTokenRow{}, "", err
	}
	secret := newSecret()
	hash := sha256.Sum256([]byte(secret))
	token, err := q.CreateToken(ctx, queries.CreateTokenParams{
		Name: name, Role: role, Hash: hash[:], ExpiresAt: expires,
	})
	if err != nil {
		return queries.CreateTokenRow{}, "", fmt.Errorf("store token: %w", err)
	}
	return token, secret, nil
}
