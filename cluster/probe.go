package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/transport"
	"muster/store"
)

// announced is what the leader's probes tell members of: the revision of the trust and the key of node identities.
func (c *Cluster) announced(ctx context.Context) (trust uint64, key string) {
	if t, err := c.Store.Authorities.Trust(ctx, store.AsLeader); err == nil {
		trust = t.Revision
	}
	if k, err := c.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT); err == nil {
		key = k.KID
	}
	return trust, key
}

func probePath(trust uint64, key string, stalled bool) string {
	q := url.Values{"trust": {strconv.FormatUint(trust, 10)}, "key": {key}}
	if stalled {
		q.Set("stalled", "true")
	}
	return transport.PathProbe + "?" + q.Encode()
}

// hear reads what a probe tells.
func (c *Cluster) hear(q url.Values) {
	var at *time.Time
	if q.Get("stalled") == "true" {
		now := time.Now()
		at = &now
	}
	c.stalledAt.Store(at)
	trust, _ := strconv.ParseUint(q.Get("trust"), 10, 64)
	c.renewal.expect(trust, q.Get("key"))
}

func (c *Cluster) probe(ctx context.Context, id uint64) (r Report, err error) {
	trust, key := c.announced(ctx)
	if id == c.Store.NodeID() {
		c.renewal.expect(trust, key)
		return c.report(), nil
	}
	err = c.Transport.Call(ctx, http.MethodGet, id, probePath(trust, key, (*c.stalled.Load())[id]), nil, &r)
	return r, err
}

func (c *Cluster) report() Report {
	return Report{Incarnation: c.Incarnation, NodeID: c.Store.NodeID(), Version: c.Self.BinaryVersion,
		Revision: c.Store.Mirror.Revision(), Leader: c.Store.LeaderID(),
		Trust: c.renewal.trusted.Load(), DiskFree: c.Disk().Free, DiskLow: c.Disk().Low, Fault: c.Storing().own()}
}

// reach asks a member for a sign of life, briefly.
func (c *Cluster) reach(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := c.probe(ctx, nodeID)
	return err
}

// Reachable returns why a member does not answer, nil when it does. It blocks for at most 1.5 s.
func (c *Cluster) Reachable(ctx context.Context, nodeID uint64) error {
	if err := c.reach(ctx, nodeID); err != nil {
		return fmt.Errorf("node %d does not answer", nodeID)
	}
	return nil
}

// CanLead returns why a member must not lead now: it does not answer, is too far behind, cannot store or is low on disk
// space. It returns nil when it may. It asks the member itself and blocks for at most 1.5 s.
func (c *Cluster) CanLead(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	before := c.Store.Revision()
	r, err := c.probe(ctx, nodeID)
	if err != nil {
		return fmt.Errorf("node %d does not answer", nodeID)
	}
	cfg, _, err := c.settings.Get(ctx, store.AsLeader)
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

// CanRemove returns, as one sentence, why removing a member would leave too few live voters; nil when enough stay.
// Before it refuses, it probes the voters that count as dead: right after a change of leader that is all of them, and
// one that answers and stores counts as live. It blocks for at most 1.5 s.
func (c *Cluster) CanRemove(ctx context.Context, nodeID uint64) error {
	last := c.input.Load()
	if last == nil {
		return errors.New("leadership has just begun and the health of the members is not known yet; try again in a second")
	}
	err := autopilot.CanRemove(*last, nodeID)
	if err == nil {
		return nil
	}
	in := *last
	in.Previous = maps.Clone(last.Previous)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range in.Members {
		id := in.Members[i].NodeID
		if in.Members[i].Role != autopilot.RoleVoter || last.Previous[id].Healthy {
			continue
		}
		wg.Go(func() {
			if c.storesNow(ctx, id) {
				mu.Lock()
				defer mu.Unlock()
				h := in.Previous[id]
				h.Healthy = true
				in.Previous[id] = h
			}
		})
	}
	wg.Wait()
	return autopilot.CanRemove(in, nodeID)
}

// storesNow asks a voter whether it is there, stores, and has kept up.
func (c *Cluster) storesNow(ctx context.Context, id uint64) bool {
	if c.CannotStore(id) != "" {
		return false // by the last answer that it gave this leader, at most a moment ago
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	before := c.Store.Revision()
	r, err := c.probe(ctx, id)
	if err != nil || r.Fault != "" {
		return false
	}
	cfg, _, err := c.settings.Get(ctx, store.AsLeader)
	return err == nil && r.Revision+cfg.MaxLagRevisions >= before
}
