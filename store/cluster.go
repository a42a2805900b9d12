package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"muster/certs"
)

// Cluster is the identity of the cluster and its counters.
type Cluster struct {
	ID        string
	CreatedAt time.Time
	Revision  uint64
	Epoch     uint64
	LeaderID  uint64 // the last member that began to lead
}

func (v *View) revision() (rev uint64, err error) {
	_, err = v.get("SELECT revision FROM cluster", nil, &rev)
	return rev, err
}

// Cluster reads the identity; ok is false in a database that was never founded.
func (v *View) Cluster() (c Cluster, ok bool, err error) {
	var created string
	ok, err = v.get("SELECT id, created_at, revision, epoch, leader_node_id FROM cluster", nil,
		&c.ID, &created, &c.Revision, &c.Epoch, &c.LeaderID)
	c.CreatedAt = parseTime(created)
	return c, ok, err
}

// Cluster reads the identity and the counters.
func (s *Store) Cluster(ctx context.Context, c Consistency) (out Cluster, err error) {
	err = s.Read(ctx, c, func(v *View) error {
		out, _, err = v.Cluster()
		return err
	})
	return out, err
}

// ReplicaState is the state of a member's own replica.
type ReplicaState struct {
	Founded          bool
	Schema           int64  // applied schema version
	LeaderAPIAddress string // empty when it is not known
}

// Replica returns the state of this member's replica and the leader's API address in it. With an error it also returns
// what it read before.
func (s *Store) Replica(ctx context.Context, leader uint64) (r ReplicaState, err error) {
	err = s.Read(ctx, Stale, func(v *View) error {
		if _, r.Founded, err = v.Cluster(); err != nil {
			return err
		}
		if r.Schema, err = v.SchemaVersion(); err != nil {
			return err
		}
		m, err := v.Member(leader)
		if err == nil && m != nil {
			r.LeaderAPIAddress = m.APIAddress
		}
		return err
	})
	return r, err
}

// Names of settings.
const (
	settingOverlayCIDR = "overlay_cidr"
	settingSliceBits   = "overlay_slice_bits"
)

func (v *View) setting(name string) (value string, err error) {
	_, err = v.get("SELECT value FROM settings WHERE name = ?", []any{name}, &value)
	return value, err
}

// Founding is the content of the first transaction of a cluster. All key material in it is sealed or hashed, so it may
// be stored in a file between the first start and that transaction.
type Founding struct {
	ClusterID     string            `json:"clusterId"`
	CreatedAt     time.Time         `json:"createdAt"`
	Member        Member            `json:"member"`
	Certificates  []Certificate     `json:"certificates"`
	Authorities   []SealedAuthority `json:"authorities"`
	Keys          []SealedKey       `json:"keys"`
	Wrap          []byte            `json:"wrap"` // generation 1 of the data-encryption key, for the founder
	AdminTokenID  string            `json:"adminTokenId"`
	AdminHash     string            `json:"adminHash"`
	OverlayCIDR   string            `json:"overlayCidr"`
	OverlaySlices int               `json:"overlaySliceBits"`
	Datacenter    string            `json:"datacenter,omitempty"` // empty: dc1
	// Import names a file in the data directory with the whole state, written by Refounding. All other fields but Member
	// are then empty.
	Import string `json:"import,omitempty"`
}

// SealedAuthority is a certificate authority whose key is sealed under generation 1.
type SealedAuthority struct {
	Kind      certs.Kind `json:"kind"`
	CertPEM   string     `json:"certPem"`
	SealedKey []byte     `json:"sealedKey"`
	ExpiresAt time.Time  `json:"expiresAt"`
	Operators bool       `json:"operators,omitempty"` // imported by the operator
}

func (a *SealedAuthority) origin() string {
	if a.Operators {
		return OriginOperator
	}
	return OriginMuster
}

// SealedKey is the first epoch of a cluster key, its secret part sealed under generation 1.
type SealedKey struct {
	Purpose string `json:"purpose"`
	KID     string `json:"kid"`
	Public  []byte `json:"public,omitempty"`
	Sealed  []byte `json:"sealed"`
}

