package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signpost/signpost/queries"
)

// Token lets its bearer use the API. Its secret is not part of it.
type Token struct {
	ID        int64      `json:"id" example:"3"`
	Name      string     `json:"name" example:"deploy script"`
	Role      string     `json:"role" enum:"admin,editor,reader" example:"editor"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	RevokedAt *time.Time `json:"revoked_at"`
	// LastUsedAt is to the minute.
	LastUsedAt *time.Time `json:"last_used_at" doc:"When it was last used, to the minute; null if never."`
}

func viewToken(t queries.ListTokensRow) Token {
	return Token{
		ID: t.ID, Name: t.Name, Role: t.Role, CreatedAt: t.CreatedAt.UTC(),
		ExpiresAt: utc(t.ExpiresAt), RevokedAt: utc(t.RevokedAt), LastUsedAt: utc(t.LastUsedAt),
	}
}

// TokenFields describe a token to be made.
type TokenFields struct {
	Name      Optional[string]
	Role      Optional[string]
	ExpiresAt OptionalTime // absent or null: never
}

// Check returns the faults of the fields.
func (t TokenFields) Check() Faults {
	var f Faults
	Check(&f, "name", t.Name, "a string", false, checkTokenName)
	Check(&f, "role", t.Role, "a string", false, checkRole)
	if t.ExpiresAt.Check(&f, "expires_at") && !t.ExpiresAt.Value.After(time.Now()) {
		f.Add("expires_at", "must be in the future")
	}
	return f
}

var (
	errTokenName = errors.New("must be 1 to 100 printable characters")
	errRole      = errors.New("must be admin, editor or reader")
)

func checkTokenName(name string) error {
	if name == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > 100 {
		return errTokenName
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return errTokenName
		}
	}
	return nil
}

func checkRole(name string) error {
	if _, ok := ParseRole(name); !ok {
		return errRole
	}
	return nil
}

// ListTokens returns a page of the tokens, in the order of their ids.
func (s *Service) ListTokens(ctx context.Context, actor Actor, p Page) ([]Token, error) {
	if err := actor.Require(ManagesTokens); err != nil {
		return nil, err
	}
	rows, err := s.lists().ListTokens(ctx, p.After, p.Offset, p.Limit)
	return views(rows, viewToken), err
}

// CreateToken makes a token and returns its secret, which is stored nowhere: the
// database holds only a hash of it. Name and role are required. The answer that is kept for
// a request's key is the token without its secret.
func (s *Service) CreateToken(ctx context.Context, actor Actor, in TokenFields, once *Once) (token Token, secret string, err error) {
	if err := actor.Require(ManagesTokens); err != nil {
		return Token{}, "", err
	}
	// The check treats an absent field like an empty one.
	in.Name.Sent, in.Role.Sent = true, true
	if err := in.Check().Err(); err != nil {
		return Token{}, "", err
	}
	var expires *time.Time
	if e := in.ExpiresAt; e.Sent && !e.Null {
		expires = &e.Value
	}
	secret = newSecret()
	hash := sha256.Sum256([]byte(secret))
	token, err = create(ctx, s, once, func(q *queries.Queries) (Token, string, error) {
		row, err := q.CreateToken(ctx, queries.CreateTokenParams{
			Name: in.Name.Value, Role: in.Role.Value, Hash: hash[:], ExpiresAt: expires,
		})
		if err != nil {
			return Token{}, "", fmt.Errorf("store token: %w", err)
		}
		token := viewToken(queries.ListTokensRow(row))
		return token, "/tokens/" + strconv.FormatInt(token.ID, 10), nil
	})
	if err != nil {
		return Token{}, "", err
	}
	return token, secret, nil
}

// RevokeToken ends a token at once. Revoking it again changes nothing.
func (s *Service) RevokeToken(ctx context.Context, actor Actor, id int64) error {
	if err := actor.Require(ManagesTokens); err != nil {
		return err
	}
	n, err := queries.New(s.Pool).RevokeToken(ctx, id)
	if err == nil && n == 0 {
		err = NotFound("token")
	}
	return err
}

const (
	tokenPrefix = "sp_"
	tokenBytes  = 32
	// tokenDigits is the number of digits of base 62 that tokenBytes need.
	tokenDigits = 43
)

// newSecret draws the secret of a token: sp_ and 256 random bits in base 62.
func newSecret() string {
	var random [tokenBytes]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	digits := new(big.Int).SetBytes(random[:]).Text(62)
	return tokenPrefix + strings.Repeat("0", tokenDigits-len(digits)) + digits
}

// IsSecret reports whether text has the form of a token's secret, so that guesses
// without this form cost no query.
func IsSecret(text string) bool {
	digits, ok := strings.CutPrefix(text, tokenPrefix)
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

// ErrTokenEnded ends work that was begun with a token which has expired or was revoked
// since.
var ErrTokenEnded = &Error{Kind: KindUnknownActor, Message: "the token has expired or was revoked meanwhile"}

// TokenHolds returns ErrTokenEnded if the token of an actor has ended since its request
// began, or the error of the query.
func (s *Service) TokenHolds(ctx context.Context, actor Actor) error {
	return tokenHolds(ctx, queries.New(s.Pool), actor)
}

func tokenHolds(ctx context.Context, q *queries.Queries, actor Actor) error {
	if actor.TokenID == nil {
		return nil
	}
	holds, err := q.TokenHolds(ctx, *actor.TokenID)
	if err == nil && !holds {
		err = ErrTokenEnded
	}
	return err
}

// holdToken keeps the token from being revoked until the transaction of q ends.
func holdToken(ctx context.Context, q *queries.Queries, actor Actor) error {
	if actor.TokenID == nil {
		return nil
	}
	held, err := q.HoldToken(ctx, *actor.TokenID)
	if err == nil && held == 0 {
		err = ErrTokenEnded
	}
	return err
}
