package cluster

import (
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/backup"
	"muster/store"
)

func (c *Cluster) backupConfig() backup.Config {
	return backup.Config{
		Store:     c.Store,
		Transport: c.Transport,
		Version:   c.Self.BinaryVersion,
		Room:      func() int64 { return c.Disk().Room() },
		Logger:    c.log,
	}
}

// saves is the part of a leadership that has backups made.
func (t *term) saves() *backup.Leader {
	return &backup.Leader{Config: t.backupConfig(), Maker: t.backups, Candidates: t.savers}
}

// probedAfter is how long a leadership lasts before members that do not answer are known as such.
const probedAfter = 3 * time.Second

// savers lists the members that may write a backup now: Raft servers first, whose replica is the newest.
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
