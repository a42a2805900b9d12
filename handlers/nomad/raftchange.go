package nomad

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// checkRemovePeer checks the arguments as documented: exactly one of id and address (reference nomad_raft, 3.2).
func checkRemovePeer(r *http.Request) error {
	query := r.URL.Query()
	ids, id := query["id"]
	addresses, address := query["address"]
	switch {
	case !id && !address:
		return handlers.Fail(http.StatusBadRequest,
			"Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
	case id && address:
		return handlers.Fail(http.StatusBadRequest, "Must specify only one of ?id or ?address")
	case len(ids)+len(addresses) > 1: // removing whichever comes first could be wrong
		return handlers.Fail(http.StatusBadRequest, "Must specify only one server to remove")
	}
	return checkRegion(r)
}

// checkTransfer checks the arguments in the documented order (reference nomad_raft, 3.3).
func checkTransfer(r *http.Request) error {
	bad := func(format string, args ...any) error {
		return handlers.Fail(http.StatusBadRequest, fmt.Sprintf(format, args...))
	}
	query := r.URL.Query()
	ids, id := query["id"]
	addresses, address := query["address"]
	switch {
	case !id && !address:
		return bad("must specify id or address")
	case id && address:
		return bad("must specify either id or address")
	case id && len(ids) > 1:
		return bad("must specify only one id")
	case id && ids[0] == "":
		return bad("id must be non-empty")
	case address && len(addresses) > 1:
		return bad("must specify only one address")
	case address && addresses[0] == "":
		return bad("address must be non-empty")
	}
	if id {
		if err := checkUUID(ids[0]); err != nil {
			return bad("id must be a uuid: %s", err)
		}
		return checkRegion(r)
	}
	return checkRegion(r) // checkTransferHost checks the address itself
}

func checkUUID(s string) error {
	if len(s) != 36 {
		return errors.New("uuid string is wrong length")
	}
	if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return errors.New("uuid is improperly formatted")
	}
	_, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err
}

// removePeer removes the member by the same operation as the members family, with the quorum check but, as documented,
// without requiring a drain.
func (s *service) removePeer(q *handlers.Request) error {
	if again, err := s.membership.RemovedBefore(q); err != nil {
		return err
	} else if again {
		q.W.WriteHeader(http.StatusOK)
		return nil
	}
	m, err := s.raftPeer(q, http.StatusInternalServerError)
	if err != nil {
		return err
	}
	var quorum *membership.QuorumError
	switch err := s.membership.Remove(q, m, membership.Removal{Quorum: true}); {
	case errors.Is(err, membership.ErrLeader) && len(s.membership.Voters()) == 1:
		return handlers.Fail(http.StatusInternalServerError, "need at least one voter in configuration: {[]}")
	case errors.Is(err, membership.ErrLeader):
		return handlers.Fail(http.StatusInternalServerError,
			"the leader cannot be removed: transfer leadership first, then retry")
	case errors.As(err, &quorum):
		return handlers.Fail(http.StatusInternalServerError,
			"removing the peer would leave the cluster without a healthy quorum: "+err.Error())
	case err != nil:
		return err
	}
	q.W.WriteHeader(http.StatusOK)
	return nil
}

type raftID struct {
	Address string
	ID      string
}

// transferLeadership hands leadership to a voter that is alive and caught up, and rejects any other.
func (s *service) transferLeadership(q *handlers.Request) error {
	to, err := s.raftPeer(q, http.StatusBadRequest)
	if err != nil {
		return err
	}
	members, err := s.Members.List(q.Context(), store.Linearisable)
	if err != nil {
		return err
	}
	out := struct {
		Err  *string
		From raftID
		Noop bool
		To   raftID
	}{To: raftID{to.RaftAddress, to.ID}}
	for i := range members {
		if members[i].NodeID == s.Replica.NodeID() {
			out.From = raftID{members[i].RaftAddress, members[i].ID}
		}
	}
	if to.NodeID == s.Replica.NodeID() {
		out.Noop = true
		return writeJSON(q, out)
	}
	if membership.Roles(s.Replica.Servers())[to.NodeID] != store.RoleVoter {
		return handlers.Fail(http.StatusBadRequest, fmt.Sprintf("node %d is not a voter", to.NodeID))
	}
	if err := s.transferTo(q, to); err != nil {
		return err
	}
	return writeJSON(q, out)
}

// transferTo hands leadership over. It returns nil when the member accepts writes and the audit records it, and
// ErrUnknownOutcome when no leader is known afterwards.
func (s *service) transferTo(q *handlers.Request, to *store.Member) error {
	failed := func(format string, args ...any) error {
		return handlers.Fail(http.StatusInternalServerError, "failed to transfer leadership: "+fmt.Sprintf(format, args...))
	}
	if applied := s.Replica.AppliedSchema(); to.MaxSchema < applied {
		return failed("node %d runs %s, which knows the schema up to %d, and the database has %d: it would not lead",
			to.NodeID, to.BinaryVersion, to.MaxSchema, applied)
	}
	if err := s.Cluster.CanLead(q.Context(), to.NodeID); err != nil {
		return failed("%v", err)
	}
	since := s.Replica.Revision()
	// Audit the request before leadership moves: afterwards this member cannot write.
	if err := s.Audit.NoteTransfer(q.Context(), q.Actor, to.NodeID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(q.Context(), 2*time.Second)
	defer cancel()
	err := s.Replica.Transfer(ctx, to.NodeID)
	var refusal *store.Refusal
	switch {
	case errors.As(err, &refusal):
		return failed("%s", refusal.Message)
	case errors.Is(err, store.ErrNotLeader):
		return err
	case err != nil:
		s.Logger.Warn("transfer", "to", to.NodeID, "err", err)
	}
	after, cancel := context.WithTimeout(q.Context(), transferSettles)
	defer cancel()
	switch leads, err := s.Cluster.Transferred(after, q.Actor, to.NodeID, since); {
	case err != nil:
		s.Logger.Warn("transfer", "to", to.NodeID, "err", err)
		return store.ErrUnknownOutcome
	case leads != to.NodeID:
		return failed("node %d did not take over; node %d leads", to.NodeID, leads)
	}
	return nil
}

// transferSettles is how long a new leader has to accept writes.
const transferSettles = 2500 * time.Millisecond
