package consul

import (
	"context"

	"muster/certs"
	"muster/store"
)

// The interfaces that the family needs from the store. The methods of the same names document their behaviour.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	Answered(ctx context.Context, actor store.Actor) (known bool, err error)
	AwaitChange(ctx context.Context, after uint64, tables ...string) uint64
	ChangedAt(tables ...string) uint64
}

// Authorities are the certificate authorities: store.Authorities.
type Authorities interface {
	Bundle(ctx context.Context, kind certs.Kind) (list []string, err error)
}

// Members is the members table: store.Members.
type Members interface {
	Raft(ctx context.Context, c store.Consistency) ([]store.Member, error)
}

// Peerings are the peerings with other clusters: store.Peerings.
type Peerings interface {
	ByName(ctx context.Context, c store.Consistency, name string) (*store.Peering, error)
	CanEstablish(ctx context.Context, name string) error
	Delete(ctx context.Context, actor store.Actor, name string) error
	Establish(ctx context.Context, actor store.Actor, e store.Establishing, secret string) (store.Peering, error)
	List(ctx context.Context, c store.Consistency) ([]store.Peering, error)
	Members(ctx context.Context, c store.Consistency, peeringID string) ([]store.PeerMember, error)
	MintToken(ctx context.Context, actor store.Actor, k store.PeeringToken, hash string) (store.MintedPeering, error)
}

// Settings are the cluster's settings: store.Settings.
type Settings interface {
	Datacenter(ctx context.Context) (string, error)
}
