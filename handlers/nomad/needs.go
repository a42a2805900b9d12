package nomad

import (
	"context"
	"encoding/json"
	"io"

	"muster/handlers/internal/membership"
	"muster/store"
)

// The interfaces that the family needs from the store. The methods of the same names document their behaviour.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	membership.Replica

	AppliedSchema() int64
	AwaitLeader(ctx context.Context) (uint64, error)
	Cluster(ctx context.Context, c store.Consistency) (out store.Cluster, err error)
	Confirm(ctx context.Context) error
	LeaderID() uint64
	Leading() bool
	OwnServers(ctx context.Context) []store.Server // of Raft's configuration, as this member has it
	Revision() uint64
	Transfer(ctx context.Context, id uint64) error
}

// Mirror is this member's mirror, its local database file.
type Mirror interface {
	Revision() uint64 // of the state in it
}

// Archives saves and restores the state: store.Archives.
type Archives interface {
	Read(ctx context.Context, r io.Reader, limits store.ArchiveLimits) (*store.Archive, error)
	Restore(ctx context.Context, actor store.Actor, a *store.Archive) (store.Restored, error)
	SnapshotFile(ctx context.Context, c store.Consistency, recipients []string, binary string) (*store.SnapshotFile, error)
}

// Audit is the audit: store.Audit.
type Audit interface {
	NoteTransfer(ctx context.Context, actor store.Actor, to uint64) error
}

// Members is the members table: store.Members.
type Members interface {
	membership.Table
}

// Settings are the cluster's settings: store.Settings.
type Settings interface {
	Datacenter(ctx context.Context) (string, error)
	Put(ctx context.Context, actor store.Actor, name string, value json.RawMessage, cas *uint64) (bool, error)
}
