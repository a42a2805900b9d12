package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
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
	case v.NodeStatus == autopilot.StatusLeft:
		return "has left"
	case v.LastContact.IsZero():
		return "has not answered this leader"
	}
	return fmt.Sprintf("no answer for %v", now.Sub(v.LastContact).Round(time.Second))
}

// Clocks differ and are set. No decision about votes, leadership or dead members depends on them; tokens, certificates,
// leases and deletions by age do.
const (
	skewTold   = 5 * time.Second // from here on a difference is reported
	skewHeard  = time.Minute     // how long a leader's measurement of this member's clock counts
	skewWrong  = time.Minute     // from here on a leader with a wrong clock hands leadership over
	cedeEvery  = 30 * time.Second
	skewAnswer = 10 * time.Second
	clocksTold = 5 // log lines in one round
	fixClocks  = "synchronise the clocks (chrony, systemd-timesyncd): tokens, certificates and leases go by them"
)

// skew is how far one clock is ahead of another.
func skew(clock, other time.Time) time.Duration {
	if clock.IsZero() {
		return 0
	}
	return clock.Round(0).Sub(other.Round(0)) // without monotonic readings
}

// clocks is what this member knows about clocks.
type clocks struct {
	mu     sync.Mutex
	own    time.Duration            // how far this clock is ahead of the leader's
	at     time.Time                // when a leader last reported its own
	others map[uint64]time.Duration // of a leader: differing clocks, and how far they are ahead
	wrong  bool                     // of a leader: most other clocks agree on another time
	doubt  bool                     // of a leader: as many clocks differ as agree with its own
}

// heard records how far this clock is ahead of a leader's.
func (c *clocks) heard(ahead time.Duration, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own, c.at = ahead, now
}

// saw evaluates the probes of a leader. It returns the members whose clocks have begun, or ceased, to differ.
func (c *clocks) saw(seen map[uint64]observation, raft func(id uint64) bool, own uint64,
	now time.Time) (news map[uint64]bool) {
	others, asked, differ := map[uint64]time.Duration{}, 0, []time.Duration{}
	news = map[uint64]bool{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, o := range seen {
		if id == own || o.LastContact.IsZero() || now.Sub(o.LastContact) > max(skewAnswer, 2*o.Interval) {
			continue
		}
		if raft(id) {
			asked++
		}
		if o.Skew.Abs() > skewTold {
			others[id] = o.Skew
			if raft(id) {
				differ = append(differ, o.Skew)
			}
		}
		if _, before := c.others[id]; before != (others[id] != 0) {
			news[id] = !before
		}
	}
	agree := 1 + asked - len(differ)
	c.others, c.at, c.doubt, c.wrong = others, time.Time{}, len(differ) > 0 && len(differ) >= agree, false
	if len(differ) > agree {
		c.wrong = slices.Max(differ)-slices.Min(differ) < 2*skewTold && differ[0].Abs() > skewWrong
	}
	return news
}

// forget clears the state of a leadership that has ended.
func (c *clocks) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others, c.doubt, c.wrong = nil, false, false
}

// doubted reports whether a leader's own clock may be the wrong one.
func (c *clocks) doubted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubt
}

// isWrong reports whether a leader's own clock is the wrong one.
func (c *clocks) isWrong() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong
}

// ahead returns how far this member's clock is ahead of the leader's; 0 on the leader and without a recent measurement.
func (c *clocks) ahead(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || now.Sub(c.at) > skewHeard {
		return 0
	}
	return c.own
}

// notices returns sentences for the operator.
func (c *clocks) notices(now time.Time) (list []string) {
	if own := c.ahead(now); own.Abs() > skewTold {
		list = append(list, "this member's clock is "+apart(own)+" the leader's; "+fixClocks)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := slices.Sorted(maps.Keys(c.others))
	for i, id := range ids {
		if i == 3 {
			return append(list, fmt.Sprintf("so do the clocks of %d more members; %s", len(ids)-i, fixClocks))
		}
		list = append(list, fmt.Sprintf("the clock of node %d is %s this leader's; %s", id, apart(c.others[id]), fixClocks))
	}
	return list
}

// apart words a difference.
func apart(ahead time.Duration) string {
	if ahead < 0 {
		return (-ahead).Round(time.Second).String() + " behind"
	}
	return ahead.Round(time.Second).String() + " ahead of"
}

// cede hands leadership to another voter when this leader's clock is wrong: tokens, certificates and leases depend on
// the leader's clock, and members reject certificates of another time.
func (t *term) cede(ctx context.Context) {
	if !t.clocks.isWrong() || time.Since(t.ceded) < cedeEvery {
		return
	}
	to := t.successor()
	if to == 0 {
		return
	}
	t.ceded = time.Now()
	t.log.Warn("leadership goes to another member: the clock of this one is wrong", "to", to)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := t.Store.Transfer(ctx, to); err != nil {
		t.log.Warn("leadership could not be given away", "to", to, "err", err)
	}
}

// watchClocks logs clocks that differ from this leader's.
func (t *term) watchClocks(seen map[uint64]observation, raft func(id uint64) bool) {
	told := 0
	for id, differs := range t.clocks.saw(seen, raft, t.Store.NodeID(), time.Now()) {
		if told++; told > clocksTold {
			t.log.Warn("the clocks of more members differ, or agree again: is this leader's own right?")
			return
		}
		if differs {
			t.log.Warn("the clock of a member is not this leader's: synchronise them", "node", id,
				"ahead", seen[id].Skew.Round(time.Second))
		} else {
			t.log.Info("the clock of a member agrees again", "node", id)
		}
	}
}
