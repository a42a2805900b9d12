// Package native serves muster's own endpoints: tokens, keys, certificate authorities, secrets, settings, leases,
// enrollment, schema, audit, events, SQL, metrics and the OpenAPI description. The web page is in native/ui.
package native

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// Config holds the dependencies of the family.
type Config struct {
	Replica      Replica
	APIKeys      APIKeys
	APITokens    APITokens
	Audit        Audit
	Authorities  Authorities
	Backups      Backups
	Certificates Certificates
	Enrollments  Enrollments
	JoinTokens   JoinTokens
	Keys         Keys
	Leases       Leases
	Members      Members
	Peerings     Peerings
	Secrets      Secrets
	Settings     Settings
	Workloads    Workloads
	Cluster      Cluster
	Autopilot    Autopilot
	Tokens       Tokens
	People       People
	NodeTokens   NodeTokens
	ClusterID    string
	Chain        func() [][]byte // the chain that the API listener presents, DER, the leaf first
	Now          func() time.Time
}

// Cluster is the part of the cluster's loops that the family needs.
type Cluster interface {
	membership.Cluster

	// Diff lists the differences between Raft's configuration and the members table.
	Diff(ctx context.Context, from store.Consistency) ([]api.Difference, error)
	// Schema returns schema versions, and the members that block a newer one.
	Schema(ctx context.Context, from store.Consistency) (api.Schema, error)
	// Upgrade returns the state of an upgrade to a version (empty: the newest that runs) and the member to restart next.
	Upgrade(ctx context.Context, from store.Consistency, target string) (autopilot.Upgrade, error)
	Migrate(ctx context.Context, actor store.Actor, exclude []uint64) (api.Schema, error)

	History() api.History // the last hour, as this member recorded it

	// BackupState returns the state of the backups. VerifyBackup asks the holder to verify a backup and returns why that
	// failed or what is wrong with the file. OpenBackup opens its file on whichever member holds it.
	BackupState(ctx context.Context, c store.Consistency) (BackupState, error)
	VerifyBackup(ctx context.Context, b *store.Backup) (reason string, damaged bool)
	OpenBackup(ctx context.Context, b *store.Backup) (io.ReadCloser, int64, error)

	// Installed returns which members have applied the current trust, and why others have not.
	Installed(ctx context.Context) (store.Installed, map[uint64]string, error)
}

// BackupState is the state of the backups; nil means none.
type BackupState struct {
	Settings               store.BackupSettings
	LastGood, Last, Active *store.Backup
	Next                   *time.Time
	Problems               []string
}

// Autopilot are the settings of autopilot.
type Autopilot interface {
	// Get returns the configuration and the revision that last changed it; 0: never changed.
	Get(ctx context.Context, from store.Consistency) (autopilot.Config, uint64, error)
	// Merge returns the checked configuration with the fields of a JSON object applied.
	Merge(ctx context.Context, patch []byte) (json.RawMessage, error)
}

type service struct {
	Config
	membership membership.Members
	crls       *crls
}

// New returns the endpoints as a family, with the common envelope. It answers for all paths that no other family
// claims.
func New(cfg Config) *handlers.Family {
	s := &service{cfg, membership.Members{Replica: cfg.Replica, Members: cfg.Members, Cluster: cfg.Cluster}, newCRLs()}
	f := handlers.Enveloped("native")
	f.Paths, f.Routes = []string{"", "/api/v1/cluster/join-"}, s.routes()
	return f
}
