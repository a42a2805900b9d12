package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"muster/store"
)

const (
	hooksLimit = 60 * time.Second // for all hooks of one drain
	hooksRetry = 2 * time.Second  // a resume hook waits for its member as long as it takes
)

// hookWork keeps the leader from asking a member twice at the same time.
type hookWork struct {
	mu   sync.Mutex
	busy map[uint64]uint64    // node -> generation
	next map[uint64]time.Time // node -> not before
	done sync.WaitGroup
}

// drive carries on every drain and resume that is recorded in SQL, one step per round.
func (c *Cluster) drive(ctx context.Context, t *term, members []store.Member) error {
	for i := range members {
		m := &members[i]
		switch {
		case m.HooksPending != "":
			c.startHooks(ctx, t, *m)
		case m.DrainState == store.DrainDraining:
			if err := c.drainStep(ctx, t, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// drainStep waits for the leases, then gives leadership away, then ends the drain. The last step is for the leader
// after the hand-over, whoever that is.
func (c *Cluster) drainStep(ctx context.Context, t *term, m *store.Member) error {
	if m.DrainDeadline != nil && time.Now().Before(*m.DrainDeadline) {
		n, err := c.Store.Leases.Count(ctx, store.AsLeader, m.NodeID)
		if err != nil || n > 0 {
			return err
		}
	}
	if m.NodeID == c.Store.NodeID() {
		if to := c.successor(); to != 0 {
			tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			return c.Store.Transfer(tctx, to)
		}
		if time.Since(t.since) < 3*time.Second && c.otherVoters() {
			return nil // who could take over is not known yet
		}
		c.log.Warn("this member is drained and keeps leading: there is no other voter that could", "node", m.NodeID)
	}
	return c.Store.Members.FinishDrain(ctx, c.actor(), m.NodeID, m.DrainGen)
}

func (c *Cluster) otherVoters() bool {
	for _, v := range c.Store.Servers() {
		if v.Role == store.RoleVoter && v.NodeID != c.Store.NodeID() {
			return true
		}
	}
	return false
}

// successor is the voter that leadership should go to, 0 when there is none.
func (c *Cluster) successor() uint64 {
	state := c.Autopilot()
	best := -1
	for i := range state.Servers {
		v := &state.Servers[i]
		if v.NodeID == c.Store.NodeID() || !v.HasVotingRights || !v.Healthy || !v.Electable {
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

func (c *Cluster) startHooks(ctx context.Context, t *term, m store.Member) {
	w := &t.hooks
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[m.NodeID] == m.DrainGen || time.Now().Before(w.next[m.NodeID]) {
		return
	}
	w.busy[m.NodeID] = m.DrainGen
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		err := c.runHooks(ctx, m)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, m.NodeID)
		if err != nil {
			w.next[m.NodeID] = time.Now().Add(hooksRetry)
			c.log.Warn("hooks", "kind", m.HooksPending, "node", m.NodeID, "err", err)
		}
		c.wake()
	}()
}

// runHooks has the member run its hooks and records the outcome. A member that cannot be reached is drained all the
// same, with a word about it, so that it can be removed; the hooks of a resume wait until it is back.
func (c *Cluster) runHooks(ctx context.Context, m store.Member) error {
	hctx, cancel := context.WithTimeout(ctx, hooksLimit)
	defer cancel()
	var outcome []store.HookOutcome
	var err error
	if m.NodeID == c.Store.NodeID() {
		outcome = c.Hooks.run(hctx, m.HooksPending, m.DrainGen)
	} else if err = c.reach(hctx, m.NodeID); err == nil {
		var body []byte
		if body, err = json.Marshal(hookRun{Kind: m.HooksPending, Generation: m.DrainGen}); err != nil {
			return err
		}
		err = c.Transport.Call(hctx, http.MethodPost, m.NodeID, pathHooks, bytes.NewReader(body), &outcome)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if m.HooksPending == store.HookResume {
			return err
		}
		c.log.Warn("a member is drained without its hooks", "node", m.NodeID, "err", err)
		outcome = []store.HookOutcome{{Name: "node", Message: fmt.Sprintf("node %d could not be reached, its hooks did not run", m.NodeID)}}
	}
	return c.Store.Members.HooksDone(ctx, c.actor(), m.NodeID, m.DrainGen, m.HooksPending, outcome)
}

// reach asks a member for a sign of life, briefly.
func (c *Cluster) reach(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := c.probe(ctx, nodeID)
	return err
}

// Reachable tells why a member does not answer, nil when it does. It blocks for at most 1.5 s.
func (c *Cluster) Reachable(ctx context.Context, nodeID uint64) error {
	if err := c.reach(ctx, nodeID); err != nil {
		return fmt.Errorf("node %d does not answer", nodeID)
	}
	return nil
}

// CanLead tells why leadership must not go to a member now: it does not answer, is too far behind, cannot store or is low on disk space;
// nil when it may. It asks the member itself and blocks for at most 1.5 s.
func (c *Cluster) CanLead(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	before := c.Store.Revision()
	r, err := c.probe(ctx, nodeID)
	if err != nil {
		return fmt.Errorf("node %d does not answer", nodeID)
	}
	cfg, _, err := c.Settings(ctx)
	if err != nil {
		return err
	}
	switch {
	case r.Revision+cfg.MaxLagRevisions < before:
		return fmt.Errorf("node %d is %d revisions behind, %d are allowed", nodeID, before-r.Revision, cfg.MaxLagRevisions)
	case r.Fault != "":
		return fmt.Errorf("node %d cannot store: %s", nodeID, r.Fault)
	case r.DiskLow:
		return fmt.Errorf("node %d is low on disk space", nodeID)
	}
	return nil
}
