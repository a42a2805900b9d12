package native

import (
	"net/http"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

// listPeerMembers serves GET /api/v1/peerings/{name}/members: the members that the other cluster exports.
func (s *service) listPeerMembers(q *handlers.Request) error {
	p, err := s.Peerings.ByName(q.Context(), q.Consistency(), q.Vars()["name"])
	if err != nil {
		return err
	}
	if p == nil {
		return handlers.Fail(http.StatusNotFound, "peering not found")
	}
	from := store.AsLeader
	if q.Stale {
		from = store.Stale
	}
	members, err := s.Peerings.Members(q.Context(), from, p.ID)
	if err != nil {
		return err
	}
	list := make([]api.PeerMember, len(members))
	for i, m := range members {
		list[i] = api.PeerMember(m)
	}
	return q.Result(http.StatusOK, list)
}
