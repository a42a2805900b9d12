package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"muster/certs"
)

// States of a certificate authority.
const (
	AuthorityPrepared = "prepared" // trusted, does not issue yet
	AuthorityActive   = "active"   // issues
	AuthorityTrusted  = "trusted"  // issued once, is trusted still
	AuthorityRetired  = "retired"  // worth nothing; its key is erased
)

// Origins of a certificate authority.
const (
	OriginMuster   = "muster"
	OriginOperator = "operator" // brought by the operator
)

// Authority is one generation of a certificate authority, without its key.
type Authority struct {
	Kind        certs.Kind
	Generation  uint64
	State       string
	Origin      string
	CertPEM     string // the CA's own certificate, then those that certify it
	Fingerprint string
	Subject     string // RFC 2253
	NotBefore   time.Time
	NotAfter    time.Time
	CreatedAt   time.Time

	crossPEM string // the CA certified by the other one of a rotation
	sealed   []byte
	dek      uint64
}

const selectAuthorities = `SELECT kind, generation, state, origin, cert_pem, cross_pem, fingerprint, sealed_key,
	dek_generation, created_at FROM authorities`

func scanAuthority(rows *sql.Rows) (a Authority, err error) {
	var created string
	if err := rows.Scan((*string)(&a.Kind), &a.Generation, &a.State, &a.Origin, &a.CertPEM, &a.crossPEM, &a.Fingerprint,
		&a.sealed, &a.dek, &created); err != nil {
		return a, err
	}
	list, err := certs.ParseCerts([]byte(a.CertPEM))
	if err != nil {
		return a, err
	}
	cert := list[0]
	a.CreatedAt, a.Subject, a.NotBefore, a.NotAfter = parseTime(created), cert.Subject.String(), cert.NotBefore,
		cert.NotAfter
	return a, nil
}

// inUse reads the authorities of a kind that are trusted, the one that issues first.
func (v *View) inUse(kind certs.Kind) ([]Authority, error) {
	list, err := collect(v, scanAuthority,
		selectAuthorities+` WHERE kind = ? AND state IN ('prepared', 'active', 'trusted')
		ORDER BY state <> 'active', generation DESC`, string(kind))
	if err == nil && (len(list) == 0 || list[0].State != AuthorityActive) {
		err = fmt.Errorf("store: there is no active %s authority", kind)
	}
	return list, err
}

// open opens the authority's key.
func (a *Authority) open(ring *keyring) (certs.CA, error) {
	list, err := certs.ParseCerts([]byte(a.CertPEM))
	if err != nil {
		return certs.CA{}, err
	}
	plain, err := ring.open(AuthoritySecret(a.Kind, a.Generation), a.dek, a.sealed)
	if err != nil {
		return certs.CA{}, err
	}
	defer clear(plain)
	key, err := certs.ParseKey(plain)
	return certs.CA{Cert: list[0], Key: key}, err
}

// Issuer is what signs the leaves of one kind now, and what goes with them.
type Issuer struct {
	certs.CA
	Generation uint64
	Operators  bool // the CA was brought by the operator
	// Chain is PEM that follows a leaf where it is presented. During a rotation it begins with this CA, certified by the
	// other one, so that clients that know the other alone verify the leaf; then comes the other CA, for clients that pin
	// it. This CA's own certificate comes last: OpenSSL takes the first certificate with the issuer's name and would stop
	// at a root that it does not trust.
	Chain []byte
	// Bundle is PEM of what is trusted, the CA itself first.
	Bundle []byte
}

// Trust is what members are to present and to accept, as of a revision. Callers must not modify it.
type Trust struct {
	Revision        uint64 // that last changed it
	HTTP, Transport Issuer
}

// Of returns the part of one kind.
func (t *Trust) Of(kind certs.Kind) *Issuer {
	if kind == certs.Transport {
		return &t.Transport
	}
	return &t.HTTP
}

// Trust reads who issues certificates and who is trusted, with the keys.
func (as Authorities) Trust(ctx context.Context, c Consistency) (*Trust, error) {
	return recall(ctx, as.s, c, "trust", []string{"authorities"}, func(v *View) (*Trust, error) {
		rev, err := v.trustRevision()
		t := &Trust{Revision: rev}
		for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
			if err == nil {
				*t.Of(kind), err = v.issuer(&as.s.keys, kind)
			}
		}
		return t, err
	})
}

func (v *View) trustRevision() (rev uint64, err error) {
	_, err = v.get("SELECT coalesce(max(modified_rev), 0) FROM authorities", nil, &rev)
	return rev, err
}

