package api

import (
	"context"
	"errors"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

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
}

// NewToken is a Token with its secret, which is shown this once.
type NewToken struct {
	Token
	Secret string `json:"token" example:"sp_2YotnFZFEjr1zCsicMWpAA3bXmJkL9dQpRtUvWxYz01" doc:"The secret. It is stored nowhere and cannot be shown again."`
}

func viewToken(t queries.ListTokensRow) Token {
	return Token{
		ID: t.ID, Name: t.Name, Role: t.Role, CreatedAt: t.CreatedAt.UTC(),
		ExpiresAt: utc(t.ExpiresAt), RevokedAt: utc(t.RevokedAt),
	}
}

// TokenCreate is the body that makes a token.
type TokenCreate struct {
	Name      Optional[string] `json:"name" required:"true" minLength:"1" maxLength:"100" example:"deploy script" doc:"Who or what will use it."`
	Role      Optional[string] `json:"role" required:"true" enum:"admin,editor,reader" example:"editor"`
	ExpiresAt OptionalTime     `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z" doc:"When the token ends; never if absent."`
}

// Resolve implements huma.Resolver.
func (t *TokenCreate) Resolve(huma.Context) []error {
	var f faults
	check(&f, "name", t.Name, "a string", false, checkTokenName)
	check(&f, "role", t.Role, "a string", false, checkRole)
	if t.ExpiresAt.check(&f, "expires_at") && !t.ExpiresAt.Value.After(time.Now()) {
		f.add("expires_at", "must be in the future")
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

// checkToken is what CreateToken asks of its arguments.
func checkToken(name, role string) error {
	var fields []FieldError
	if err := checkTokenName(name); err != nil {
		fields = append(fields, FieldError{"name", err.Error()})
	}
	if err := checkRole(role); err != nil {
		fields = append(fields, FieldError{"role", err.Error()})
	}
	if len(fields) > 0 {
		return invalid(fields...)
	}
	return nil
}

type (
	tokenCreateInput   struct{ Body TokenCreate }
	tokenCreatedOutput struct{ Body NewToken }
)

func (a *API) listTokens(ctx context.Context, in *PageInput) (*listOutput[Token], error) {
	at, err := in.position("tokens", 0)
	if err != nil {
		return nil, err
	}
	rows, err := a.lists().ListTokens(ctx, at[0], int32(in.offset()), in.rows())
	if err != nil {
		return nil, err
	}
	return newList(in, rows, viewToken, func(t queries.ListTokensRow) string { return makeCursor("tokens", t.ID) })
}

func (a *API) createToken(ctx context.Context, in *tokenCreateInput) (*tokenCreatedOutput, error) {
	var expires *time.Time
	if e := in.Body.ExpiresAt; e.Sent && !e.Null {
		expires = &e.Value
	}
	token, secret, err := CreateToken(ctx, queries.New(a.Pool), in.Body.Name.Value, in.Body.Role.Value, expires)
	if err != nil {
		return nil, err
	}
	return &tokenCreatedOutput{NewToken{Token: viewToken(queries.ListTokensRow(token)), Secret: secret}}, nil
}

// revokeToken ends a token at once; doing it again changes nothing.
func (a *API) revokeToken(ctx context.Context, in *IDInput) (*struct{}, error) {
	n, err := queries.New(a.Pool).RevokeToken(ctx, in.ID)
	if err == nil && n == 0 {
		err = notFound("token")
	}
	return nil, err
}
