package cluster

import (
	"encoding/json"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/certs"
	"github.com/musterhq/muster/store"
)

// Plan is what the command line says about a member that is to be made.
type Plan struct {
	Name         string
	Mode         string
	APIAddress   string // host:port that others use
	RaftAddress  string
	Version      string
	OverlayCIDR  string // founder only
	OverlaySlice int
}

// Hosts lists every name and address under which the member may be asked for.
func (p Plan) Hosts() []string {
	list := p.addressHosts()
	if name, err := os.Hostname(); err == nil && !slices.Contains(list, name) {
		list = append(list, name)
	}
	return list
}

// addressHosts lists the hosts of the addresses that the member advertises.
func (p Plan) addressHosts() []string {
	var list []string
	for _, a := range []string{p.APIAddress, p.RaftAddress} {
		if host, _, err := net.SplitHostPort(a); err == nil && !slices.Contains(list, host) {
			list = append(list, host)
		}
	}
	return list
}

// Found prepares a directory to be the first member of a new cluster: keys, authorities, certificates, the
// administrator's token, and a sealed record of what the first transaction is to write. It may be repeated after
// a crash. The cluster exists once the store has made that transaction.
func Found(d *Dir, p Plan, now time.Time) (*Node, error) {
	if err := store.CheckOverlay(p.OverlayCIDR, p.OverlaySlice); err != nil {
		return nil, err
	}
	identity, err := d.Identity()
	if err != nil {
		return nil, err
	}
	n := &Node{ClusterID: uuid.NewString(), NodeID: 1, ID: uuid.NewString(), Name: p.Name, APIAddress: p.APIAddress, RaftAddress: p.RaftAddress, Peers: []Peer{}}
	dek := certs.NewDEK()
	wrap, err := certs.Wrap(dek[:], identity.Recipient().String())
	if err != nil {
		return nil, err
	}
	secret := certs.NewSecret()
	host, _, err := net.SplitHostPort(p.RaftAddress)
	if err != nil {
		return nil, err
	}
	f := store.Founding{ClusterID: n.ClusterID, CreatedAt: now, Wrap: wrap, AdminTokenID: store.NewID(), AdminHash: certs.HashSecret(secret),
		OverlayCIDR: p.OverlayCIDR, OverlaySlices: p.OverlaySlice,
		Member: store.Member{NodeID: 1, ID: n.ID, Name: p.Name, Mode: store.ModeFull, Role: store.RoleVoter, RaftAddress: p.RaftAddress,
			APIAddress: p.APIAddress, AdvertiseAddr: host, Recipient: identity.Recipient().String(), BinaryVersion: p.Version,
			MaxSchema: store.Schema, OS: runtime.GOOS, Arch: runtime.GOARCH, DrainState: store.DrainActive}}
	for _, purpose := range []string{store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT} {
		key, err := NewClusterKey(purpose)
		if err != nil {
			return nil, err
		}
		sealed, err := dek.Seal(store.KeySecret(purpose, 1), 1, key.Secret)
		if err != nil {
			return nil, err
		}
		f.Keys = append(f.Keys, store.SealedKey{Purpose: purpose, KID: key.KID, Public: key.Public, Sealed: sealed})
	}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		if err := foundAuthority(d, &f, n, p, kind, dek, now); err != nil {
			return nil, err
		}
	}
	if err := d.write(adminFile, []byte(secret+"\n"), 0o600); err != nil {
		return nil, err
	}
	record, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	if err := d.write(foundingFile, record, 0o600); err != nil {
		return nil, err
	}
	return n, d.SaveNode(n)
}

func foundAuthority(d *Dir, f *store.Founding, n *Node, p Plan, kind certs.Kind, dek certs.DEK, now time.Time) error {
	ca, err := certs.NewCA(kind, n.ClusterID, now)
	if err != nil {
		return err
	}
	caKey, err := certs.EncodeKey(ca.Key)
	if err != nil {
		return err
	}
	sealed, err := dek.Seal(store.AuthoritySecret(kind, 1), 1, caKey)
	if err != nil {
		return err
	}
	caPEM := certs.EncodeCert(ca.Cert.Raw)
	f.Authorities = append(f.Authorities, store.SealedAuthority{Kind: kind, CertPEM: string(caPEM), SealedKey: sealed, ExpiresAt: ca.Cert.NotAfter})

	record, err := d.ownLeaf(n, p, kind, ca, now)
	if err != nil {
		return err
	}
	f.Certificates = append(f.Certificates, record)
	return nil
}
