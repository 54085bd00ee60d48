package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// Token lets its bearer use the API. The secret is not included.
type Token = service.Token

// NewToken is a Token with its secret, which is shown only once.
type NewToken struct {
	Token
	Secret string `json:"token" example:"sp_2YotnFZFEjr1zCsicMWpAA3bXmJkL9dQpRtUvWxYz01" doc:"The secret. It is stored nowhere and cannot be shown again."`
}

// TokenCreate is the body that makes a token.
type TokenCreate struct {
	Name      Optional[string] `json:"name" required:"true" minLength:"1" maxLength:"100" example:"deploy script" doc:"Who or what will use it."`
	Role      Optional[string] `json:"role" required:"true" enum:"admin,editor,reader" example:"editor"`
	ExpiresAt OptionalTime     `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z" doc:"When the token ends; never if absent."`
}

func (t *TokenCreate) fields() service.TokenFields {
	return service.TokenFields{Name: t.Name.Optional, Role: t.Role.Optional, ExpiresAt: t.ExpiresAt.OptionalTime}
}

// Resolve implements huma.Resolver.
func (t *TokenCreate) Resolve(huma.Context) []error { return bodyFaults(t.fields().Check()) }

type (
	tokenCreateInput   struct{ Body TokenCreate }
	tokenCreatedOutput struct{ Body NewToken }
)

func (a *API) listTokens(ctx context.Context, in *PageInput) (*listOutput[Token], error) {
	return listRows(ctx, in, "tokens", a.service.ListTokens, func(t Token) int64 { return t.ID })
}

func (a *API) createToken(ctx context.Context, in *tokenCreateInput) (*tokenCreatedOutput, error) {
	token, secret, err := a.service.CreateToken(ctx, actorIn(ctx), in.Body.fields(), nil)
	return &tokenCreatedOutput{NewToken{Token: token, Secret: secret}}, err
}

func (a *API) revokeToken(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, a.service.RevokeToken(ctx, actorIn(ctx), in.ID)
}
