package api

import (
	"context"

	"github.com/signpost/signpost/internal/service"
)

type (
	systemOutput struct{ Body service.System }
	batchInput   struct {
		ID string `path:"batch" maxLength:"64" doc:"The id of a batch."`
	}
)

func (a *API) getSystem(ctx context.Context, _ *struct{}) (*systemOutput, error) {
	system, err := a.service.GetSystem(ctx, actorIn(ctx))
	return &systemOutput{system}, err
}

// changeBatch returns a handler that does what an operator decided about a failed batch.
func changeBatch(change func(ctx context.Context, actor Actor, id string) error) func(context.Context, *batchInput) (*struct{}, error) {
	return func(ctx context.Context, in *batchInput) (*struct{}, error) {
		return nil, change(ctx, actorIn(ctx), in.ID)
	}
}
