// Package nomad serves Nomad's Raft operator API (reference nomad_raft): configuration, removal of peers, leadership
// transfer, autopilot, snapshots, and the status and agent endpoints that its clients use.
package nomad

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

const raftConfigurationPath = "/v1/operator/raft/configuration"

const noLeader = "No cluster leader"

// Config holds the dependencies of the family.
type Config struct {
	Replica      Replica
	Mirror       Mirror
	Archives     Archives
	Audit        Audit
	Members      Members
	Settings     Settings
	Cluster      Cluster
	Autopilot    Autopilot
	Name         string // of this member
	Version      string // of this program
	Commit       string
	RestoreLimit int64 // maximum uncompressed size of an archive's state in bytes; 0: store.MaxArchiveState
	Now          func() time.Time
	Logger       *slog.Logger
}

// Cluster is the part of the cluster's loops that the family needs.
type Cluster interface {
	membership.Cluster

	// Reachable asks a member now and returns why it does not answer. CanLead returns why it cannot lead now.
	Reachable(ctx context.Context, nodeID uint64) error
	CanLead(ctx context.Context, nodeID uint64) error
	// Transferred waits until the outcome of a hand-over that began after a revision is in the audit, and returns the
	// member that took over, or else the current leader.
	Transferred(ctx context.Context, actor store.Actor, to, since uint64) (uint64, error)

	Autopilot() autopilot.State // the leader's view
	StorageFault() string       // why this member cannot write to its disk, a clause of a sentence; empty when it can
	DiskStuck() bool            // this member's disk does not answer
	DiskRoom() int64            // bytes that may be written before the disk's reserve is reached
}

// Autopilot has the configuration of autopilot.
type Autopilot interface {
	// Get returns the configuration and the revision that last changed it; 0: never changed.
	Get(ctx context.Context, from store.Consistency) (autopilot.Config, uint64, error)
	// Replace returns the checked configuration after set has changed it. set gets the present configuration with the
	// fields that the family knows reset to their defaults.
	Replace(ctx context.Context, set func(*autopilot.Config)) (json.RawMessage, error)
}

type service struct {
	Config
	membership membership.Members
	snapshots  chan struct{} // limits concurrent snapshots
	restores   chan struct{} // limits concurrent restores
}

// New returns the family. Its errors are plain text (reference nomad_raft, section 1).
func New(cfg Config) *handlers.Family {
	if cfg.RestoreLimit == 0 {
		cfg.RestoreLimit = store.MaxArchiveState
	}
	s := &service{
		Config:     cfg,
		membership: membership.Members{Replica: cfg.Replica, Members: cfg.Members, Cluster: cfg.Cluster},
		snapshots:  make(chan struct{}, 2),
		restores:   make(chan struct{}, 1),
	}
	return &handlers.Family{
		Name:   "nomad",
		Paths:  []string{"/v1/"},
		Routes: s.routes(),

		Headers:         func(w http.ResponseWriter) { w.Header().Set("Vary", "Accept-Encoding") },
		Fail:            handlers.PlainFail,
		NoRoute:         noRoute,
		NoMethod:        noMethod,
		Unauthenticated: handlers.Failure{Status: http.StatusForbidden, Text: "Permission denied"},
		Forbidden:       handlers.Failure{Status: http.StatusForbidden, Text: "Permission denied"},
		NoLeader:        handlers.Failure{Status: http.StatusInternalServerError, Text: noLeader},
		UnknownOutcome: handlers.Failure{Status: http.StatusInternalServerError,
			Text: "leadership lost while committing log"},
	}
}

// noRoute and noMethod answer as the original's router does (reference nomad_raft, sections 1 and 3).
func noRoute(w http.ResponseWriter, r *http.Request) {
	text := "there is nothing at this path"
	if strings.HasPrefix(r.URL.Path, "/v1/operator/") {
		text = "Invalid method"
	}
	handlers.PlainFail(w, http.StatusNotFound, store.NotFound, text)
}

func noMethod(w http.ResponseWriter, r *http.Request, allowed []string) {
	w.Header()["Allow"] = allowed
	text := "Invalid method"
	if r.URL.Path == raftConfigurationPath { // unlike its siblings (section 3.1)
		text = ""
	}
	handlers.PlainFail(w, http.StatusMethodNotAllowed, store.Invalid, text)
}
