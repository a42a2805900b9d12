package cluster

import (
	"context"
	"slices"
	"time"

	"muster/cluster/autopilot"
	"muster/store"
)

// round observes, decides and acts once.
func (t *term) round(ctx context.Context) error {
	if !t.settled {
		if err := t.settleRecovery(ctx); err != nil {
			return err
		}
		t.settled = true
	}
	begin := time.Now()
	members, err := t.Store.Members.List(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	servers, err := t.Store.RefreshServers(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	t.prober.round(ctx, t.awaited(ctx, targets(members, servers)), now)
	in := t.observe(members, servers)
	cfg, _, err := t.settings.Get(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	state, plan := autopilot.Decide(in, cfg, time.Now())
	t.previous = autopilot.Carry(state)
	in.Previous = t.previous
	t.input.Store(&in)
	t.publish(&state, members, cfg)
	t.cost = time.Since(begin)
	t.cede(ctx)
	if err := t.drive(ctx, members); err != nil {
		return err
	}
	if err := t.decide(ctx, plan, members); err != nil {
		return err
	}
	if err := t.watchHealth(ctx, &state, now); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{t.reconcile, t.finishRemovals, t.rekey, t.advanceCA} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if now.Sub(t.since) < upgradeAfter { // until then live members announce themselves to this leader
		return nil
	}
	return t.upgrade(ctx)
}

// publish makes this round's observations available to readers on this member.
func (vw *view) publish(state *autopilot.State, members []store.Member, cfg autopilot.Config) {
	addresses := make(map[uint64]string, len(members))
	for i := range members {
		addresses[members[i].NodeID] = members[i].RaftAddress
	}
	alive, stalled := make(map[uint64]string, len(state.Servers)), make(map[uint64]bool)
	for i := range state.Servers {
		v := &state.Servers[i]
		v.RaftAddress = addresses[v.NodeID]
		alive[v.NodeID] = v.NodeStatus
		stalled[v.NodeID] = v.CannotStore != "" && v.Stalled > cfg.MaxLagTime
	}
	vw.stalled.Store(&stalled)
	vw.state.Store(state)
	vw.alive.Store(&alive)
}

func targets(members []store.Member, servers []store.Server) []target {
	raft := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		raft[v.NodeID] = v.Role
	}
	list := make([]target, len(members))
	for i := range members {
		m := &members[i]
		role, server := raft[m.NodeID]
		list[i] = target{
			nodeID:     m.NodeID,
			raft:       server || m.Role != store.RoleNone,
			replicates: role == store.RoleVoter || role == store.RoleStandBy,
			joinedAt:   m.JoinedAt,
		}
	}
	return list
}

func (t *term) observe(members []store.Member, servers []store.Server) autopilot.Input {
	roles := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		roles[v.NodeID] = v.Role
	}
	seen := t.prober.snapshot()
	t.watchClocks(seen, func(id uint64) bool { return roles[id] != "" })
	in := autopilot.Input{
		LeaderID:       t.Store.NodeID(),
		LeaderRevision: t.Store.Revision(),
		LeaderSince:    t.since,
		Previous:       t.previous,
		Members:        make([]autopilot.Observation, 0, len(members)),
	}
	for i := range members {
		m, o := &members[i], seen[members[i].NodeID]
		ob := autopilot.Observation{
			NodeID:      m.NodeID,
			Name:        m.Name,
			Mode:        m.Mode,
			Zone:        m.Zone,
			DrainState:  m.DrainState,
			Pinned:      m.Pinned,
			Role:        string(roles[m.NodeID]),
			LastContact: o.LastContact,
			LeftAt:      left(m),
			RTT:         autopilot.Duration(o.RTT),
			Revision:    o.Revision,
			Version:     o.Version,
			DiskLow:     o.DiskLow,
			CannotStore: o.Fault,
			Stalled:     autopilot.Duration(o.Stalled.Truncate(time.Millisecond)),
			Member:      true,
			IsLeader:    m.NodeID == in.LeaderID,
		}
		if o.Interval > probeEvery {
			ob.ProbeInterval = autopilot.Duration(o.Interval)
		}
		in.Members = append(in.Members, ob)
		delete(roles, m.NodeID)
	}
	for id, role := range roles { // in Raft without a row
		o := seen[id]
		in.Members = append(in.Members, autopilot.Observation{NodeID: id, Role: string(role), LastContact: o.LastContact,
			CannotStore: o.Fault})
	}
	return in
}

// left returns when a member announced the end of its process, or the zero time.
func left(m *store.Member) time.Time {
	if m.LeftAt == nil {
		return time.Time{}
	}
	return *m.LeftAt
}

// decide stores the plan in SQL; the reconcile loop, of this or a later leader, carries it out.
func (t *term) decide(ctx context.Context, plan autopilot.Plan, members []store.Member) error {
	var changes []store.RoleChange
	for _, ch := range plan {
		switch ch.Kind {
		case autopilot.KindTransfer:
			if err := t.reach(ctx, ch.NodeID); err != nil {
				return nil // decided again when the probes have noticed it as well
			}
			t.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
			tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			return t.Store.Transfer(tctx, ch.NodeID)
		case autopilot.KindCleanup:
			t.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
			if err := t.CanRemove(ctx, ch.NodeID); err != nil {
				return nil // decided on outdated observations
			}
			rotation, err := t.PrepareRemoval(ctx, ch.NodeID)
			if err != nil {
				return err
			}
			_, err = t.Store.Members.Remove(ctx, t.actor(), ch.NodeID, rotation, func(*store.Member) error { return nil })
			return err
		}
		i := slices.IndexFunc(members, func(m store.Member) bool { return m.NodeID == ch.NodeID })
		if i < 0 || members[i].Role == store.Role(ch.Role) {
			continue // an orphan, or already decided: left to reconcile
		}
		if ch.Kind == autopilot.KindPromote || ch.Kind == autopilot.KindAdd {
			// The machine may have died since its last answer, and a vote for a dead machine can cost the majority.
			if t.reach(ctx, ch.NodeID) != nil {
				break
			}
		}
		if ch.Kind == autopilot.KindDemote && !t.majorityWithout(ctx, ch.NodeID) {
			break
		}
		t.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
		changes = append(changes, store.RoleChange{NodeID: ch.NodeID, Role: store.Role(ch.Role), Reason: ch.Reason})
	}
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t.Wake() // one change often enables the next
	return t.Store.Members.SetRoles(ctx, t.actor(), changes)
}

// majorityWithout probes the voters except one and reports whether those that can write are a majority without it.
func (t *term) majorityWithout(ctx context.Context, nodeID uint64) bool {
	var others []uint64
	voters := 0
	for _, v := range t.Store.Servers() {
		if v.Role != store.RoleVoter || v.NodeID == nodeID {
			continue
		}
		voters++
		if t.CannotStore(v.NodeID) != "" {
			continue // it may answer but cannot confirm writes
		}
		if v.NodeID != t.Store.NodeID() {
			others = append(others, v.NodeID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	need := voters/2 + 1
	if t.Storing().own() == "" {
		need-- // this member itself
	}
	return t.Transport.Ask(ctx, others, need)
}
