package elastic

import (
	"context"

	"muster/store"
)

// What the family needs of the store, piece by piece: the methods of the same names say what they promise.

// Replica is this member's part of the cluster: who leads, who votes, how far it is.
type Replica interface {
	Confirm(ctx context.Context) error
	Servers() []store.Server
}

// APIKeys are the API keys.
type APIKeys interface {
	Create(ctx context.Context, actor store.Actor, k store.APIKey) (store.APIKey, error)
	List(ctx context.Context, c store.Consistency, kind string) (list []store.APIKey, err error)
	Revoke(ctx context.Context, actor store.Actor, match func(*store.APIKey) bool, enrollments bool) (store.Revoked, error)
}

// Members is the members table.
type Members interface {
	Get(ctx context.Context, c store.Consistency, nodeID uint64) (m *store.Member, err error)
	List(ctx context.Context, c store.Consistency) ([]store.Member, error)
}

// Settings are the cluster's settings.
type Settings interface {
	Enrollment(ctx context.Context, c store.Consistency) (o store.EnrollmentSettings, err error)
}

// Enroller makes and records what is handed out: store.Enroller.
type Enroller interface {
	Node(ctx context.Context, actor store.Actor, keyID string) (store.Material, error)
	Kibana(ctx context.Context, actor store.Actor, keyID string) (store.Material, error)
}