func (v *View) issuer(ring *keyring, kind certs.Kind) (i Issuer, err error) {
	list, err := v.inUse(kind)
	if err != nil {
		return i, err
	}
	a := &list[0]
	i.Generation, i.Operators = a.Generation, a.Origin == OriginOperator
	if i.CA, err = a.open(ring); err != nil {
		return i, err
	}
	i.Bundle = ownPEM(a)
	for j := range list[1:] {
		i.Bundle = append(i.Bundle, ownPEM(&list[1+j])...)
		i.Chain = append(append(i.Chain, a.crossPEM...), ownPEM(&list[1+j])...)
	}
	i.Chain = append(i.Chain, a.CertPEM...)
	return i, nil
}

// ownPEM is the CA's certificate alone: who certifies an operator's CA is not trusted for that.
func ownPEM(a *Authority) []byte {
	list, err := certs.ParseCerts([]byte(a.CertPEM))
	if err != nil {
		return nil // scanAuthority has parsed it
	}
	return certs.EncodeCert(list[0].Raw)
}

// Issuing returns the certificate authority of a kind that issues now, with its key.
func (as Authorities) Issuing(ctx context.Context, c Consistency, kind certs.Kind) (certs.CA, error) {
	t, err := as.Trust(ctx, c)
	if err != nil {
		return certs.CA{}, err
	}
	return t.Of(kind).CA, nil
}

// Bundle returns the certificates of the authorities of a kind that are trusted now, each as PEM, the one that
// issues first: during a rotation there are two. It reads the leader's state, or the local replica on other members. To
// watch it, wait for changes of the table "authorities" (AwaitChange on the leader, Mirror.Changed elsewhere).
func (as Authorities) Bundle(ctx context.Context, kind certs.Kind) (list []string, err error) {
	load := func(v *View) ([]string, error) {
		all, err := v.inUse(kind)
		bundle := make([]string, len(all))
		for i := range all {
			bundle[i] = string(ownPEM(&all[i]))
		}
		return bundle, err
	}
	list, err = recall(ctx, as.s, AsLeader, "bundle/"+string(kind), []string{"authorities"}, load)
	if errors.Is(err, ErrNotLeader) {
		err = as.s.Read(ctx, Stale, func(v *View) (err error) {
			list, err = load(v)
			return err
		})
	}
	return list, err
}

// AuthorityKind is everything about the authorities of one kind.
type AuthorityKind struct {
	Kind        certs.Kind
	Generations []Authority // oldest first
	Rotation    *CARotation // nil when none is under way
	Removed     *RemovedHolder
}

// RemovedHolder is a member that was removed after the active authority was made, and could read its key.
type RemovedHolder struct {
	NodeID    uint64
	Name      string
	RemovedAt time.Time
}

// List lists the authorities of both kinds with what is going on.
func (as Authorities) List(ctx context.Context, c Consistency) ([]AuthorityKind, error) {
	return recall(ctx, as.s, c, "authorities", []string{"authorities", "ca_rotations", "removed_members"},
		func(v *View) ([]AuthorityKind, error) {
			var out []AuthorityKind
			for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
				k := AuthorityKind{Kind: kind}
				var err error
				if k.Generations, err = collect(v, scanAuthority, selectAuthorities+" WHERE kind = ? ORDER BY generation",
					string(kind)); err != nil {
					return nil, err
				}
				if k.Rotation, err = v.caRotation(kind); err != nil {
					return nil, err
				}
				var r RemovedHolder
				var at string
				known, err := v.get(`SELECT r.raft_node_id, r.name, r.removed_at
				FROM removed_members r JOIN authorities a ON a.kind = ? AND a.state = 'active'
				WHERE r.recipient IS NOT NULL AND r.removed_rev > a.created_rev ORDER BY r.removed_rev DESC LIMIT 1`,
					[]any{string(kind)}, &r.NodeID, &r.Name, &at)
				if err != nil {
					return nil, err
				}
				if known {
					r.RemovedAt = parseTime(at)
					k.Removed = &r
				}
				out = append(out, k)
			}
			return out, nil
		})
}

