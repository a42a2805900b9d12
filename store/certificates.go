package store

import (
	"context"
	"crypto"
	"fmt"
	"math/big"
	"time"

	"github.com/musterhq/muster/certs"
)

// leafLifetime is how long a member's certificates are valid; they are renewed long before.
const leafLifetime = 90 * 24 * time.Hour

// Certificate is a leaf that the cluster issues. Its number is chosen before it is signed, so that the
// transaction which admits a member records it and the signing needs no transaction.
type Certificate struct {
	Serial    string     `json:"serial"` // lower hex
	Kind      certs.Kind `json:"kind"`
	NodeID    uint64     `json:"nodeId"`
	IssuedAt  time.Time  `json:"issuedAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
}

// NewCertificate chooses the number and the validity of a leaf.
func NewCertificate(kind certs.Kind, now time.Time) Certificate {
	return Certificate{Serial: certs.NewSerial().Text(16), Kind: kind, IssuedAt: now, ExpiresAt: now.Add(leafLifetime)}
}

// Sign makes the certificate, in DER. It begins an hour early, for machines whose clocks are slow.
func (c Certificate) Sign(ca certs.CA, pub crypto.PublicKey, clusterID, name string, hosts []string) ([]byte, error) {
	serial, ok := new(big.Int).SetString(c.Serial, 16)
	if !ok {
		return nil, fmt.Errorf("%q is not a serial number", c.Serial)
	}
	return ca.Sign(pub, certs.Leaf{Kind: c.Kind, ClusterID: clusterID, NodeID: c.NodeID, Name: name, Hosts: hosts, Serial: serial,
		NotBefore: c.IssuedAt.Add(-time.Hour), NotAfter: c.ExpiresAt})
}

func (t *Tx) insertCertificate(c Certificate) error {
	return t.exec("INSERT INTO certificates (serial, kind, raft_node_id, issued_at, expires_at, created_rev) VALUES (?, ?, ?, ?, ?, ?)",
		c.Serial, string(c.Kind), c.NodeID, c.IssuedAt, c.ExpiresAt, t.Rev)
}

// RecordCertificates notes leaves that are about to be signed for a member.
func (s *Store) RecordCertificates(ctx context.Context, actor Actor, nodeID uint64, list []Certificate) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		m, err := tx.Member(nodeID)
		if err != nil {
			return err
		}
		if m == nil {
			return errNoMember
		}
		for _, c := range list {
			if err := tx.insertCertificate(c); err != nil {
				return err
			}
		}
		return tx.audit("certificate.issue", nodeObject(nodeID), "")
	})
}
