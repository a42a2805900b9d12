package native

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// The interfaces that the family needs from the store, named after the store's types. The methods of the same names
// document their behaviour.

// Replica is this member's replica of the state and its view of leadership: *store.Store.
type Replica interface {
	membership.Replica

	ChangedAt(tables ...string) uint64
	Confirm(ctx context.Context) error
	Query(ctx context.Context, query string, limit int) (store.Answer, error)
	Revision() uint64
}

// APIKeys are the API keys.
type APIKeys interface {
	Create(ctx context.Context, actor store.Actor, k store.APIKey) (store.APIKey, error)
	List(ctx context.Context, c store.Consistency, kind string) (list []store.APIKey, err error)
	Revoke(ctx context.Context, actor store.Actor, match func(*store.APIKey) bool, enrollments bool) (store.Revoked, error)
}

// APITokens are the API tokens.
type APITokens interface {
	Create(ctx context.Context, actor store.Actor, t store.APIToken) (store.APIToken, error)
	Delete(ctx context.Context, actor store.Actor, id string) error
	List(ctx context.Context, c store.Consistency) (list []store.APIToken, err error)
	Login(ctx context.Context, actor store.Actor, t store.APIToken, subject string) (store.APIToken, error)
	Logout(ctx context.Context, actor store.Actor, t *store.APIToken) error
}

// Audit is the audit.
type Audit interface {
	List(ctx context.Context, c store.Consistency, f store.AuditFilter) (list []store.AuditRow, err error)
}

// Authorities are the certificate authorities.
type Authorities interface {
	Change(ctx context.Context, actor store.Actor, q store.CARequest) (out store.CAChange, err error)
	Holders(ctx context.Context, c store.Consistency) ([]uint64, error)
	Issuing(ctx context.Context, c store.Consistency, kind certs.Kind) (certs.CA, error)
	List(ctx context.Context, c store.Consistency) ([]store.AuthorityKind, error)
	Rotations(ctx context.Context, c store.Consistency) ([]store.CARotation, error)
	TrustBundle(ctx context.Context) (*spiffebundle.Bundle, error)
}

// Backups are the records of backups.
type Backups interface {
	Get(ctx context.Context, c store.Consistency, id string) (*store.Backup, error)
	List(ctx context.Context, c store.Consistency) ([]store.Backup, error)
	Open(ctx context.Context, actor store.Actor, cause string) (store.Backup, error)
	Spoil(ctx context.Context, actor store.Actor, id, reason string) error
}

// Certificates are the certificates that were issued.
type Certificates interface {
	List(ctx context.Context, c store.Consistency, f store.CertificateFilter) (list []store.IssuedCertificate, err error)
	Revoked(ctx context.Context, c store.Consistency, kind certs.Kind) (list []certs.Revoked, err error)
}

// Enrollments are the records of key material issued to other software.
type Enrollments interface {
	List(ctx context.Context, c store.Consistency) (list []store.Enrollment, err error)
	Revoke(ctx context.Context, actor store.Actor, id string) error
}

// JoinTokens are the join tokens.
type JoinTokens interface {
	List(ctx context.Context, c store.Consistency) (list []store.JoinToken, err error)
	Revoke(ctx context.Context, actor store.Actor, id string) error
	Uses(ctx context.Context, c store.Consistency) (list []store.TokenUse, err error)
}

// Keys are the cluster's keys.
type Keys interface {
	handlers.Keyring

	Active(ctx context.Context, c store.Consistency, purpose string) (*store.Key, error)
	Generations(ctx context.Context, c store.Consistency) (list []store.Generation, err error)
	PrepareDEKRotation(ctx context.Context, without uint64, keys []store.NewKey) (*store.DEKRotation, error)
	Rotate(ctx context.Context, actor store.Actor, list []store.NewKey, graceUntil time.Time) (store.KeyRotated, error)
	RotateDEK(ctx context.Context, actor store.Actor, r *store.DEKRotation, reason string) (uint64, error)
}

// Leases are the leases on members.
type Leases interface {
	Delete(ctx context.Context, actor store.Actor, id string) error
	List(ctx context.Context, c store.Consistency, nodeID uint64) (list []store.Lease, err error)
	Put(ctx context.Context, actor store.Actor, l store.Lease, ttl time.Duration) (store.Lease, bool, error)
}

// Members is the members table.
type Members interface {
	membership.Table

	Get(ctx context.Context, c store.Consistency, nodeID uint64) (m *store.Member, err error)
	Raft(ctx context.Context, c store.Consistency) ([]store.Member, error)
}

// Peerings are the peerings with other clusters.
type Peerings interface {
	ByName(ctx context.Context, c store.Consistency, name string) (*store.Peering, error)
	Members(ctx context.Context, c store.Consistency, peeringID string) ([]store.PeerMember, error)
}

// Secrets are the secrets.
type Secrets interface {
	Delete(ctx context.Context, actor store.Actor, name string) error
	Get(ctx context.Context, c store.Consistency, name string) (*store.StoredSecret, error)
	List(ctx context.Context, c store.Consistency) (list []store.StoredSecret, err error)
	Put(ctx context.Context, actor store.Actor, name string, value []byte) (store.StoredSecret, error)
}

// Settings are the cluster's settings.
type Settings interface {
	Login(ctx context.Context, c store.Consistency) (store.LoginSettings, error)
	Put(ctx context.Context, actor store.Actor, name string, value json.RawMessage, cas *uint64) (bool, error)
	Set(ctx context.Context, actor store.Actor, values map[string]json.RawMessage) (map[string]json.RawMessage, error)
	SetDEKMaxAge(ctx context.Context, actor store.Actor, age time.Duration) error
	Values(ctx context.Context, c store.Consistency) (map[string]json.RawMessage, error)
}

// Workloads are software that gets identities.
type Workloads interface {
	Create(ctx context.Context, actor store.Actor, clusterID string, w store.Workload) (store.Workload, bool, error)
	Delete(ctx context.Context, actor store.Actor, id string) error
	Get(ctx context.Context, c store.Consistency, id string) (store.Workload, error)
	List(ctx context.Context, c store.Consistency) ([]store.Workload, error)
}

// Tokens creates join tokens: store.JoinTokenMint.
type Tokens interface {
	Mint(ctx context.Context, actor store.Actor, t store.JoinToken) (*store.JoinToken, error)
}

// NodeTokens issues node identities: store.NodeTokens.
type NodeTokens interface {
	Mint(ctx context.Context, m *store.Member) (text string, ends time.Time, err error)
}
