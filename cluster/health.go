package cluster

import (
	"context"
	"fmt"
	"time"

	"muster/cluster/autopilot"
	"muster/store"
)

// A change of health is recorded when it has lasted, so that a flapping member does not cause a write each time.
const (
	unhealthyFor  = 3 * time.Second
	healthyFor    = 10 * time.Second
	healthPerTick = 10 // maximum changes in one round; the rest follows in the next rounds
)

// sighting is a member's health as observed in this leadership.
type sighting struct {
	healthy bool
	since   time.Time
	alive   bool // it has answered this leader at least once
	failed  bool // it was last unhealthy because it could not write to its disk
}

// watchHealth records in SQL which members have become unhealthy or healthy. Records of earlier leaders stay valid. It
// ignores a member outside Raft that has never answered this leader, which may never have been started.
func (t *term) watchHealth(ctx context.Context, state *autopilot.State, now time.Time) error {
	noted, err := t.Store.Members.Unhealthy(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	changes := healthChanges(t.sightings, noted, state, now)
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return t.Store.Members.SetHealth(ctx, t.actor(), changes)
}

// healthChanges updates the sightings and returns the changes to record.
func healthChanges(seen map[uint64]*sighting, noted map[uint64]bool, state *autopilot.State,
	now time.Time) (changes []store.HealthChange) {
	there := make(map[uint64]bool, len(state.Servers))
	for i := range state.Servers {
		v := &state.Servers[i]
		there[v.NodeID] = true
		s := seen[v.NodeID]
		if s == nil {
			s = &sighting{healthy: v.Healthy, since: now}
			seen[v.NodeID] = s
		}
		if s.healthy != v.Healthy {
			s.healthy, s.since = v.Healthy, now
		}
		if !v.Healthy {
			s.failed = v.CannotStore != ""
		}
		s.alive = s.alive || v.NodeStatus == autopilot.StatusAlive
		lasted := now.Sub(s.since)
		switch {
		case v.Mode == "": // in Raft without a row: being removed
		case len(changes) == healthPerTick:
		case s.healthy && noted[v.NodeID] && lasted >= healthyFor:
			changes = append(changes, store.HealthChange{NodeID: v.NodeID, Healthy: true, Reason: healthyReason(s)})
		case !s.healthy && !noted[v.NodeID] && lasted >= unhealthyFor && (s.alive || v.Role != ""):
			changes = append(changes, store.HealthChange{NodeID: v.NodeID, Reason: unhealthyReason(v, now)})
		}
	}
	for id := range seen {
		if !there[id] {
			delete(seen, id)
		}
	}
	return changes
}

func healthyReason(s *sighting) string {
	if s.failed {
		return "stores again"
	}
	return "answers again"
}

func unhealthyReason(v *autopilot.Server, now time.Time) string {
	switch {
	case v.CannotStore != "" && v.NodeStatus == autopilot.StatusAlive:
		return "cannot store: " + v.CannotStore
	case v.NodeStatus == autopilot.StatusAlive:
		return fmt.Sprintf("%d revisions behind", v.Lag)
	case v.LastContact.IsZero():
		return "has not answered this leader"
	}
	return fmt.Sprintf("no answer for %v", now.Sub(v.LastContact).Round(time.Second))
}
