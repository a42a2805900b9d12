package nomad

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"muster/handlers"
	"muster/store"
)

// raftServer is one server of the configuration; keys in alphabetical order, as on the wire (reference nomad_raft,
// sections 1 and 2). Consul's command line uses the same endpoint and reads the other names, which follow.
type raftServer struct {
	Address      string
	ID           string
	Leader       bool
	Node         string
	RaftProtocol string
	Voter        bool

	LastIndex       uint64 // revision of its replica, at the leader; 0 elsewhere
	ProtocolVersion string // RaftProtocol
}

type raftConfiguration struct {
	Index   uint64
	Servers []raftServer
}

// region is the region in members' names for this family's clients.
const region = "global"

// checkStale rejects malformed common parameters with the documented texts.
func checkStale(r *http.Request) error {
	query := r.URL.Query()
	if err := handlers.CheckStale(r); err != nil {
		return err
	}
	if v := query.Get("wait"); v != "" {
		if _, err := time.ParseDuration(v); err != nil {
			return handlers.Fail(http.StatusBadRequest, "Invalid wait time")
		}
	}
	if v := query.Get("index"); v != "" {
		if _, err := strconv.ParseUint(v, 10, 64); err != nil {
			return handlers.Fail(http.StatusBadRequest, "Invalid index")
		}
	}
	if v := query.Get("per_page"); v != "" {
		if _, err := strconv.ParseInt(v, 10, 32); err != nil {
			return handlers.Fail(http.StatusBadRequest, "Expect a number for `per_page` query string parameter")
		}
	}
	return checkRegion(r)
}

// checkRegion rejects every other region; all requests of the family may name one.
func checkRegion(r *http.Request) error {
	if v := r.URL.Query().Get("region"); v != "" && v != region {
		return handlers.Fail(http.StatusInternalServerError, "No path to region")
	}
	return nil
}

func (s *service) raftConfiguration(q *handlers.Request) error {
	servers, err := s.raftServers(q)
	if err != nil {
		return err
	}
	return writeJSON(q, raftConfiguration{Index: s.revision(q.Context(), q.Stale), Servers: servers})
}

// raftServers lists the servers of the Raft configuration with the details in the members table.
func (s *service) raftServers(q *handlers.Request) ([]raftServer, error) {
	ctx := q.Context()
	members, err := s.Members.List(ctx, q.Consistency())
	if q.Stale && s.Replica.Leading() { // the leader's state is newer than its mirror and costs no request
		members, err = s.Members.List(ctx, store.AsLeader)
	}
	if err != nil {
		return nil, err
	}
	leader, servers := s.Replica.NodeID(), s.Replica.Servers()
	if q.Stale { // as this member's own Raft server has it
		leader, servers = s.Replica.LeaderID(), s.Replica.OwnServers(ctx)
	}
	byID := make(map[uint64]*store.Member, len(members))
	for i := range members {
		byID[members[i].NodeID] = &members[i]
	}
	reached := s.reached()
	list := make([]raftServer, 0, len(servers))
	for _, v := range servers {
		server := raftServer{
			ID:           strconv.FormatUint(v.NodeID, 10),
			Node:         "(unknown)",
			RaftProtocol: "unknown",
			Leader:       v.NodeID == leader,
			Voter:        v.Role == store.RoleVoter,
			LastIndex:    reached[v.NodeID],
		}
		if m := byID[v.NodeID]; m != nil {
			server.ID, server.Address, server.Node, server.RaftProtocol = m.ID, m.RaftAddress, m.Name+"."+region, "3"
		}
		server.ProtocolVersion = server.RaftProtocol
		list = append(list, server)
	}
	return list, nil
}

// reached returns the revision of each server, from the leader's last round.
func (s *service) reached() map[uint64]uint64 {
	now, state := s.Replica.Revision(), s.Cluster.Autopilot()
	list := make(map[uint64]uint64, len(state.Servers))
	for i := range state.Servers {
		v := &state.Servers[i]
		list[v.NodeID] = now - min(now, v.Lag)
	}
	return list
}

func (s *service) revision(_ context.Context, stale bool) uint64 {
	if stale {
		return s.Mirror.Revision()
	}
	return s.Replica.Revision()
}

// pretty reports whether the query asks for indented JSON; only pretty=0 is off.
func pretty(q *handlers.Request) bool {
	values, given := q.URL.Query()["pretty"]
	return given && values[0] != "0"
}

// writeJSON writes v compactly, or with `pretty` indented by four spaces.
func writeJSON(q *handlers.Request, v any) error {
	data := handlers.MustJSON(v)
	if pretty(q) {
		var out bytes.Buffer
		if err := json.Indent(&out, data, "", "    "); err != nil {
			return err
		}
		data = append(out.Bytes(), '\n')
	}
	return q.Send(http.StatusOK, "application/json", data, 0)
}
