package elastic

import (
	"context"

	"muster/store"
)

// The interfaces that the family needs from the store. The methods of the same names document their behaviour.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	Confirm(ctx context.Context) error
	Servers() []store.Server
}

// APIKeys are the API keys: store.APIKeys.
type APIKeys interface {
	Create(ctx context.Context, actor store.Actor, k store.APIKey) (store.APIKey, error)
	List(ctx context.Context, c store.Consistency, kind string) (list []store.APIKey, err error)
	Revoke(ctx context.Context, actor store.Actor, match func(*store.APIKey) bool, enrollments bool) (store.Revoked, error)
}

// Members is the members table: store.Members.
type Members interface {
	Get(ctx context.Context, c store.Consistency, nodeID uint64) (m *store.Member, err error)
	List(ctx context.Context, c store.Consistency) ([]store.Member, error)
}

// Settings are the cluster's settings: store.Settings.
type Settings interface {
	Enrollment(ctx context.Context, c store.Consistency) (o store.EnrollmentSettings, err error)
}

// Enroller issues key material and records it: store.Enroller.
type Enroller interface {
	Node(ctx context.Context, actor store.Actor, keyID string) (store.Material, error)
	Kibana(ctx context.Context, actor store.Actor, keyID string) (store.Material, error)
}
