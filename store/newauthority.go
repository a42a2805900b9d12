package store

import (
	"bytes"
	"context"
	"crypto"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"muster/certs"
)

// startCA generates the new authority, or imports the operator's, and cross-signs the old and the new one.
func (as Authorities) startCA(tx *Tx, q CARequest, kind certs.Kind, step func(string, ...any), out *CAChange) error {
	list, err := tx.inUse(kind)
	if err != nil {
		return err
	}
	old, _, err := list[0].open(&as.s.keys)
	if err != nil {
		return err
	}
	a, next, err := as.successor(tx, q, &list[0])
	if err != nil {
		return err
	}
	crossNew, crossOld, warning := cross(old, next, tx.Now)
	if warning != "" {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", kind, warning))
	}
	if left := next.Cert.NotAfter.Sub(tx.Now); left < 3*expiryWarning {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: the new CA expires in %d days, and so do all its certificates",
			kind, int(left.Hours()/24)))
	}
	overlap := DefaultCAOverlap
	if q.Overlap != nil {
		overlap = *q.Overlap
	}
	a.crossPEM = crossNew
	a.State = AuthorityPrepared
	if err := as.insertAuthority(tx, &a, next); err != nil {
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

// successor generates the next authority of old's kind, or checks the operator's.
func (as Authorities) successor(tx *Tx, q CARequest, old *Authority) (a Authority, next certs.CA, err error) {
	c, _, err := tx.Cluster()
	if err != nil {
		return a, next, err
	}
	a = Authority{Kind: old.Kind, Origin: OriginMuster}
	if _, err := tx.get("SELECT max(generation) + 1 FROM authorities WHERE kind = ?", []any{string(a.Kind)},
		&a.Generation); err != nil {
		return a, next, err
	}
	if q.CertPEM != nil {
		next, err = as.operatorsCA(tx, q, old, &a, c.ID)
		return a, next, err
	}
	if next, err = certs.NewSuccessor(a.Kind, c.ID, a.Generation, tx.Now); err == nil {
		a.CertPEM = string(certs.EncodeCert(next.Cert.Raw))
	}
	return a, next, err
}

// operatorsCA checks an operator's CA.
func (as Authorities) operatorsCA(tx *Tx, q CARequest, old, a *Authority, clusterID string) (certs.CA, error) {
	members, err := tx.Members()
	if err != nil {
		return certs.CA{}, err
	}
	trial := certs.Leaf{Kind: a.Kind, ClusterID: clusterID, NodeID: 1, Name: "trial"}
	if a.Kind == certs.Workload { // it signs no certificates of members
		trial.Kind, members = certs.Transport, nil
	}
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
		return ca, refuse(Conflict, "the cluster already uses this %s CA", a.Kind)
	}
	if ca.Cert.Subject.String() == old.Subject {
		return ca, refuse(Invalid,
			"the subject of the CA certificate must differ from that of the current %s CA: verifiers find an issuer by its "+
				"name", a.Kind)
	}
	if err := tx.notAnother(a.Kind, ca); err != nil {
		return ca, err
	}
	a.Origin = OriginOperator
	for _, c := range chain {
		a.CertPEM += string(certs.EncodeCert(c.Raw))
	}
	return ca, nil
}

// notAnother rejects a CA that has the key of an authority of another kind.
func (t *Tx) notAnother(kind certs.Kind, ca certs.CA) error {
	kinds, err := t.kindsInUse()
	if err != nil {
		return err
	}
	for _, other := range kinds {
		if other == kind {
			continue
		}
		others, err := t.inUse(other)
		if err != nil {
			return err
		}
		for i := range others {
			list, err := certs.ParseCerts([]byte(others[i].CertPEM))
			if err != nil {
				return err
			}
			if bytes.Equal(list[0].RawSubjectPublicKeyInfo, ca.Cert.RawSubjectPublicKeyInfo) {
				return refuse(Conflict,
					"this is the %s CA: with one key for both, a certificate of one purpose would serve the other", other)
			}
		}
	}
	return nil
}

