package datadir

import (
	"context"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/store"
)

// restoreFile holds the state of a cluster that is founded from a backup, until the first start has imported it.
const restoreFile = "restore.db"

// Refound prepares an unused directory for the first member of a cluster that continues the one of an archive: with its
// identity, its authorities and its contents, and a new member whose id was never used. One of the identities must open
// the archive's keys. The cluster exists once the member has been started.
func Refound(ctx context.Context, d *Dir, a *store.Archive, identities []*age.X25519Identity, p Plan,
	now time.Time) (*Node, error) {
	r, err := store.OpenRefounding(ctx, a, identities)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	identity, err := d.Identity()
	if err != nil {
		return nil, err
	}
	n := newNode(r.ClusterID, r.NodeID, p)
	member, err := d.firstMember(n, p, identity)
	if err != nil {
		return nil, err
	}
	secret := certs.NewSecret()
	f := store.Refounder{AdminTokenID: store.NewID(), AdminHash: certs.HashSecret(secret),
		Rotation: store.DEKRotation{DEK: certs.NewDEK()}, Member: member}
	if f.Rotation.Keys, err = store.NewKeys(store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret,
		store.KeyJWT); err != nil {
		return nil, err
	}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		record, err := d.ownLeaf(n, p, kind, r.Issuers[kind], now)
		if err != nil {
			return nil, err
		}
		f.Certificates = append(f.Certificates, record)
	}
	if err := d.write(adminFile, []byte(secret+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := r.Write(f, now, d.file(restoreFile)); err != nil {
		return nil, err
	}
	return n, d.saveFounding(n, store.Founding{Import: restoreFile, Member: member})
}

// certKey returns the hash of this member's transport key, which it makes if necessary.
func (d *Dir) certKey() (string, error) {
	key, err := d.key(transportKey)
	if err != nil {
		return "", err
	}
	return certs.KeyHash(key.Public())
}

// ownLeaf makes this member's certificate of a kind and writes it with its key and authorities.
func (d *Dir) ownLeaf(n *Node, p Plan, kind certs.Kind, by store.Issuer, now time.Time) (store.Certificate, error) {
	names := filesOf(kind)
	record := store.NewCertificate(kind, now)
	record.NodeID = n.NodeID
	key, err := d.key(names.key)
	if err != nil {
		return record, err
	}
	hosts := p.Hosts()
	if kind == certs.Transport {
		hosts = append(hosts, certs.PeeringName(p.datacenter(), n.ClusterID))
	}
	leaf, err := record.Sign(by.CA, key.Public(), n.ClusterID, p.Name, hosts)
	if err != nil {
		return record, err
	}
	if err := d.write(names.cert, append(certs.EncodeCert(leaf), by.Chain...), 0o644); err != nil {
		return record, err
	}
	return record, d.write(names.ca, by.Bundle, 0o644)
}
