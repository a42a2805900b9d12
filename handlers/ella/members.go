package ella

import (
	"net/http"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// member is one entry of the list; the documented fields come first (reference ella_members, section 1.2).
type member struct {
	NodeID         uint64 `json:"nodeId"`
	RaftAddress    string `json:"raftAddress"`
	APIAddress     string `json:"apiAddress"`
	BinaryVersion  string `json:"binaryVersion"`
	Suffrage       string `json:"suffrage"`
	IsLeader       bool   `json:"isLeader"`
	DrainState     string `json:"drainState"`
	DrainUpdatedAt string `json:"drainUpdatedAt,omitempty"`

	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Mode      string            `json:"mode"`
	Role      string            `json:"role"` // voter, standby, spare, or member when it is not a Raft server
	Status    string            `json:"status"`
	OverlayIP string            `json:"overlayIp"`
	SliceCIDR string            `json:"sliceCidr"`
	Labels    map[string]string `json:"labels,omitempty"`
	JoinedAt  string            `json:"joinedAt"`
	DownSince string            `json:"downSince,omitempty"` // when one that does not answer last did
	DiskLow   bool              `json:"diskLow,omitempty"`
	// CannotStore is why it does not store, a clause of a sentence, as the leader's probes have it; empty when it does.
	CannotStore string `json:"cannotStore,omitempty"`

	Recipient     string              `json:"recipient,omitempty"`     // the age public key, where one member is asked for
	DrainDeadline string              `json:"drainDeadline,omitempty"` // while it is draining
	Hooks         []store.HookOutcome `json:"hooks,omitempty"`         // of the last drain or resume
}

func (s *service) listMembers(q *handlers.Request) error {
	members, err := s.Store.Members.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	servers, err := s.servers(q)
	if err != nil {
		return err
	}
	roles := membership.Roles(servers)
	list := make([]member, len(members))
	for i := range members {
		list[i] = s.member(&members[i], roles)
	}
	return q.Result(http.StatusOK, list)
}

// servers returns the Raft configuration: the leader's, or for a stale answer that of this member's own Raft server.
func (s *service) servers(q *handlers.Request) ([]store.Server, error) {
	if !q.Stale {
		return s.Store.Servers(), nil
	}
	return s.Store.RefreshServers(q.Context())
}

// member describes a member by its row and by the role that holds in Raft.
func (s *service) member(m *store.Member, roles map[uint64]store.Role) member {
	out := member{NodeID: m.NodeID, RaftAddress: m.RaftAddress, APIAddress: "https://" + m.APIAddress, BinaryVersion: m.BinaryVersion,
		Suffrage: "nonvoter", IsLeader: m.NodeID == s.Store.LeaderID(), DrainState: m.DrainState, ID: m.ID, Name: m.Name, Mode: m.Mode,
		Role: "member", Status: s.Cluster.Alive(m.NodeID), OverlayIP: m.OverlayIP, SliceCIDR: m.SliceCIDR, Labels: m.Labels,
		JoinedAt: m.JoinedAt.UTC().Format(handlers.TimeFormat), DiskLow: s.Cluster.DiskLow(m.NodeID)}
	out.CannotStore = s.Cluster.CannotStore(m.NodeID)
	if at := s.Cluster.DownSince(m.NodeID); !at.IsZero() {
		out.DownSince = at.UTC().Format(handlers.TimeFormat)
	}
	if role := roles[m.NodeID]; role != store.RoleNone {
		out.Role = string(role)
		if role == store.RoleVoter {
			out.Suffrage = "voter"
		}
	}
	out.Hooks, out.DrainDeadline = m.Hooks, showDrain(m).Deadline
	if m.DrainUpdatedAt != nil {
		out.DrainUpdatedAt = m.DrainUpdatedAt.UTC().Format(handlers.TimeFormat)
	}
	return out
}

func (s *service) autopilot(q *handlers.Request) error {
	if q.Stale && !s.Store.Leading() {
		return s.staleAutopilot(q)
	}
	if err := s.Store.Confirm(q.Context()); err != nil {
		return err
	}
	return q.Result(http.StatusOK, s.Cluster.Autopilot())
}

// staleAutopilot answers without a leader: who the members are and who votes, as this member last knew it. Nobody knows
// how they are, so nobody is healthy. Where a leader is known, it answers.
func (s *service) staleAutopilot(q *handlers.Request) error {
	if s.Store.LeaderID() != 0 {
		return store.ErrNoLeader
	}
	members, err := s.Store.Members.List(q.Context(), store.Stale)
	if err != nil {
		return err
	}
	servers, err := s.servers(q)
	if err != nil {
		return err
	}
	roles := membership.Roles(servers)
	state := autopilot.State{Voters: []uint64{}, Servers: make([]autopilot.Server, len(members))}
	for i, m := range members {
		voter := roles[m.NodeID] == store.RoleVoter
		state.Servers[i] = autopilot.Server{
			NodeID:          m.NodeID,
			RaftAddress:     m.RaftAddress,
			NodeStatus:      "unknown",
			HasVotingRights: voter,
			Name:            m.Name,
			Role:            string(roles[m.NodeID]),
			Mode:            m.Mode,
			DrainState:      m.DrainState,
			Version:         m.BinaryVersion,
			Reason:          "there is no leader that would know how it is",
		}
		if voter {
			state.Voters = append(state.Voters, m.NodeID)
		}
	}
	return q.Result(http.StatusOK, state)
}
