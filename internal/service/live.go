package service

import (
	"context"

	"github.com/signpost/signpost/internal/live"
)

// Live begins to listen to clicks as they are ingested: to those of a link, or of all
// links (0). since is the position after which it begins, as a page of [live.Page] had
// it, or "" for now. The caller closes the listener.
func (s *Service) Live(ctx context.Context, actor Actor, urlID int64, since string) (*live.Listener, error) {
	if err := actor.Require(ReadsEvents); err != nil {
		return nil, err
	}
	if urlID != 0 {
		if _, err := s.GetLink(ctx, actor, urlID); err != nil {
			return nil, err
		}
	}
	return s.Clicks.Listen(ctx, urlID, since)
}
