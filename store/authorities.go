package store

import (
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
	AuthorityTrusted  = "trusted"  // no longer issues, still trusted
	AuthorityRetired  = "retired"  // not trusted; its key is erased
)

// Origins of a certificate authority.
const (
	OriginMuster   = "muster"
	OriginOperator = "operator" // imported by the operator
)

// Authority is one generation of a certificate authority, without its key.
type Authority struct {
	Kind        certs.Kind
	Generation  uint64
	State       string
	Origin      string
	CertPEM     string // the CA's own certificate, then its issuers'
	Fingerprint string
	Subject     string // RFC 2253
	NotBefore   time.Time
	NotAfter    time.Time
	CreatedAt   time.Time

	crossPEM string // the CA cross-signed by the other CA of a rotation
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

// inUse returns the trusted authorities of a kind, the issuing one first.
func (v *View) inUse(kind certs.Kind) ([]Authority, error) {
	list, err := collect(v, scanAuthority,
		selectAuthorities+` WHERE kind = ? AND state IN ('prepared', 'active', 'trusted')
		ORDER BY state <> 'active', generation DESC`, string(kind))
	if err == nil && (len(list) == 0 || list[0].State != AuthorityActive) {
		err = fmt.Errorf("store: there is no active %s authority", kind)
	}
	return list, err
}

// open opens the authority's key, and a workload authority's key for JWT-SVIDs.
func (a *Authority) open(ring *keyring) (ca certs.CA, signs certs.JWTAuthority, err error) {
	list, err := certs.ParseCerts([]byte(a.CertPEM))
	if err != nil {
		return ca, signs, err
	}
	plain, err := ring.open(AuthoritySecret(a.Kind, a.Generation), a.dek, a.sealed)
	if err != nil {
		return ca, signs, err
	}
	defer clear(plain)
	if a.Kind == certs.Workload {
		key, signs, err := certs.ParseWorkloadKeys(plain)
		return certs.CA{Cert: list[0], Key: key}, signs, err
	}
	key, err := certs.ParseKey(plain)
	return certs.CA{Cert: list[0], Key: key}, certs.JWTAuthority{}, err
}

// Issuer is the authority that signs leaves of one kind, with the certificates to present and to trust.
type Issuer struct {
	certs.CA
	Generation uint64
	Operators  bool // the CA was imported by the operator
	// Chain is the PEM text to present after a leaf. During a rotation it begins with this CA cross-signed by the other
	// one, so that clients that trust only the other one verify the leaf; then the other CA, for clients that pin it.
	// This CA's own certificate comes last: OpenSSL uses the first certificate with the issuer's name and would stop at a
	// root that it does not trust.
	Chain []byte
	// Bundle is the PEM text of the trusted CAs, this CA first.
	Bundle []byte
	// JWT signs JWT-SVIDs; only the workload authority has one.
	JWT certs.JWTAuthority
}

// Trust is the set of authorities that issue and are trusted, as of a revision. Callers must not modify it.
type Trust struct {
	Revision        uint64 // that last changed it
	HTTP, Transport Issuer
	Workload        Issuer // generation 0 while the cluster has none
}

// Of returns the issuer of one kind.
func (t *Trust) Of(kind certs.Kind) *Issuer {
	switch kind {
	case certs.Transport:
		return &t.Transport
	case certs.Workload:
		return &t.Workload
	}
	return &t.HTTP
}

// kindsInUse lists the kinds of authorities that this cluster has: with an older schema there is no workload authority.
func (v *View) kindsInUse() ([]certs.Kind, error) {
	return collect(v, func(rows *sql.Rows) (kind certs.Kind, err error) {
		return kind, rows.Scan((*string)(&kind))
	}, "SELECT DISTINCT kind FROM authorities ORDER BY kind")
}

// Trust returns the authorities that issue, with their keys, and those that are trusted.
func (as Authorities) Trust(ctx context.Context, c Consistency) (*Trust, error) {
	return recall(ctx, as.s, c, "trust", []string{"authorities"}, func(v *View) (*Trust, error) {
		rev, err := v.trustRevision()
		if err != nil {
			return nil, err
		}
		t := &Trust{Revision: rev}
		kinds, err := v.kindsInUse()
		for _, kind := range kinds {
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
	if i.CA, i.JWT, err = a.open(ring); err != nil {
		return i, err
	}
	i.Bundle = bundleOf(list)
	for j := range list[1:] {
		i.Chain = append(append(i.Chain, a.crossPEM...), ownPEM(&list[1+j])...)
	}
	i.Chain = append(i.Chain, a.CertPEM...)
	return i, nil
}

// ownPEM returns the CA's own certificate without its chain: the issuers of an operator's CA are not trusted.
func ownPEM(a *Authority) []byte {
	list, err := certs.ParseCerts([]byte(a.CertPEM))
	if err != nil {
		return nil // cannot happen: scanAuthority has parsed it
	}
	return certs.EncodeCert(list[0].Raw)
}

// Issuing returns the issuing certificate authority of a kind, with its key.
func (as Authorities) Issuing(ctx context.Context, c Consistency, kind certs.Kind) (certs.CA, error) {
	t, err := as.Trust(ctx, c)
	if err != nil {
		return certs.CA{}, err
	}
	return t.Of(kind).CA, nil
}

// Bundle returns the certificates of the trusted authorities of a kind, each as PEM, the issuing one first; there are
// two during a rotation. It reads the leader's state, or the local replica on other members. To watch it, wait for
// changes of the table "authorities" (AwaitChange on the leader, Mirror.Changed elsewhere).
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

// AuthorityKind has the authorities of one kind with their rotation.
type AuthorityKind struct {
	Kind        certs.Kind
	Generations []Authority // oldest first
	Rotation    *CARotation // nil: none in progress
	Removed     *RemovedHolder
}

// RemovedHolder is a member that was removed after the active authority was created and could have read its key.
type RemovedHolder struct {
	NodeID    uint64
	Name      string
	RemovedAt time.Time
}

// List lists the authorities of all kinds with their rotations.
func (as Authorities) List(ctx context.Context, c Consistency) ([]AuthorityKind, error) {
	return recall(ctx, as.s, c, "authorities", []string{"authorities", "ca_rotations", "removed_members"},
		func(v *View) ([]AuthorityKind, error) {
			var out []AuthorityKind
			kinds, err := v.kindsInUse()
			if err != nil {
				return nil, err
			}
			for _, kind := range kinds {
				k := AuthorityKind{Kind: kind}
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
