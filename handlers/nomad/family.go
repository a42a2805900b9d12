// Package nomad is the Raft operator API as Nomad has it (reference nomad_raft): the configuration, removal and
// transfer, autopilot, snapshots, and their small neighbours.
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

// Config is what the family needs.
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
	RestoreLimit int64 // how many bytes the state of an archive may have unpacked; 0: store.MaxArchiveState
	Now          func() time.Time
	Logger       *slog.Logger
}

// Cluster is what the family asks of the loops of the cluster.
type Cluster interface {
	membership.Cluster

	// Reachable returns why a member does not answer now, CanLead why leadership must not go to it now.
	Reachable(ctx context.Context, nodeID uint64) error
	CanLead(ctx context.Context, nodeID uint64) error
	// Transferred returns the member that leadership went to in a hand-over that began after a revision, or else the one that
	// leads, once the outcome is in the audit.
	Transferred(ctx context.Context, actor store.Actor, to, since uint64) (uint64, error)

	Autopilot() autopilot.State // the leader's view
	StorageFault() string       // why this member does not store, a clause of a sentence; empty when it does
	DiskStuck() bool            // this member's disk does not answer
	DiskRoom() int64            // how many bytes may be written before the disk's reserve is met
}

// Autopilot are the settings of autopilot.
type Autopilot interface {
	// Get returns the configuration and the revision that last changed it, 0 for never.
	Get(ctx context.Context, from store.Consistency) (autopilot.Config, uint64, error)
	// Replace returns the configuration with what the family knows of it replaced, checked: set is given one in which that
	// has its default values, and all else what it is now.
	Replace(ctx context.Context, set func(*autopilot.Config)) (json.RawMessage, error)
}

type service struct {
	Config
	membership membership.Members
	snapshots  chan struct{} // bounds how many are made at once
	restores   chan struct{} // the same for restores
}

// New returns the family. It answers errors as plain text (reference nomad_raft, section 1).
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
