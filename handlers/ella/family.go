// Package ella serves Ella Core's members API (reference ella_members): the member list, drain, resume, promotion and
// removal, a member's status, and join tokens of the documented kind.
package ella

import (
	"context"
	"time"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// Config holds the dependencies of the family.
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

// Cluster is the part of the cluster's loops that the family needs.
type Cluster interface {
	membership.Cluster

	// Reachable asks a member now and returns why it does not answer.
	Reachable(ctx context.Context, nodeID uint64) error
	Autopilot() autopilot.State // the leader's view
	// Status is "alive", "down", "left" or "unknown", from the leader's probes and m's last word.
	Status(m *store.Member) string

	Notices() []string                 // what this member's operator should do now, a sentence each
	Disk() api.Disk                    // how full this member's disk is
	Storing() api.Storing              // whether this member can write to its disk
	ZoneCost(nodeID uint64) string     // what a member's drain or removal means for its zone
	CannotStore(nodeID uint64) string  // why a member cannot write to its disk, from the leader's last round
	DownSince(nodeID uint64) time.Time // last contact with a member that is down; otherwise zero
	DiskLow(nodeID uint64) bool        // a member reports that its disk is nearly full, from the leader's probes
	// Remembered returns the members and voters of this member's replica, for use without a leader: their health is
	// unknown.
	Remembered(ctx context.Context) (autopilot.State, error)
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
