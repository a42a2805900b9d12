package node

import (
	"context"

	"muster/api"
	"muster/cluster"
	"muster/cluster/peering"
	"muster/handlers/consul"
	"muster/store"
)

// view shows the loops of the cluster to the families of the API, in the types of the wire.
type view struct{ *cluster.Cluster }

// Disk returns how full this member's disk is.
func (v view) Disk() api.Disk {
	d := v.Cluster.Disk()
	return api.Disk{FreeBytes: d.Free, TotalBytes: d.Total, ReserveBytes: d.Reserve, Low: d.Low}
}

// DiskRoom returns how many bytes may be written before the disk's reserve is met.
func (v view) DiskRoom() int64 { return v.Cluster.Disk().Room() }

// Storing returns whether this member stores, and how its disk answers.
func (v view) Storing() api.Storing { return api.Storing(v.Cluster.Storing()) }

// StorageFault returns why this member does not store, empty when it does.
func (v view) StorageFault() string { return v.Cluster.Storing().Fault }

// Diff lists where Raft does not agree with SQL.
func (v view) Diff(ctx context.Context) ([]api.Difference, error) {
	found, err := v.Cluster.Diff(ctx)
	list := make([]api.Difference, 0, len(found))
	for _, d := range found {
		list = append(list, api.Difference{NodeID: d.NodeID, Want: string(d.Want), Have: string(d.Have)})
	}
	return list, err
}

// Schema returns what the database has, and who holds it back.
func (v view) Schema(ctx context.Context) (api.Schema, error) {
	state, err := v.Cluster.Schema(ctx)
	return schema(state), err
}

// Migrate applies the newest schema; members in exclude do not hold it back if they do not answer.
func (v view) Migrate(ctx context.Context, actor store.Actor, exclude []uint64) (api.Schema, error) {
	state, err := v.Cluster.Migrate(ctx, actor, exclude)
	return schema(state), err
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

// peers shows the other clusters to the peering family.
type peers struct{ *peering.Streams }

// Stream returns what the leader knows of a peering's stream.
func (p peers) Stream(peeringID string) consul.Stream { return consul.Stream(p.Status(peeringID)) }
