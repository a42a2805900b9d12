package node

import (
	"context"
	"io"
	"time"

	"muster/api"
	"muster/cluster"
	"muster/cluster/backup"
	"muster/cluster/peering"
	"muster/handlers/consul"
	"muster/handlers/native"
	"muster/store"
)

// view presents the loops of the cluster to the families of the API, in wire types.
type view struct{ *cluster.Cluster }

// Disk returns how full this member's disk is.
func (v view) Disk() api.Disk {
	d := v.Cluster.Disk()
	return api.Disk{FreeBytes: d.Free, TotalBytes: d.Total, ReserveBytes: d.Reserve, Low: d.Low}
}

// DiskRoom returns how many bytes may be written before the disk's reserve is reached.
func (v view) DiskRoom() int64 { return v.Cluster.Disk().Room() }

// Storing returns whether this member can store, and how its disk responds.
func (v view) Storing() api.Storing { return api.Storing(v.Cluster.Storing()) }

// DiskStuck reports whether this member's disk does not answer.
func (v view) DiskStuck() bool { return v.Cluster.Storing().Stuck() }

// StorageFault returns why this member cannot store; empty when it can.
func (v view) StorageFault() string { return v.Cluster.Storing().Fault }

// Diff lists the differences between Raft's configuration and the members table, with the given consistency.
func (v view) Diff(ctx context.Context, from store.Consistency) ([]api.Difference, error) {
	found, err := v.Cluster.Diff(ctx, from)
	list := make([]api.Difference, 0, len(found))
	for _, d := range found {
		list = append(list, api.Difference{NodeID: d.NodeID, Want: string(d.Want), Have: string(d.Have)})
	}
	return list, err
}

// Schema returns the schema of the database and the members that hold it back.
func (v view) Schema(ctx context.Context, from store.Consistency) (api.Schema, error) {
	state, err := v.Cluster.Schema(ctx, from)
	return schema(state), err
}

// Migrate applies the newest schema. Members in exclude do not hold it back if they do not answer.
func (v view) Migrate(ctx context.Context, actor store.Actor, exclude []uint64) (api.Schema, error) {
	state, err := v.Cluster.Migrate(ctx, actor, exclude)
	return schema(state), err
}

// BackupState returns the state of the backups.
func (v view) BackupState(ctx context.Context, c store.Consistency) (out native.BackupState, err error) {
	s, err := backup.Look(ctx, v.Store, c, time.Now())
	if err != nil {
		return out, err
	}
	out = native.BackupState{
		Settings: s.Settings,
		LastGood: s.LastGood(),
		Last:     s.Last(),
		Active:   s.Active(),
		Problems: s.Problems(),
	}
	if next, planned := s.Next(); planned && out.Active == nil {
		if next.Before(s.Now) {
			next = s.Now
		}
		out.Next = &next
	}
	return out, nil
}

// VerifyBackup makes the holder of a backup read it again.
func (v view) VerifyBackup(ctx context.Context, b *store.Backup) (reason string, damaged bool) {
	return v.Backups().Verify(ctx, b)
}

// OpenBackup opens the file of a backup, on any member.
func (v view) OpenBackup(ctx context.Context, b *store.Backup) (io.ReadCloser, int64, error) {
	return v.Backups().File(ctx, b)
}

func schema(state cluster.SchemaState) api.Schema {
	out := api.Schema{Applied: state.Applied, Latest: state.Latest, HeldBackBy: []api.SchemaHolder{}}
	for _, h := range state.Held {
		out.HeldBackBy = append(out.HeldBackBy, api.SchemaHolder{
			NodeID:        h.NodeID,
			Name:          h.Name,
			BinaryVersion: h.Version,
			MaxSchema:     h.MaxSchema,
			Status:        h.Status,
			Reason:        h.Reason,
		})
	}
	return out
}

// peers presents the other clusters to the peering family.
type peers struct{ *peering.Streams }

// Stream returns the leader's view of a peering's stream.
func (p peers) Stream(peeringID string) consul.Stream { return consul.Stream(p.Status(peeringID)) }
