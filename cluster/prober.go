package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/transport"
	"muster/store"
)

const (
	probeTimeout   = 1500 * time.Millisecond
	probeWorkers   = 32
	probesPerSec   = 200                    // limit of the leader, for any number of members
	probeEvery     = time.Second            // Raft servers, and others within the limit
	probeNewEvery  = 100 * time.Millisecond // a new member that has never answered
	probeNewPeriod = 30 * time.Second
	probeHurry     = 200 * time.Millisecond // members that a CA rotation waits for
	hurryMost      = 40                     // at most this many of them
)

// Report is a member's answer to a probe.
type Report struct {
	Incarnation
	NodeID   uint64 `json:"nodeId"`
	Version  string `json:"version"`
	Revision uint64 `json:"revision"` // of its local replica; 0: none
	Leader   uint64 `json:"leader"`   // the leader that its Raft server follows
	Trust    uint64 `json:"trust"`    // revision of store.Trust that it has applied; 0: none
	DiskFree uint64 `json:"diskFree"` // bytes free on the file system of its data directory
	DiskLow  bool   `json:"diskLow"`  // less than its reserve
	Fault    string `json:"fault"`    // why it cannot write to its disk, by its own test; empty when it can
	Written  uint64 `json:"written"`  // number of its last test write that is on the disk; 0: none, or not known

	Clock time.Time `json:"clock,omitzero"` // its clock; older members do not report it
}

// target is a member to probe.
type target struct {
	nodeID   uint64
	raft     bool // is, or will be, a Raft server
	joinedAt time.Time
	awaited  bool // by a CA rotation

	replicates bool // Raft replicates to it
}

// observation is the accumulated result of the probes of a member.
type observation struct {
	Report
	LastContact time.Time
	RTT         time.Duration
	Interval    time.Duration
	Skew        time.Duration // how far its clock is ahead of the leader's, within half a round trip
	Stalled     time.Duration // how long the replica had not advanced at the last answer, although the leader had more

	moved   time.Time // when the replica last advanced, or was up to date
	sent    bool      // Raft replicates to it: before that its replica need not advance
	asked   time.Time // when the last probe began
	running bool
}

// prober probes members. It belongs to one leadership: a new leader starts without observations.
type prober struct {
	probe  func(ctx context.Context, nodeID uint64) (Report, error)
	newest func() uint64 // the leader's revision
	slots  chan struct{}
	heard  func() // called when a member answers for the first time, or has applied other trust

	mu   sync.Mutex
	seen map[uint64]*observation
	done sync.WaitGroup
}

func newProber(probe func(context.Context, uint64) (Report, error), heard func()) *prober {
	return &prober{
		probe:  probe,
		newest: func() uint64 { return 0 },
		heard:  heard,
		slots:  make(chan struct{}, probeWorkers),
		seen:   map[uint64]*observation{},
	}
}

// round starts the probes that are due. It does not block: it skips members with a pending probe, and when all workers
// are busy the rest follows in the next round.
func (p *prober) round(ctx context.Context, targets []target, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
ask:
	for _, t := range p.dueLocked(targets, now) {
		select {
		case p.slots <- struct{}{}:
		default:
			break ask
		}
		t.running, t.asked = true, now
		p.done.Add(1)
		go p.run(ctx, t.nodeID, t.observation)
	}
	known := make(map[uint64]bool, len(targets))
	for _, t := range targets {
		known[t.nodeID] = true
	}
	for id, o := range p.seen {
		if !known[id] && !o.running {
			delete(p.seen, id)
		}
	}
}

// turn is a member to probe in this round.
type turn struct {
	target
	*observation
}

// dueLocked lists the members whose next probe is due, in order of priority: Raft servers first, then the member that
// has waited longest.
func (p *prober) dueLocked(targets []target, now time.Time) (due []turn) {
	others := 0
	for _, t := range targets {
		if !t.raft {
			others++
		}
	}
	interval := max(probeEvery, time.Duration(others)*time.Second/probesPerSec)
	for _, t := range targets {
		o := p.seen[t.nodeID]
		if o == nil {
			o = &observation{}
			p.seen[t.nodeID] = o
		}
		if o.sent != t.replicates {
			o.sent, o.moved = t.replicates, time.Now()
		}
		o.Interval = probeEvery
		switch {
		case t.raft:
		case o.LastContact.IsZero() && now.Sub(t.joinedAt) < probeNewPeriod:
			o.Interval = probeNewEvery
		default:
			o.Interval = interval
		}
		pause := o.Interval
		if t.awaited {
			pause = min(pause, probeHurry)
		}
		if !o.running && !now.Before(o.asked.Add(pause)) {
			due = append(due, turn{t, o})
		}
	}
	slices.SortStableFunc(due, func(a, b turn) int {
		if a.raft != b.raft {
			if a.raft {
				return -1
			}
			return 1
		}
		return a.asked.Compare(b.asked)
	})
	return due
}

