// Package native are muster's own endpoints: tokens, keys, certificate authorities, secrets, settings, leases,
// enrollment, schema, audit, events, SQL, metrics and the description of all of it. The page for people is below it.
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

// Config is what the endpoints need.
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
	Chain        func() [][]byte // what the API listener presents, DER, the leaf first
	Now          func() time.Time
}

// Cluster is what the endpoints ask of the loops of the cluster.
type Cluster interface {
	membership.Cluster

	Diff(ctx context.Context) ([]api.Difference, error) // where Raft does not agree with SQL
	// Schema says what the database has, and who holds it back.
	Schema(ctx context.Context, from store.Consistency) (api.Schema, error)
	// Upgrade says who is to be restarted next on the way to a version; empty: the newest that runs.
	Upgrade(ctx context.Context, from store.Consistency, target string) (autopilot.Upgrade, error)
	Migrate(ctx context.Context, actor store.Actor, exclude []uint64) (api.Schema, error)

	History() api.History // what this member remembers of the last hour

	// BackupState is how it stands with the backups. VerifyBackup has the holder of one read it again, and returns why that
	// cannot be done or what is wrong with it. OpenBackup opens its file, wherever it is.
	BackupState(ctx context.Context, c store.Consistency) (BackupState, error)
	VerifyBackup(ctx context.Context, b *store.Backup) (reason string, damaged bool)
	OpenBackup(ctx context.Context, b *store.Backup) (io.ReadCloser, int64, error)

	// Installed tells which members have put the present trust into effect, and why others have not.
	Installed(ctx context.Context) (store.Installed, map[uint64]string, error)
}

// BackupState is how it stands with the backups; what is not there is nil.
type BackupState struct {
	Settings               store.BackupSettings
	LastGood, Last, Active *store.Backup
	Next                   *time.Time
	Problems               []string
}

// Autopilot are the settings of autopilot.
type Autopilot interface {
	// Get returns the configuration and the revision that last changed it, 0 for never.
	Get(ctx context.Context, from store.Consistency) (autopilot.Config, uint64, error)
	// Merge returns the configuration with the fields of a JSON object changed, checked.
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
