package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// Mark says of which kind visits are.
type Mark = service.Mark

// MarkCreate is the body that makes a mark.
type MarkCreate struct {
	Network   Optional[string] `json:"network" required:"false" nullable:"true" example:"192.0.2.0/24" doc:"A network or an address; its visits are of the kind. Give either this or user_agent."`
	UserAgent Optional[string] `json:"user_agent" required:"false" nullable:"true" example:"AcmeWatch/*" doc:"A pattern of a whole User-Agent, in which * stands for any text; case makes no difference."`
	Kind      Optional[string] `json:"kind" required:"true" enum:"person,bot,preview,monitor,tool" example:"monitor"`
}

func (m *MarkCreate) fields() service.MarkFields {
	return service.MarkFields{Network: m.Network.Optional, UserAgent: m.UserAgent.Optional, Kind: m.Kind.Optional}
}

// Resolve implements huma.Resolver.
func (m *MarkCreate) Resolve(huma.Context) []error { return bodyFaults(m.fields().Check()) }

type (
	markCreateInput   struct{ Body MarkCreate }
	markCreatedOutput struct {
		Location string `header:"Location" doc:"Path of the new mark."`
		Body     Mark
	}
)

func (a *API) listMarks(ctx context.Context, in *PageInput) (*listOutput[Mark], error) {
	return listRows(ctx, in, "marks", a.service.ListMarks, func(m Mark) int64 { return m.ID })
}

func (a *API) createMark(ctx context.Context, in *markCreateInput) (*markCreatedOutput, error) {
	mark, err := a.service.CreateMark(ctx, actorIn(ctx), in.Body.fields())
	return &markCreatedOutput{Location: mark.Path(), Body: mark}, err
}

func (a *API) deleteMark(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, a.service.DeleteMark(ctx, actorIn(ctx), in.ID)
}
