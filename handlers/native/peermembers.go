package native

import (
	"context"
	"net/http"

	"muster/handlers"
	"muster/store"
)

// listPeerMembers answers GET /api/v1/peerings/{name}/members: what the other cluster exports.
func (s *service) listPeerMembers(q *handlers.Request) error {
	p, err := s.Store.Peerings.ByName(q.Context(), q.Consistency(), q.Vars()["name"])
	if err != nil {
		return err
	}
	if p == nil {
		return handlers.Fail(http.StatusNotFound, "peering not found")
	}
	read := s.Store.Peerings.Members
	if q.Stale {
		read = func(ctx context.Context, id string) ([]store.PeerMember, error) {
			return s.Store.Peerings.Members(ctx, store.Stale, id)
		}
	}
	members, err := read(q.Context(), p.ID)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, members)
}
