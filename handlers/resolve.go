package handlers

import (
	"errors"

	"net/http"

	"muster/certs"
	"muster/naming"
	"muster/store"
)

// called lists what the members can be called by, dead ones too: an address that a dead member and a live one share must
// not be taken for either.
func (s *Server) called(members []store.Member) []naming.Member {
	list := make([]naming.Member, len(members))
	for i := range members {
		m := &members[i]
		list[i] = naming.Member{NodeID: m.NodeID, ID: m.ID, Name: m.Name, RaftAddress: m.RaftAddress, APIAddress: m.APIAddress,
			Host: m.AdvertiseAddr}
		if s.Alive != nil {
			list[i].Status = s.Alive(m.NodeID)
		}
	}
	return list
}

type resolver func([]naming.Member, string) (naming.Member, error)

// resolve finds the member that an operator means, as the leader has it, or this member where the query allows that. It returns naming.ErrNone when nobody is called
// so and answers 409 with the candidates when several are.
func (s *Server) resolve(q *Request, text string, by resolver) (*store.Member, error) {
	members, err := s.Store.Members(q.Context(), q.Consistency())
	if err != nil {
		return nil, err
	}
	found, err := by(s.called(members), text)
	var several *naming.Ambiguous
	switch {
	case errors.As(err, &several):
		return nil, Fail(http.StatusConflict, several.Error())
	case err != nil:
		return nil, err
	}
	for i := range members {
		if members[i].NodeID == found.NodeID {
			return &members[i], nil
		}
	}
	return nil, naming.ErrNone
}

// nodeFilter reads a parameter that names a member, by any of its names; 0 when it is absent. A number need not be that
// of a member of now.
func (s *Server) nodeFilter(q *Request, name string) (uint64, error) {
	values, given := q.URL.Query()[name]
	if !given {
		return 0, nil
	}
	bad := Fail(http.StatusBadRequest, name+" must be a member's number")
	if id, ok := naming.Number(values[0]); ok {
		if id < 1 || id > certs.MaxNodeID {
			return 0, bad
		}
		return uint64(id), nil
	}
	m, err := s.resolve(q, values[0], naming.Resolve)
	if errors.Is(err, naming.ErrNone) {
		return 0, bad
	}
	if err != nil {
		return 0, err
	}
	return m.NodeID, nil
}
