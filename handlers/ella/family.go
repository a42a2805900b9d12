// Package ella is the members API as Ella Core has it (reference ella_members): the member list, drain, resume,
// promotion and removal, what a member says of itself, and join tokens of the documented kind.
package ella

import (
	"context"
	"time"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
)

// Config is what the family needs.
type Config struct {
	Replica   Replica
	Mirror    Mirror
	Members   Members
	Cluster   Cluster
	Tokens    Tokens
	ClusterID string
	Name      string // of this member
	Version   string // of this program
	Commit    string
	Now       func() time.Time
}

// Cluster is what the family asks of the loops of the cluster.
type Cluster interface {
	membership.Cluster

	// Reachable returns why a member does not answer now.
	Reachable(ctx context.Context, nodeID uint64) error
	Autopilot() autopilot.State // the leader's view

	Notices() []string                // what this member's operator has to do now, a sentence each
	Disk() api.Disk                   // how full this member's disk is
	Storing() api.Storing             // whether this member stores, and how its disk answers
	ZoneCost(nodeID uint64) string    // what a member's drain or removal costs its zone
	CannotStore(nodeID uint64) string // why a member does not store, as the leader's last round has it
	// Remembered is what this member's replica knows of all: without a leader nobody knows how they are.
	Remembered(ctx context.Context) (autopilot.State, error)
	DownSince(nodeID uint64) time.Time // when a member that is down last answered, the zero time for any other
	DiskLow(nodeID uint64) bool        // a member has said that its disk is nearly full, as the leader's probes have it
}

type service struct {
	Config
	membership membership.Members
}

// New returns the family.
func New(cfg Config) *handlers.Family {
	s := &service{cfg, membership.Members{Replica: cfg.Replica, Members: cfg.Members, Cluster: cfg.Cluster}}
	f := handlers.Enveloped("ella")
	f.Routes = s.routes()
	return f
}
