package handlers

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"muster/addr"
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
	members, err := s.Store.Members.List(q.Context(), q.Consistency())
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

// memberText reads {id} of a members path. Released official clients glue the query to the path
// (`/members/2%3Fforce=true`); what stands behind the question mark is taken for the query it was meant to be.
func memberText(q *Request) (text string, query url.Values, err error) {
	query = q.URL.Query()
	text, err = url.PathUnescape(q.Vars()["id"])
	if err != nil {
		return "", nil, Fail(http.StatusBadRequest, "Invalid node ID")
	}
	if path, glued, ok := strings.Cut(text, "?"); ok {
		text = path
		if extra, err := url.ParseQuery(glued); err == nil {
			for k, v := range extra {
				query[k] = append(query[k], v...)
			}
		}
	}
	return text, query, nil
}

// lookUp finds the member of a request: by its number, UUID, name, address or host name. 0 and negative numbers are
// invalid for drain and resume and simply unknown elsewhere, as in the original; so is any text that names nobody.
func (s *Server) lookUp(q *Request, positive bool) (*store.Member, url.Values, error) {
	text, query, err := memberText(q)
	if err != nil {
		return nil, nil, err
	}
	id, number := naming.Number(text)
	if !number {
		m, err := s.resolve(q, text, naming.Resolve)
		if errors.Is(err, naming.ErrNone) {
			err = Fail(http.StatusBadRequest, "Invalid node ID")
		}
		return m, query, err
	}
	if positive && id < 1 {
		return nil, nil, Fail(http.StatusBadRequest, "Invalid node ID")
	}
	var m *store.Member
	err = s.Store.Read(q.Context(), q.Consistency(), func(v *store.View) (err error) {
		m, err = v.Member(uint64(max(id, 0)))
		return err
	})
	if err == nil && m == nil {
		err = Fail(http.StatusNotFound, "Cluster member not found")
	}
	return m, query, err
}

// raftPeer is the Raft server that the query names: ?id by any name of a member, ?address by an address or host name.
// All members are looked at, also those outside Raft: what names a dead one as well is ambiguous.
func (s *Server) raftPeer(q *Request, status int) (*store.Member, error) {
	query := q.URL.Query()
	kind, wanted, by := "id", query.Get("id"), resolver(naming.Resolve)
	if _, ok := query["address"]; ok {
		kind, wanted, by = "address", query.Get("address"), naming.ResolveAddress
	}
	m, err := s.resolve(q, wanted, by)
	if err == nil && rolesOf(s.Store.Servers())[m.NodeID] == store.RoleNone {
		err = naming.ErrNone
	}
	if errors.Is(err, naming.ErrNone) {
		return nil, Fail(status, fmt.Sprintf("%s %q was not found in the Raft configuration", kind, wanted))
	}
	return m, err
}

// checkTransferHost accepts an address with a host name where a member advertises that host, and gives the documented
// refusal otherwise: the original knows IP addresses only. What a stranger can learn here, GET /v1/status/peers tells.
func (s *Server) checkTransferHost(r *http.Request) error {
	text := r.URL.Query().Get("address")
	if text == "" {
		return nil
	}
	_, documented := netip.ParseAddrPort(text)
	host, _, err := net.SplitHostPort(text)
	if documented == nil || err != nil || addr.Check(text) != nil {
		return transferAddress(documented)
	}
	members, err := s.Store.Members.List(r.Context(), store.Stale)
	if err != nil {
		return transferAddress(documented)
	}
	for i := range members {
		if h, _, err := net.SplitHostPort(members[i].RaftAddress); err == nil && addr.CanonicalHost(h) == addr.CanonicalHost(host) {
			return nil
		}
	}
	return transferAddress(documented)
}

func transferAddress(err error) error {
	if err == nil {
		return nil
	}
	return Fail(http.StatusBadRequest, fmt.Sprintf("address must be in IP:port format: %s", err))
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
