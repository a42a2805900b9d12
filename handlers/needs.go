package handlers

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/store"
)

// The interfaces that the engine needs from the store. The store's methods of the same names are documented there.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	prometheus.Collector
	Changes

	NodeID() uint64
	LeaderID() uint64
	Leading() bool
	Leadership() <-chan struct{}
	Following(leader uint64) context.Context
	SinceLeader() (ago time.Duration, known bool)
	Unreachable(nodeID uint64)
	Look()
	Epoch() uint64
	AwaitLeader(ctx context.Context) (uint64, error)
	AwaitOwn(ctx context.Context)
	Confirm(ctx context.Context) error

	Revision() uint64
	KnownRevision() uint64
	AwaitRevision(ctx context.Context, revision uint64) bool
	Answered(ctx context.Context, actor store.Actor) (known bool, err error)
}

// Mirror is this member's mirror, its local database file.
type Mirror interface {
	Revision() uint64 // of the state in it
}

// APIKeys are the API keys: store.APIKeys.
type APIKeys interface {
	ByID(ctx context.Context, c store.Consistency, id string) (*store.APIKey, error)
}

// APITokens are the API tokens: store.APITokens.
type APITokens interface {
	ByHash(ctx context.Context, c store.Consistency, hash string) (*store.APIToken, error)
	ByID(ctx context.Context, c store.Consistency, id string) (*store.APIToken, error)
}

// Audit is the audit: store.Audit.
type Audit interface {
	NoteRefusals(ctx context.Context, list []store.RefusedAttempt) error
}

// Events are the audit as a stream: store.Events.
type Events interface {
	Read(after store.Position) *store.EventReader
	Oldest(ctx context.Context) (revision uint64, err error)
	Now(ctx context.Context) (store.Position, error)
}

// Keys are the cluster's keys: store.Keys.
type Keys interface {
	Keyring
	Active(ctx context.Context, c store.Consistency, purpose string) (*store.Key, error)
}

// Members is the members table: store.Members.
type Members interface {
	Get(ctx context.Context, c store.Consistency, nodeID uint64) (*store.Member, error)
}
