package ella

import (
	"context"
	"time"

	"muster/handlers/internal/membership"
	"muster/store"
)

// The interfaces that the family needs from the store. The methods of the same names document their behaviour.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	membership.Replica

	AwaitChange(ctx context.Context, after uint64, tables ...string) uint64
	Confirm(ctx context.Context) error
	LeaderID() uint64
	Leading() bool
	OwnServers(ctx context.Context) []store.Server // of Raft's configuration, as this member has it
	Replica(ctx context.Context, leader uint64) (r store.ReplicaState, err error)
	Revision() uint64
	RaftFiles() (f store.RaftFiles, term uint64)
}

// Mirror is this member's mirror, its local database file.
type Mirror interface {
	Revision() uint64 // of the state in it
}

// Members is the members table: store.Members.
type Members interface {
	membership.Table

	BeginDrain(ctx context.Context, actor store.Actor, nodeID uint64, wait time.Duration) (*store.Member, error)
	Get(ctx context.Context, c store.Consistency, nodeID uint64) (m *store.Member, err error)
	Promote(ctx context.Context, actor store.Actor, nodeID uint64) error
	Resume(ctx context.Context, actor store.Actor, nodeID uint64) (*store.Member, error)
}

// Tokens creates join tokens: store.JoinTokenMint.
type Tokens interface {
	Mint(ctx context.Context, actor store.Actor, t store.JoinToken) (*store.JoinToken, error)
}