// AuthoritySecret returns the name that the key of an authority is sealed with.
func AuthoritySecret(kind certs.Kind, generation uint64) string {
	return fmt.Sprintf("authority/%s/%d", kind, generation)
}

func (f *Founding) apply(tx *Tx) error {
	rev := int64(1)
	tx.Rev = 1
	steps := []statement{
		{query: "INSERT INTO cluster (one, id, created_at, revision, batch_id, epoch, leader_node_id) " +
			"VALUES (1, ?, ?, 1, '', 0, ?)",
			args: []any{f.ClusterID, f.CreatedAt, f.Member.NodeID}},
		{query: "INSERT INTO dek_generations (generation, state, reason, created_at, created_rev) " +
			"VALUES (1, 'active', 'founding', ?, ?)",
			args: []any{f.CreatedAt, rev}},
		{query: insertWrap, args: []any{int64(1), f.Member.NodeID, f.Wrap, rev}},
		{query: insertSetting, args: []any{settingOverlayCIDR, f.OverlayCIDR, rev}},
		{query: insertSetting, args: []any{settingSliceBits, fmt.Sprint(f.OverlaySlices), rev}},
		{query: insertSequence, args: []any{"raft_node_id", f.Member.NodeID}},
		{query: insertSequence, args: []any{"overlay_host", int64(0)}},
		{query: insertSequence, args: []any{"overlay_slices", int64(0)}},
		{query: insertSequence, args: []any{sequencePruned, int64(0)}},
	}
	if f.Datacenter != "" {
		steps = append(steps, statement{query: insertSetting, args: []any{settingDatacenter, f.Datacenter, rev}})
	}
	for _, a := range f.Authorities {
		steps = append(steps,
			statement{query: `INSERT INTO authorities (kind, generation, state, origin, cert_pem, fingerprint, sealed_key,
				dek_generation, created_at, expires_at, created_rev, modified_rev)
			VALUES (?, 1, 'active', ?, ?, ?, ?, 1, ?, ?, ?, ?)`,
				args: []any{string(a.Kind), a.origin(), a.CertPEM, fingerprintPEM(a.CertPEM), a.SealedKey, f.CreatedAt, a.ExpiresAt,
					rev, rev}})
	}
	for _, k := range f.Keys {
		steps = append(steps,
			statement{query: insertSecret, args: []any{KeySecret(k.Purpose, 1), k.Sealed, int64(1), f.CreatedAt, rev}},
			statement{query: insertKey, args: []any{k.Purpose, int64(1), k.KID, base64.StdEncoding.EncodeToString(k.Public),
				f.CreatedAt, rev, rev}})
	}
	for _, st := range steps {
		if err := tx.exec(st.query, st.args...); err != nil {
			return fmt.Errorf("found: %w", err)
		}
	}
	if err := tx.insertMember(&f.Member, hostGrants{Proven: canonicalHosts(&f.Member)}); err != nil {
		return err
	}
	for _, c := range f.Certificates {
		if err := tx.insertCertificate(c); err != nil {
			return err
		}
	}
	scopes, _ := json.Marshal([]string{ScopeManagement})
	if err := tx.exec(insertAPIToken, f.AdminTokenID, "admin", f.AdminHash, string(scopes), "muster", f.CreatedAt, nil,
		rev); err != nil {
		return err
	}
	return tx.audit("cluster.found", "cluster/"+f.ClusterID, "")
}

const (
	insertWrap     = "INSERT INTO dek_wraps (generation, raft_node_id, wrap, created_rev) VALUES (?, ?, ?, ?)"
	insertSetting  = "INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, ?)"
	insertSequence = "INSERT INTO sequences (name, value) VALUES (?, ?)"
	insertSecret   = "INSERT INTO sealed_secrets (name, sealed, dek_generation, created_at, modified_rev) " +
		"VALUES (?, ?, ?, ?, ?)"
)

func fingerprintPEM(pem string) string {
	list, err := certs.ParseCerts([]byte(pem))
	if err != nil || len(list) == 0 {
		return ""
	}
	return certs.Fingerprint(list[0].Raw)
}
