package nomad

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/internal/addr"
	"muster/internal/naming"
	"muster/store"
)

// raftPeer finds the Raft server that the query names: ?id by any name of a member, ?address by an address or host
// name. It searches all members, also outside Raft, so that a text that also names a dead member is ambiguous.
func (s *service) raftPeer(q *handlers.Request, status int) (*store.Member, error) {
	query := q.URL.Query()
	kind, wanted, by := "id", query.Get("id"), membership.Resolver(naming.Resolve)
	if _, ok := query["address"]; ok {
		kind, wanted, by = "address", query.Get("address"), naming.ResolveAddress
	}
	m, err := s.membership.Resolve(q, wanted, by)
	if err == nil && membership.Roles(s.Replica.Servers())[m.NodeID] == store.RoleNone {
		err = naming.ErrNone
	}
	if errors.Is(err, naming.ErrNone) {
		return nil, handlers.Fail(status, fmt.Sprintf("%s %q was not found in the Raft configuration", kind, wanted))
	}
	return m, err
}

// checkTransferHost accepts an address with a host name that a member advertises and rejects others with the documented
// text: the original accepts only IP addresses. It reveals no more than GET /v1/status/peers, which is open.
func (s *service) checkTransferHost(r *http.Request) error {
	text := r.URL.Query().Get("address")
	if text == "" {
		return nil
	}
	_, documented := netip.ParseAddrPort(text)
	host, _, err := net.SplitHostPort(text)
	if documented == nil || err != nil || addr.Check(text) != nil {
		return transferAddress(documented)
	}
	members, err := s.Members.List(r.Context(), store.Stale)
	if err != nil {
		return transferAddress(documented)
	}
	for i := range members {
		if h, _, err := net.SplitHostPort(members[i].RaftAddress); err == nil &&
			addr.CanonicalHost(h) == addr.CanonicalHost(host) {
			return nil
		}
	}
	return transferAddress(documented)
}

func transferAddress(err error) error {
	if err == nil {
		return nil
	}
	return handlers.Fail(http.StatusBadRequest, fmt.Sprintf("address must be in IP:port format: %s", err))
}
