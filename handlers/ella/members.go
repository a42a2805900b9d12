package ella

import (
	"net/http"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

func (s *service) listMembers(q *handlers.Request) error {
	members, err := s.Members.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	roles := membership.Roles(s.servers(q))
	list := make([]api.Member, len(members))
	for i := range members {
		list[i] = s.member(&members[i], roles)
	}
	return q.Result(http.StatusOK, list)
}

// servers returns the Raft configuration: the leader's, or for a stale answer that of this member's own Raft server.
func (s *service) servers(q *handlers.Request) []store.Server {
	if q.Stale {
		return s.Replica.OwnServers(q.Context())
	}
	return s.Replica.Servers()
}

// member describes a member from its row and its role in Raft.
func (s *service) member(m *store.Member, roles map[uint64]store.Role) api.Member {
	out := api.Member{
		NodeID:         m.NodeID,
		RaftAddress:    m.RaftAddress,
		APIAddress:     "https://" + m.APIAddress,
		BinaryVersion:  m.BinaryVersion,
		Suffrage:       "nonvoter",
		IsLeader:       m.NodeID == s.Replica.LeaderID(),
		DrainState:     m.DrainState,
		DrainUpdatedAt: api.TimeOf(m.DrainUpdatedAt),
		ID:             m.ID,
		Name:           m.Name,
		Mode:           m.Mode,
		Role:           "member",
		Status:         s.Cluster.Status(m),
		OverlayIP:      m.OverlayIP,
		SliceCIDR:      m.SliceCIDR,
		Labels:         m.Labels,
		JoinedAt:       api.Time(m.JoinedAt),
		DownSince:      api.Time(s.Cluster.DownSince(m.NodeID)),
		Zone:           m.Zone,
		ZoneCost:       s.Cluster.ZoneCost(m.NodeID),
		DiskLow:        s.Cluster.DiskLow(m.NodeID),
		CannotStore:    s.Cluster.CannotStore(m.NodeID),
		DrainDeadline:  showDrain(m).Deadline,
		Hooks:          hooks(m),
	}
	if out.Status == autopilot.StatusLeft {
		out.LeftAt = api.TimeOf(m.LeftAt)
	}
	if role := roles[m.NodeID]; role != store.RoleNone {
		out.Role = string(role)
		if role == store.RoleVoter {
			out.Suffrage = "voter"
		}
	}
	return out
}

func (s *service) autopilot(q *handlers.Request) error {
	if q.Stale && !s.Replica.Leading() {
		return s.staleAutopilot(q)
	}
	if err := s.Replica.Confirm(q.Context()); err != nil {
		return err
	}
	return q.Result(http.StatusOK, s.Cluster.Autopilot())
}

// staleAutopilot answers without a leader, with the members and voters that this member last knew. Their health is
// unknown, so none is healthy. When a leader is known, the request is forwarded to it.
func (s *service) staleAutopilot(q *handlers.Request) error {
	if s.Replica.LeaderID() != 0 {
		return store.ErrNoLeader
	}
	state, err := s.Cluster.Remembered(q.Context())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, state)
}

// hooks returns the outcomes of the hooks of a member's last drain or resume.
func hooks(m *store.Member) (list []api.HookOutcome) {
	for _, h := range m.Hooks {
		list = append(list, api.HookOutcome(h))
	}
	return list
}
