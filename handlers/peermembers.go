package handlers

import (
	"net/http"
)

// listPeerMembers answers GET /api/v1/peerings/{name}/members: what the other cluster exports.
func (s *Server) listPeerMembers(q *Request) error {
	p, err := s.Store.Peering(q.Context(), q.Consistency(), q.Vars()["name"])
	if err != nil {
		return err
	}
	if p == nil {
		return Fail(http.StatusNotFound, "peering not found")
	}
	members, err := s.peerMembers(q, p.ID)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, members)
}