func (p *prober) run(ctx context.Context, id uint64, o *observation) {
	defer p.done.Done()
	defer func() { <-p.slots }()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	begin, newest := time.Now(), p.newest()
	r, err := p.probe(ctx, id)
	p.mu.Lock()
	o.running = false
	news := false
	if err == nil {
		news = o.LastContact.IsZero() || o.Trust != r.Trust
		if !o.sent || o.LastContact.IsZero() || r.Revision >= newest || r.Revision > o.Revision {
			o.moved = begin
		}
		o.Stalled = begin.Sub(o.moved)
		o.Report, o.LastContact, o.RTT = r, time.Now(), time.Since(begin)
		// If this process was suspended, or its clock set, during the probe, the measurement is invalid.
		if took := skew(o.LastContact, begin); took >= 0 && took <= probeTimeout {
			o.Skew = skew(r.Clock, begin.Add(took/2))
		}
	}
	p.mu.Unlock()
	if news {
		p.heard()
	}
}

// snapshot returns the observations of all members.
func (p *prober) snapshot() map[uint64]observation {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := make(map[uint64]observation, len(p.seen))
	for id, o := range p.seen {
		m[id] = *o
	}
	return m
}

// announced returns the values that the leader's probes announce: the revision of the trust and the key id of node
// identities.
func (c *Cluster) announced(ctx context.Context) (trust uint64, key string) {
	if t, err := c.Store.Authorities.Trust(ctx, store.AsLeader); err == nil {
		trust = t.Revision
	}
	if k, err := c.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT); err == nil {
		key = k.KID
	}
	return trust, key
}

func probePath(trust uint64, key string, stalled bool, traces string) string {
	q := url.Values{"trust": {strconv.FormatUint(trust, 10)}, "key": {key}, "traces": {traces}}
	if stalled {
		q.Set("stalled", "true")
	}
	q.Set("clock", time.Now().UTC().Format(time.RFC3339Nano))
	return transport.PathProbe + "?" + q.Encode()
}

// hear reads the values that a probe announces.
func (c *Cluster) hear(q url.Values) {
	var at *time.Time
	if q.Get("stalled") == "true" {
		now := time.Now()
		at = &now
	}
	c.stalledAt.Store(at)
	if leaders, err := time.Parse(time.RFC3339Nano, q.Get("clock")); err == nil {
		c.clocks.heard(skew(time.Now(), leaders), time.Now())
	}
	trust, _ := strconv.ParseUint(q.Get("trust"), 10, 64)
	c.renewal.expect(trust, q.Get("key"))
	c.twins.heard(q.Get("traces"))
}

func (c *Cluster) probe(ctx context.Context, id uint64) (r Report, err error) {
	trust, key := c.announced(ctx)
	if id == c.Store.NodeID() {
		c.renewal.expect(trust, key)
		return c.report(), nil
	}
	traces := c.twins.traces.tell(c.Store.NodeID(), c.Incarnation, c.storage.stored(), c.Store.Servers())
	err = c.Transport.Call(ctx, http.MethodGet, id, probePath(trust, key, (*c.stalled.Load())[id], traces), nil, &r)
	if err == nil && !c.twins.traces.outdates(hello{Incarnation: r.Incarnation, NodeID: id}) {
		c.twins.traces.saw(id, r.ID, r.Written)
	}
	if out, e := c.Store.Members.LeftOut(ctx, store.AsLeader); e == nil && slices.Contains(out, id) {
		if c.strays.note(id, err == nil || transport.LeftOut(err)) {
			c.log.Warn("a member that was left out when the cluster was recovered runs all the same: where it leads, two "+
				"clusters have one identity", "node", id)
		}
		c.strays.meet(id, c.recoveredSince(ctx), transport.LeftOutSince(err))
		return Report{}, store.ErrLeftOut
	}
	return r, err
}

func (c *Cluster) report() Report {
	return Report{
		Incarnation: c.Incarnation,
		NodeID:      c.Store.NodeID(),
		Version:     c.Self.BinaryVersion,
		Revision:    c.Store.Mirror.Revision(),
		Leader:      c.Store.LeaderID(),
		Trust:       c.renewal.trusted.Load(),
		DiskFree:    c.Disk().Free,
		DiskLow:     c.Disk().Low,
		Fault:       c.Storing().own(),
		Written:     c.storage.stored(),
		Clock:       time.Now().UTC(),
	}
}

// reach checks with a short timeout that a member answers.
func (c *Cluster) reach(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := c.probe(ctx, nodeID)
	return err
}

// Reachable probes a member and returns why it does not answer. It blocks for at most 1.5 s.
func (c *Cluster) Reachable(ctx context.Context, nodeID uint64) error {
	if err := c.reach(ctx, nodeID); err != nil {
		return fmt.Errorf("node %d does not answer", nodeID)
	}
	return nil
}

// CanLead probes a member and returns why it must not lead now: it does not answer, is too far behind, cannot write to
// its disk or is low on disk space. It blocks for at most 1.5 s.
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

// CanRemove returns, as a sentence, why removing a member would leave too few live voters. Before it refuses, it probes
// the voters that count as dead, which after a change of leader are all of them; a voter that answers and can write
// counts as live. It blocks for at most 1.5 s.
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

// storesNow probes a voter and reports whether it answers, can write to its disk and keeps up.
func (c *Cluster) storesNow(ctx context.Context, id uint64) bool {
	if c.CannotStore(id) != "" {
		return false // by its last answer to this leader
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
