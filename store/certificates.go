package store

import (
	"context"
	"crypto"
	"database/sql"
	"fmt"
	"math/big"
	"strings"
	"time"

	"muster/certs"
)

const (
	// LeafBackdate is how far the start of a leaf's validity is backdated, for machines with slow clocks.
	LeafBackdate = time.Hour
	// certificateKept is how long the record of a certificate is kept after its expiry.
	certificateKept = 30 * 24 * time.Hour
	// expiryWarning is how long before its expiry a certificate in use is reported.
	expiryWarning = 30 * 24 * time.Hour
	// expiryBatch bounds the warnings of one transaction.
	expiryBatch = 200
)

// LeafLifetime is the validity of a member's certificates, which are renewed long before their expiry. It is a variable
// so that tests can let them expire.
var LeafLifetime = 90 * 24 * time.Hour

// Certificate is the record of a leaf. Its serial number is chosen before it is signed, so that the transaction that
// admits a member can record it, and signing happens outside the transaction.
type Certificate struct {
	Serial    string     `json:"serial"` // lower hex
	Kind      certs.Kind `json:"kind"`
	NodeID    uint64     `json:"nodeId"`
	Authority uint64     `json:"authority,omitempty"` // generation of its CA; 0: the active one
	IssuedAt  time.Time  `json:"issuedAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
}

// CertificateKinds lists the kinds of recorded certificates.
var CertificateKinds = []string{string(certs.HTTP), string(certs.Transport), string(CertEnrolled),
	string(CertIntermediate)}

// NewCertificate chooses the serial number and the validity of a leaf.
func NewCertificate(kind certs.Kind, now time.Time) Certificate {
	return Certificate{Serial: certs.NewSerial().Text(16), Kind: kind, IssuedAt: now, ExpiresAt: now.Add(LeafLifetime)}
}

// Sign issues the certificate, in DER. Its validity is backdated by LeafBackdate and ends no later than its CA's.
func (c Certificate) Sign(ca certs.CA, pub crypto.PublicKey, clusterID, name string, hosts []string) ([]byte, error) {
	serial, ok := new(big.Int).SetString(c.Serial, 16)
	if !ok {
		return nil, fmt.Errorf("%q is not a serial number", c.Serial)
	}
	return ca.Sign(pub, certs.Leaf{
		Kind:      c.Kind,
		ClusterID: clusterID,
		NodeID:    c.NodeID,
		Name:      name,
		Hosts:     hosts,
		Serial:    serial,
		NotBefore: c.IssuedAt.Add(-LeafBackdate),
		NotAfter:  c.ExpiresAt,
	})
}

// insertCertificate records a leaf. It returns ErrAuthorityMoved when its authority has been rotated since it was
// chosen.
func (t *Tx) insertCertificate(c Certificate) error {
	if err := t.boundCertificates(c.NodeID); err != nil {
		return err
	}
	var generation uint64
	var ends string
	known, err := t.get("SELECT generation, expires_at FROM authorities WHERE kind = ? AND state = 'active'",
		[]any{string(c.Kind)}, &generation, &ends)
	if err != nil {
		return err
	}
	if known {
		if c.Authority != 0 && c.Authority != generation {
			return ErrAuthorityMoved
		}
		if end := parseTime(ends); end.Before(c.ExpiresAt) {
			c.ExpiresAt = end
		}
	}
	return t.exec("INSERT INTO certificates (serial, kind, raft_node_id, authority, issued_at, expires_at, "+
		"created_rev) VALUES (?, ?, ?, ?, ?, ?, ?)",
		c.Serial, string(c.Kind), c.NodeID, optional(generation), c.IssuedAt, c.ExpiresAt, t.Rev)
}

// CertHosts splits a member's hosts into those in its certificates, and those left out because they are neither allowed
// nor proven, or because another member has them.
type CertHosts struct {
	For, LeftOut []string
}

// Record records leaves that will be signed for a member and returns their hosts. It returns ErrAuthorityMoved when the
// chosen authority no longer issues.
func (cs Certificates) Record(ctx context.Context, actor Actor, nodeID uint64, list []Certificate,
	e HostEvidence) (CertHosts, error) {
	return makeOnce(ctx, cs.s, actor, func(tx *Tx) (out CertHosts, err error) {
		m, err := tx.Member(nodeID)
		if err != nil {
			return out, err
		}
		if m == nil {
			return out, errNoMember
		}
		g, err := tx.grantsOf(m)
		if err != nil {
			return out, err
		}
		if g, err = tx.prove(m, g, e); err != nil {
			return out, err
		}
		if err := tx.setGrants(nodeID, g); err != nil {
			return out, err
		}
		if out.For, out.LeftOut, err = tx.certHosts(m, g); err != nil {
			return out, err
		}
		for _, c := range list {
			if err := tx.insertCertificate(c); err != nil {
				return out, err
			}
		}
		detail := ""
		if len(out.LeftOut) > 0 {
			detail = "without " + strings.Join(out.LeftOut, ", ") + ", neither allowed nor proven"
		}
		return out, tx.audit("certificate.issue", nodeObject(nodeID), detail)
	})
}

// IssuedCertificate is a leaf with its state.
type IssuedCertificate struct {
	Certificate
	NodeName  string // empty when the node was removed
	RevokedAt *time.Time
	Current   bool // the member's newest of its kind
}

// CertificateFilter selects certificates; zero fields select all.
type CertificateFilter struct {
	NodeID        uint64
	Kind          string
	ExpiresBefore time.Time
	CurrentOnly   bool
	Limit         int
}

// List lists leaves by expiry, the earliest first.
func (cs Certificates) List(ctx context.Context, c Consistency,
	f CertificateFilter) (list []IssuedCertificate, err error) {
	before := "9999"
	if !f.ExpiresBefore.IsZero() {
		before = rfc3339(f.ExpiresBefore)
	}
	err = cs.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (c IssuedCertificate, err error) {
			var issued, ends string
			var node, authority sql.NullInt64
			var name, revoked sql.NullString
			err = rows.Scan(&c.Serial, (*string)(&c.Kind), &node, &authority, &issued, &ends, &revoked, &name, &c.Current)
			c.NodeID, c.Authority, c.NodeName = uint64(node.Int64), uint64(authority.Int64), name.String
			c.IssuedAt, c.ExpiresAt, c.RevokedAt = parseTime(issued), parseTime(ends), nullTime(revoked)
			return c, err
		}, `SELECT c.serial, c.kind, c.raft_node_id, c.authority, c.issued_at, c.expires_at, c.revoked_at, m.name,
			m.name IS NOT NULL AND c.revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM certificates n
			WHERE n.raft_node_id = c.raft_node_id AND n.kind = c.kind AND n.created_rev > c.created_rev) AS current
			FROM certificates c LEFT JOIN members m USING (raft_node_id)
			WHERE (?1 = 0 OR c.raft_node_id = ?1) AND (?2 = '' OR c.kind = ?2) AND c.expires_at < ?3 AND (NOT ?4 OR current)
			ORDER BY c.expires_at, c.serial LIMIT ?5`,
			int64(f.NodeID), f.Kind, before, f.CurrentOnly, int64(f.Limit))
		return err
	})
	return list, err
}

// Expiry is the expiry of a leaf or an authority in use.
type Expiry struct {
	Kind     string // "http" or "transport" for a member's leaf, "http-ca" or "transport-ca" for an authority
	NodeID   uint64 // of leaves
	Name     string // of the member, or the fingerprint of the authority
	NotAfter time.Time

	serial     string // of leaves
	generation uint64 // of authorities
	warned     bool   // or not needed: a leaf that expires with its authority
}

// String describes the certificate.
func (e *Expiry) String() string {
	if e.NodeID == 0 {
		return fmt.Sprintf("the %s authority, generation %d,", strings.TrimSuffix(e.Kind, "-ca"), e.generation)
	}
	return fmt.Sprintf("the %s certificate of node %d", e.Kind, e.NodeID)
}

// DaysLeft is negative once it has expired.
func (e *Expiry) DaysLeft(now time.Time) float64 { return e.NotAfter.Sub(now).Hours() / 24 }

// Expiries lists the expiries of the certificates in use: the newest leaf of each kind of every member, and the trusted
// authorities. It does not list certificates of software that is not a member.
func (cs Certificates) Expiries(ctx context.Context, c Consistency) ([]Expiry, error) {
	return recall(ctx, cs.s, c, "expiries", []string{"certificates", "authorities", "members"}, (*View).expiries)
}

func (v *View) expiries() ([]Expiry, error) {
	return collect(v, func(rows *sql.Rows) (e Expiry, err error) {
		var ends string
		err = rows.Scan(&e.Kind, &e.NodeID, &e.Name, &ends, &e.serial, &e.generation, &e.warned)
		e.NotAfter = parseTime(ends)
		return e, err
	}, `SELECT kind || '-ca', 0, fingerprint, expires_at, '', generation, warned_at IS NOT NULL FROM authorities
		WHERE state <> 'retired'
		UNION ALL SELECT kind, raft_node_id, name, expires_at, serial, 0, warned FROM (
			SELECT c.kind, c.raft_node_id, m.name, c.expires_at, c.serial,
			c.warned_at IS NOT NULL OR EXISTS (SELECT 1 FROM authorities a
			WHERE a.kind = c.kind AND a.generation = c.authority AND a.expires_at <= c.expires_at) AS warned,
			row_number() OVER (PARTITION BY c.raft_node_id, c.kind ORDER BY c.created_rev DESC, c.expires_at DESC) AS n
			FROM certificates c JOIN members m USING (raft_node_id)
			WHERE c.revoked_at IS NULL AND c.kind IN ('http', 'transport'))
		WHERE n = 1`)
}

// WarnOfExpiry writes one audit row for each certificate in use that expires within 30 days, and returns those newly
// reported.
func (cs Certificates) WarnOfExpiry(ctx context.Context, actor Actor) (warned []Expiry, err error) {
	all, err := recall(ctx, cs.s, AsLeader, "expiries", []string{"certificates", "authorities", "members"},
		(*View).expiries)
	if err != nil || len(expiring(all, cs.s.cfg.Now())) == 0 {
		return nil, err
	}
	err = cs.s.Write(ctx, actor, func(tx *Tx) (err error) {
		warned, err = tx.warnOfExpiry()
		return err
	})
	return warned, err
}

// expiring selects the expiries to warn of.
func expiring(list []Expiry, now time.Time) (out []Expiry) {
	for _, e := range list {
		if !e.warned && e.NotAfter.Before(now.Add(expiryWarning)) && len(out) < expiryBatch {
			out = append(out, e)
		}
	}
	return out
}

func (t *Tx) warnOfExpiry() ([]Expiry, error) {
	all, err := t.expiries()
	if err != nil {
		return nil, err
	}
	list := expiring(all, t.Now)
	for i := range list {
		e := &list[i]
		kind := strings.TrimSuffix(e.Kind, "-ca")
		object := "certificate/" + e.serial
		if e.NodeID == 0 {
			object = "ca/" + kind
			err = t.exec("UPDATE authorities SET warned_at = ? WHERE kind = ? AND generation = ?", t.Now, kind, e.generation)
		} else {
			err = t.exec("UPDATE certificates SET warned_at = ? WHERE serial = ?", t.Now, e.serial)
		}
		if err != nil {
			return nil, err
		}
		if err := t.audit("certificate.expiring", object,
			fmt.Sprintf("%v expires at %s", e, rfc3339(e.NotAfter))); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Revoked lists the revoked certificates of an authority that have not expired.
func (cs Certificates) Revoked(ctx context.Context, c Consistency, kind certs.Kind) (list []certs.Revoked, err error) {
	enrolled := CertEnrolled
	if kind == certs.HTTP {
		enrolled = CertIntermediate
	}
	err = cs.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (r certs.Revoked, err error) {
			var at string
			err = rows.Scan(&r.Serial, &at)
			r.At = parseTime(at)
			return r, err
		}, "SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL AND kind IN (?, ?) "+
			"AND expires_at >= ? ORDER BY revoked_at, serial",
			string(kind), string(enrolled), rfc3339(v.Now))
		return err
	})
	return list, err
}