// startCA makes the new authority, or takes the operator's, and has the old and the new one certify each other.
func (as Authorities) startCA(tx *Tx, q CARequest, kind certs.Kind, step func(string, ...any), out *CAChange) error {
	list, err := tx.inUse(kind)
	if err != nil {
		return err
	}
	old, err := list[0].open(&as.s.keys)
	if err != nil {
		return err
	}
	c, _, err := tx.Cluster()
	if err != nil {
		return err
	}
	a := Authority{Kind: kind, Origin: OriginMuster}
	if _, err := tx.get("SELECT max(generation) + 1 FROM authorities WHERE kind = ?", []any{string(kind)},
		&a.Generation); err != nil {
		return err
	}
	var next certs.CA
	if q.CertPEM == nil {
		if next, err = certs.NewSuccessor(kind, c.ID, a.Generation, tx.Now); err != nil {
			return err
		}
		a.CertPEM = string(certs.EncodeCert(next.Cert.Raw))
	} else if next, err = as.operatorsCA(tx, q, &list[0], &a, c.ID); err != nil {
		return err
	}
	crossNew, crossOld, warning := cross(old, next, tx.Now)
	if warning != "" {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", kind, warning))
	}
	if left := next.Cert.NotAfter.Sub(tx.Now); left < 3*expiryWarning {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: the new CA expires in %d days, and no certificate outlives it",
			kind, int(left.Hours()/24)))
	}
	overlap := DefaultCAOverlap
	if q.Overlap != nil {
		overlap = *q.Overlap
	}
	a.crossPEM = crossNew
	if err := as.insertSuccessor(tx, &a, next); err != nil {
		return err
	}
	if err := tx.execAll([]statement{
		{query: "UPDATE authorities SET cross_pem = ?, modified_rev = ? WHERE kind = ? AND state = 'active'",
			args: []any{crossOld, tx.Rev, string(kind)}},
		{query: `INSERT INTO ca_rotations (kind, phase, old_generation, new_generation, overlap_seconds, started_at,
			started_by, phase_at, modified_rev)
			VALUES (?, 'trust', ?, ?, ?, ?, ?, ?, ?)`,
			args: []any{string(kind), list[0].Generation, a.Generation, int64(overlap / time.Second), tx.Now, tx.actor.String(),
				tx.Now, tx.Rev}},
	}); err != nil {
		return err
	}
	holders, err := tx.trustHolders()
	if err != nil {
		return err
	}
	if kind == certs.HTTP {
		if err := tx.warnOfPins(overlap, out); err != nil {
			return err
		}
	}
	step("generation %d (%s, valid until %s) becomes trusted by %d members", a.Generation, next.Cert.Subject,
		rfc3339(next.Cert.NotAfter), len(holders))
	step("then it issues, and every member gets new certificates")
	step("%s after that generation %d is dropped and its key erased", overlap, list[0].Generation)
	return tx.audit("ca.rotate", caObject(kind), fmt.Sprintf("generation %d, %s", a.Generation, a.Origin))
}

// insertSuccessor stores an authority that is to be trusted, with its key.
func (as Authorities) insertSuccessor(tx *Tx, a *Authority, ca certs.CA) error {
	key, err := certs.EncodeKey(ca.Key)
	if err != nil {
		return err
	}
	defer clear(key)
	sealed, dek, err := as.s.keys.seal(AuthoritySecret(a.Kind, a.Generation), key)
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO authorities (kind, generation, state, origin, cert_pem, cross_pem, fingerprint,
		sealed_key, dek_generation, created_at, expires_at,
			created_rev, modified_rev) VALUES (?, ?, 'prepared', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(a.Kind), a.Generation, a.Origin, a.CertPEM, a.crossPEM, certs.Fingerprint(ca.Cert.Raw), sealed, dek, tx.Now,
		ca.Cert.NotAfter, tx.Rev, tx.Rev)
}

// operatorsCA checks what an operator brings.
func (as Authorities) operatorsCA(tx *Tx, q CARequest, old, a *Authority, clusterID string) (certs.CA, error) {
	members, err := tx.Members()
	if err != nil {
		return certs.CA{}, err
	}
	trial := certs.Leaf{Kind: a.Kind, ClusterID: clusterID, NodeID: 1, Name: "trial"}
	seen := map[string]bool{}
	for i := range members {
		g, err := tx.grantsOf(&members[i])
		if err != nil {
			return certs.CA{}, err
		}
		hosts, _, err := tx.certHosts(&members[i], g)
		if err != nil {
			return certs.CA{}, err
		}
		for _, h := range hosts {
			if !seen[h] {
				seen[h] = true
				trial.Hosts = append(trial.Hosts, h)
			}
		}
	}
	ca, chain, err := certs.ParseAuthority(q.CertPEM, q.KeyPEM, trial, tx.Now)
	if err != nil {
		return ca, refuse(Invalid, "%s", err.Error())
	}
	if certs.Fingerprint(ca.Cert.Raw) == old.Fingerprint {
		return ca, refuse(Conflict, "this is the %s CA that the cluster has already", a.Kind)
	}
	if ca.Cert.Subject.String() == old.Subject {
		return ca, refuse(Invalid,
			"the subject of the CA certificate must differ from that of the current %s CA: verifiers find an issuer by its "+
				"name", a.Kind)
	}
	other := certs.Transport
	if a.Kind == certs.Transport {
		other = certs.HTTP
	}
	others, err := tx.inUse(other)
	if err != nil {
		return ca, err
	}
	for i := range others {
		list, err := certs.ParseCerts([]byte(others[i].CertPEM))
		if err != nil {
			return ca, err
		}
		if bytes.Equal(list[0].RawSubjectPublicKeyInfo, ca.Cert.RawSubjectPublicKeyInfo) {
			return ca, refuse(Conflict,
				"this is the %s CA: with one key for both, a certificate of one listener would open the other", other)
		}
	}
	a.Origin = OriginOperator
	for _, c := range chain {
		a.CertPEM += string(certs.EncodeCert(c.Raw))
	}
	return ca, nil
}
