package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/store/engine"
	"muster/store/foreign"
	"muster/store/sizes"
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

// Answer is the result of a query.
type Answer = foreign.Answer

// Query runs one read-only statement of a caller on the local mirror, with or without a leader, and returns at most
// limit rows and 4 MiB of values. It blocks until the statement is done, ctx ends or its own deadline expires. Memory,
// time and the SQL that it may use are limited; two statements run at a time, others wait. Errors in the statement are
// a Refusal; ErrBusy means that it could not begin in time.
func (s *Store) Query(ctx context.Context, query string, limit int) (Answer, error) {
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	case <-ctx.Done():
		return Answer{}, ErrBusy
	}
	if _, err := os.Stat(s.Mirror.Path()); err != nil {
		return Answer{}, ErrNoLeader // there is no mirror yet
	}
	return foreign.Query(ctx, s.Mirror.Path(), query, limit)
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

// settingDatacenter is the setting with the cluster's datacenter, a label of its TLS server name for other clusters.
const settingDatacenter = "datacenter"

// DefaultDatacenter is the datacenter of a cluster that was founded without one.
const DefaultDatacenter = "dc1"

// Datacenter returns the name of this cluster's datacenter, from the leader's working copy or the local mirror.
func (st Settings) Datacenter(ctx context.Context) (string, error) {
	load := func(v *View) (string, error) {
		name, err := v.setting(settingDatacenter)
		if name == "" {
			name = DefaultDatacenter
		}
		return name, err
	}
	name, err := recall(ctx, st.s, AsLeader, "datacenter", []string{"settings"}, load)
	if err != nil {
		name, err = recall(ctx, st.s, Stale, "", nil, load)
	}
	return name, err
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
	return tx.audit("cluster.found", "cluster/"+f.ClusterID, made("node", f.Member.NodeID, "name", f.Member.Name,
		"datacenter", f.Datacenter, "overlay", f.OverlayCIDR))
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

// Detached describes what a new cluster has taken over from a member's replica of another cluster.
type Detached struct {
	From     string `json:"from"`     // id of that cluster
	Revision uint64 `json:"revision"` // of the replica
	Settings int    `json:"settings"`
	Secrets  int    `json:"secrets"`
	Closed   int    `json:"closed"` // secrets that the member could not open, which were not taken over
}

// Detach writes the state of a new cluster into a file: the founding f, and from the replica of another cluster its
// settings and the secrets that its member's identity opens, sealed under the new key dek. It does not take over
// members, tokens, peerings, authorities, keys and the audit. The replica is not changed.
func Detach(ctx context.Context, replica string, own *age.X25519Identity, f *Founding, dek certs.DEK,
	path string) (out Detached, err error) {
	from, err := openFile(replica)
	if err != nil {
		return out, err
	}
	defer from.Close()
	v := viewOf(from)
	c, founded, err := v.Cluster()
	if err != nil || !founded {
		return out, errors.Join(err, errors.New("the mirror has no cluster"))
	}
	out.From, out.Revision = c.ID, c.Revision
	deks, err := (&Archive{State: replica}).Unlock(ctx, own)
	if err != nil {
		return out, err
	}
	x, err := newScratch(ctx, path)
	if err != nil {
		return out, err
	}
	defer x.close()
	t := newTx(x.s.View(f.CreatedAt).Offline(1, sizes.CheckStatement), Actor{
		Name:      "muster",
		NodeID:    f.Member.NodeID,
		RequestID: newRequestID(),
	})
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return out, err
	}
	if err := f.apply(t); err != nil {
		return out, err
	}
	if err := t.takeSettings(v, &out); err != nil {
		return out, err
	}
	if err := t.takeSecrets(v, &keyring{deks: deks}, dek, &out); err != nil {
		return out, err
	}
	if err := t.audit("cluster.detach", "cluster/"+out.From, fmt.Sprintf("from revision %d: %d settings, %d secrets; %d "+
		"secrets could not be opened", out.Revision, out.Settings, out.Secrets, out.Closed)); err != nil {
		return out, err
	}
	return out, t.exec("COMMIT")
}

// newScratch creates an empty database with the newest schema.
func newScratch(ctx context.Context, path string) (*scratch, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	db, err := sql.Open("sqlite3", engine.FileURL(path, "_journal_mode=MEMORY&_synchronous=FULL&_foreign_keys=0"))
	if err != nil {
		return nil, err
	}
	if err := foreign.Migrate(ctx, db, LatestSchema()); err != nil {
		db.Close()
		return nil, err
	}
	s, err := engine.NewLocal(db, LatestSchema())
	if err != nil {
		db.Close()
		return nil, err
	}
	return &scratch{path: path, db: db, s: s}, nil
}

// takeSettings copies the settings of another cluster, except those fixed at its founding.
func (t *Tx) takeSettings(from *View, out *Detached) error {
	type setting struct{ name, value string }
	list, err := collect(from, func(rows *sql.Rows) (s setting, err error) {
		err = rows.Scan(&s.name, &s.value)
		return s, err
	}, "SELECT name, value FROM settings ORDER BY name")
	if err != nil {
		return err
	}
	for _, s := range list {
		if ownSetting(s.name) || s.name == settingDatacenter {
			continue
		}
		if err := t.exec(insertSetting, s.name, s.value, t.Rev); err != nil {
			return err
		}
		out.Settings++
	}
	return nil
}

// takeSecrets copies the secrets of another cluster that the ring opens, sealed under a new key.
func (t *Tx) takeSecrets(from *View, ring *keyring, dek certs.DEK, out *Detached) error {
	list, err := collect(from, scanSecret, selectSecrets+" ORDER BY name")
	if err != nil {
		return err
	}
	for _, s := range list {
		name := secretSeal(s.Name, s.Version)
		plain, err := ring.open(name, s.Generation, s.sealed)
		if errors.Is(err, errNoKey) {
			out.Closed++
			continue
		}
		if err != nil {
			return fmt.Errorf("open the secret %s: %w", s.Name, err)
		}
		sealed, err := dek.Seal(name, 1, plain)
		clear(plain)
		if err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO secrets (name, version, sealed, dek_generation, created_at, updated_at, created_rev,
			modified_rev) VALUES (?, ?, ?, 1, ?, ?, ?, ?)`, s.Name, s.Version, sealed, s.CreatedAt, s.UpdatedAt, t.Rev,
			t.Rev); err != nil {
			return err
		}
		out.Secrets++
	}
	return nil
}
