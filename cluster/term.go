package cluster

import (
	"context"
	"errors"
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/backup"
	"muster/internal/addr"
	"muster/store"
)

// lead runs the leader's loop whenever this member leads.
func (c *Cluster) lead(ctx context.Context) {
	for ctx.Err() == nil {
		turned := c.Store.Leadership()
		if c.Store.Leading() {
			term, cancel := context.WithCancel(ctx)
			go func() {
				<-turned
				cancel()
			}()
			c.newTerm().run(term)
			cancel()
			c.forget()
			continue
		}
		select {
		case <-turned:
		case <-ctx.Done():
		}
	}
}

// term is one leadership with its loop.
type term struct {
	*Cluster
	since    time.Time
	previous map[uint64]autopilot.Health
	prober   *prober
	hooks    hookWork
	pruned   time.Time
	ceded    time.Time     // when leadership was last handed over because of this member's clock
	checked  time.Time     // last check for expiring certificates
	cost     time.Duration // duration of observing and deciding in the last round
	settled  bool          // a recovery of this member is applied to the members table

	sightings map[uint64]*sighting
}

func (c *Cluster) newTerm() *term {
	t := &term{
		Cluster:   c,
		since:     time.Now(),
		pruned:    time.Now(),
		prober:    newProber(c.probe, c.Wake),
		hooks:     hookWork{busy: map[uint64]uint64{}, next: map[uint64]time.Time{}},
		sightings: map[uint64]*sighting{},
	}
	t.prober.newest = c.Store.Revision
	c.probing.Store(t.prober)
	return t
}

func (t *term) run(ctx context.Context) {
	pruning := make(chan struct{})
	go func() { defer close(pruning); t.pruneAudit(ctx) }()
	defer func() { <-pruning }()
	saving := make(chan struct{})
	go func() { defer close(saving); t.saves().Run(ctx) }()
	defer func() { <-saving }()
	defer t.hooks.done.Wait()
	defer t.prober.done.Wait()
	for {
		if err := t.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) {
			t.log.Warn("autopilot", "err", err)
		}
		if time.Since(t.pruned) > pruneEvery && !t.clocks.doubted() {
			t.pruned = time.Now()
			for what, f := range map[string]func() error{
				"prune":  func() error { return t.Store.Prune(ctx, t.actor()) },
				"rotate": func() error { return t.rotateByAge(ctx) },
			} {
				if err := f(); err != nil && ctx.Err() == nil {
					t.log.Warn(what, "err", err)
				}
			}
		}
		// With many members observing is expensive: limit it to a twentieth of the time, however often it is woken.
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(roundRest*t.cost, maxRoundRest)):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(roundEvery):
		case <-t.kick:
		}
	}
}

// pruneAudit deletes old audit rows in small steps, with pauses for other writes, while this member leads.
func (t *term) pruneAudit(ctx context.Context) {
	for wait := pruneEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if wait = pruneEvery; t.clocks.doubted() { // deletions by age are final
			continue
		}
		more, err := t.Store.Audit.Prune(ctx, t.actor())
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader):
			t.log.Warn("prune the audit", "err", err)
		case more:
			wait = pruneRest
		}
	}
}

// settleRecovery applies a recovery of this member to the members table, before anything else changes Raft's
// configuration.
func (t *term) settleRecovery(ctx context.Context) error {
	r, err := t.Dir.Recovery()
	if err != nil || r == nil {
		return err
	}
	if err := t.Store.Members.SettleRecovery(ctx, t.actor(), r.ID); err != nil {
		return err
	}
	t.log.Info("recovered", "recovery", r.ID, "voters", r.Voters)
	return t.Dir.RecoverySettled()
}

func (c *Cluster) backupConfig() backup.Config {
	return backup.Config{
		Store:     c.Store,
		Transport: c.Transport,
		Version:   c.Self.BinaryVersion,
		Room:      func() int64 { return c.Disk().Room() },
		Loopback:  addr.OnLoopback(c.Self.RaftAddress),
		Logger:    c.log,
	}
}

// saves returns the leader's part of backups.
func (t *term) saves() *backup.Leader {
	return &backup.Leader{Config: t.backupConfig(), Maker: t.backups, Candidates: t.savers}
}

// probedAfter is the age of a leadership from which members that do not answer are known.
const probedAfter = 3 * time.Second

// savers lists the members that can write a backup now; Raft servers first, because their replicas are the newest.
func (t *term) savers() []uint64 {
	state := t.state.Load()
	if len(state.Servers) == 0 || time.Since(t.since) < probedAfter {
		return nil
	}
	raft, others := []uint64{}, []uint64{}
	for i := range state.Servers {
		v := &state.Servers[i]
		switch {
		case v.NodeStatus != autopilot.StatusAlive || !v.Healthy || v.CannotStore != "" || v.DiskLow ||
			v.DrainState != store.DrainActive && v.NodeID != t.Store.NodeID():
		case v.Role != string(store.RoleNone):
			raft = append(raft, v.NodeID)
		default:
			others = append(others, v.NodeID)
		}
	}
	return append(raft, others...)
}
