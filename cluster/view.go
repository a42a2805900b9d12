package cluster

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"muster/cluster/autopilot"
	"muster/store"
)

// view has the observations of the leader's last round. It is empty where this member does not lead.
type view struct {
	*member
	state   atomic.Pointer[autopilot.State]
	alive   atomic.Pointer[map[uint64]string]
	input   atomic.Pointer[autopilot.Input] // nil where this member does not lead
	stalled atomic.Pointer[map[uint64]bool] // members whose replica does not advance
	clocks  clocks
	strays  *strays
	probing atomic.Pointer[prober] // of this leadership; nil where this member does not lead
}

func newView(m *member) *view {
	vw := &view{member: m, strays: newStrays()}
	vw.forget()
	return vw
}

// Autopilot returns the state from the leader's last round; it is empty on other members and at the beginning of a
// leadership.
func (vw *view) Autopilot() autopilot.State {
	s := *vw.state.Load()
	if len(s.Servers) == 0 {
		return s
	}
	// Roles may have changed since the last round; use the current ones, as all endpoints do.
	roles := map[uint64]store.Role{}
	for _, v := range vw.Store.Servers() {
		roles[v.NodeID] = v.Role
	}
	s.Servers, s.Voters = slices.Clone(s.Servers), []uint64{}
	healthy := 0
	for i := range s.Servers {
		v := &s.Servers[i]
		v.Role = string(roles[v.NodeID])
		v.HasVotingRights = roles[v.NodeID] == store.RoleVoter
		v.Electable = v.Electable && v.HasVotingRights
		if v.HasVotingRights {
			s.Voters = append(s.Voters, v.NodeID)
			if v.Healthy {
				healthy++
			}
		}
	}
	s.Healthy = healthy == len(s.Voters)
	s.FailureTolerance = autopilot.FailureTolerance(len(s.Voters), healthy)
	return s
}

// Remembered returns the members and voters from this member's replica, without their health, which is unknown. A
// member that has left keeps that status.
func (vw *view) Remembered(ctx context.Context) (autopilot.State, error) {
	state := autopilot.State{Voters: []uint64{}}
	members, err := vw.Store.Members.List(ctx, store.Stale)
	if err != nil {
		return state, err
	}
	servers := vw.Store.OwnServers(ctx)
	roles := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		roles[v.NodeID] = v.Role
	}
	state.Servers = make([]autopilot.Server, len(members))
	for i := range members {
		m := &members[i]
		voter := roles[m.NodeID] == store.RoleVoter
		state.Servers[i] = autopilot.Server{
			NodeID:          m.NodeID,
			RaftAddress:     m.RaftAddress,
			NodeStatus:      vw.Status(m),
			HasVotingRights: voter,
			Name:            m.Name,
			Role:            string(roles[m.NodeID]),
			Mode:            m.Mode,
			Zone:            m.Zone,
			DrainState:      m.DrainState,
			Version:         m.BinaryVersion,
			Reason:          "unknown: there is no leader",
		}
		if state.Servers[i].NodeStatus == autopilot.StatusLeft {
			state.Servers[i].LeftAt, state.Servers[i].Reason = m.LeftAt.UTC().Truncate(time.Millisecond), "has left"
		}
		if voter {
			state.Voters = append(state.Voters, m.NodeID)
		}
	}
	return state, nil
}

// seen returns a member's state in the last round, or nil.
func (vw *view) seen(nodeID uint64) *autopilot.Server {
	servers := vw.state.Load().Servers
	byID := func(v autopilot.Server, id uint64) int { return cmp.Compare(v.NodeID, id) }
	i, found := slices.BinarySearchFunc(servers, nodeID, byID)
	if !found {
		return nil
	}
	return &servers[i]
}

// DiskLow reports whether a member's disk is nearly full, from the leader's probes.
func (vw *view) DiskLow(nodeID uint64) bool {
	v := vw.seen(nodeID)
	return v != nil && v.DiskLow
}

// ZoneCost returns what the drain or removal of a member means for its zone, from the leader's last round; empty for no
// consequence, or where this member does not lead.
func (vw *view) ZoneCost(nodeID uint64) string {
	if v := vw.seen(nodeID); v != nil {
		return v.ZoneCost
	}
	return ""
}

// CannotStore returns why a member cannot write to its disk, from the leader's last round; empty when it can, or where
// this member does not lead.
func (vw *view) CannotStore(nodeID uint64) string {
	if v := vw.seen(nodeID); v != nil {
		return v.CannotStore
	}
	return ""
}

// DownSince returns the last contact with a member that is down, from the leader's last round; the zero time for one
// that answers or has left, or where this member does not lead.
func (vw *view) DownSince(nodeID uint64) time.Time {
	if v := vw.seen(nodeID); v != nil {
		return v.DownSince
	}
	return time.Time{}
}

// Alive returns "alive", "down" or "left" from the leader's probes; "unknown" where this member does not lead, or not
// long enough to know.
func (vw *view) Alive(nodeID uint64) string {
	if s, ok := (*vw.alive.Load())[nodeID]; ok {
		return s
	}
	return autopilot.StatusUnknown
}

// Status returns a member's status as Alive does. An unknown status is "left" if the member has announced the end of
// its process.
func (vw *view) Status(m *store.Member) string {
	status := vw.Alive(m.NodeID)
	if status == autopilot.StatusUnknown && m.LeftAt != nil && m.NodeID != vw.Store.NodeID() {
		return autopilot.StatusLeft
	}
	return status
}

func (vw *view) forget() {
	vw.state.Store(&autopilot.State{Voters: []uint64{}, Servers: []autopilot.Server{}})
	vw.alive.Store(&map[uint64]string{})
	vw.stalled.Store(&map[uint64]bool{})
	vw.input.Store(nil)
	vw.probing.Store(nil)
	vw.clocks.forget()
	vw.strays.forget()
}

// successor returns the voter to hand leadership to, or 0.
func (vw *view) successor() uint64 {
	state := vw.Autopilot()
	best := -1
	for i := range state.Servers {
		v := &state.Servers[i]
		if v.NodeID == vw.Store.NodeID() || !v.HasVotingRights || !v.Healthy || !v.Electable {
			continue
		}
		if best < 0 || v.Lag < state.Servers[best].Lag {
			best = i
		}
	}
	if best < 0 {
		return 0
	}
	return state.Servers[best].NodeID
}