// insertAuthority stores an authority with its key. A workload authority also gets a key for JWT-SVIDs.
func (as Authorities) insertAuthority(tx *Tx, a *Authority, ca certs.CA) error {
	var key []byte
	var err error
	if a.Kind == certs.Workload {
		key, err = tx.newJWTAuthority(a.Generation, ca)
	} else {
		key, err = certs.EncodeKey(ca.Key)
	}
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
			created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(a.Kind), a.Generation, a.State, a.Origin, a.CertPEM, a.crossPEM, certs.Fingerprint(ca.Cert.Raw), sealed, dek,
		tx.Now, ca.Cert.NotAfter, tx.Rev, tx.Rev)
}

// newJWTAuthority generates a generation's key for JWT-SVIDs, stores its public part, and returns both private keys of
// the generation in the form in which they are sealed.
func (t *Tx) newJWTAuthority(generation uint64, ca certs.CA) ([]byte, error) {
	signs, err := certs.NewJWTAuthority()
	if err != nil {
		return nil, err
	}
	public, err := certs.EncodePublicKey(signs.Key.Public())
	if err != nil {
		return nil, err
	}
	if err := t.exec("INSERT INTO jwt_authorities (generation, kid, public, created_at) VALUES (?, ?, ?, ?)", generation,
		signs.KID, public, t.Now); err != nil {
		return nil, err
	}
	return certs.EncodeWorkloadKeys(ca, signs)
}

// BeginWorkload creates the first workload authority of a cluster. It does nothing when there is one, or when the
// schema does not support it yet.
func (as Authorities) BeginWorkload(ctx context.Context, actor Actor) error {
	return as.s.Write(ctx, actor, func(tx *Tx) error {
		if n, err := tx.SchemaVersion(); err != nil || n < workloadsSchema {
			return err
		}
		known, err := tx.get("SELECT 1 FROM authorities WHERE kind = 'workload' LIMIT 1", nil, new(int))
		if err != nil || known {
			return err
		}
		c, _, err := tx.Cluster()
		if err != nil {
			return err
		}
		ca, err := certs.NewCA(certs.Workload, c.ID, tx.Now)
		if err != nil {
			return err
		}
		a := Authority{
			Kind:       certs.Workload,
			Generation: 1,
			State:      AuthorityActive,
			Origin:     OriginMuster,
			CertPEM:    string(certs.EncodeCert(ca.Cert.Raw)),
		}
		if err := as.insertAuthority(tx, &a, ca); err != nil {
			return err
		}
		return tx.audit("ca.create", caObject(certs.Workload), "generation 1, "+OriginMuster)
	})
}

// ErrNoWorkloadCA: the cluster has no workload authority yet; its leader creates one as soon as the schema supports it.
var ErrNoWorkloadCA = errors.New("the cluster has no authority for identities of software yet; try again in a moment")

// TrustBundle returns the trust bundle that verifies the identities of this cluster's workloads. It has no secrets, so
// any member serves it from its mirror, with or without a leader.
func (as Authorities) TrustBundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	tables := []string{"authorities", "jwt_authorities"}
	b, err := recall(ctx, as.s, AsLeader, "trust-bundle", tables, (*View).trustBundle)
	if errors.Is(err, ErrNotLeader) {
		b, err = recall(ctx, as.s, Stale, "", nil, (*View).trustBundle)
	}
	return b, err
}

func (v *View) trustBundle() (*spiffebundle.Bundle, error) {
	list, err := collect(v, scanAuthority, selectAuthorities+` WHERE kind = 'workload' AND state <> 'retired'
		ORDER BY state <> 'active', generation DESC`)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNoWorkloadCA
	}
	c, _, err := v.Cluster()
	if err != nil {
		return nil, err
	}
	roots, err := certs.ParseCerts(bundleOf(list))
	if err != nil {
		return nil, err
	}
	keys := map[string]crypto.PublicKey{}
	if _, err := collect(v, func(rows *sql.Rows) (_ struct{}, err error) {
		var kid, public string
		if err = rows.Scan(&kid, &public); err == nil {
			keys[kid], err = certs.ParsePublicKey(public)
		}
		return struct{}{}, err
	}, "SELECT kid, public FROM jwt_authorities ORDER BY generation"); err != nil {
		return nil, err
	}
	sequence, err := v.trustRevision()
	if err != nil {
		return nil, err
	}
	return certs.NewBundle(c.ID, roots, keys, sequence)
}

// bundleOf returns the authorities' own certificates as PEM.
func bundleOf(list []Authority) (text []byte) {
	for i := range list {
		text = append(text, ownPEM(&list[i])...)
	}
	return text
}
