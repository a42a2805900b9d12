package datadir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"muster/certs"
	"muster/store"
)

// Plan is what the command line specifies for a new member.
type Plan struct {
	Name         string
	NameGiven    bool // by the operator; otherwise the cluster may choose another one
	Mode         string
	APIAddress   string // host:port that others use
	RaftAddress  string
	Version      string
	OverlayCIDR  string // founder only
	OverlaySlice int
	HTTPCACert   []byte // founder only: an operator's CA and its key, PEM; nil to make one
	HTTPCAKey    []byte
	Datacenter   string // founder only; empty: dc1
}

// Hosts lists all names and addresses for the certificates of the member.
func (p Plan) Hosts() []string {
	list := p.AddressHosts()
	if name, err := os.Hostname(); err == nil && !slices.Contains(list, name) {
		list = append(list, name)
	}
	return list
}

// AddressHosts lists the hosts of the addresses that the member advertises.
func (p Plan) AddressHosts() []string {
	var list []string
	for _, a := range []string{p.APIAddress, p.RaftAddress} {
		if host, _, err := net.SplitHostPort(a); err == nil && !slices.Contains(list, host) {
			list = append(list, host)
		}
	}
	return list
}

func (p Plan) datacenter() string {
	if p.Datacenter == "" {
		return store.DefaultDatacenter
	}
	return p.Datacenter
}

// HasCA reports whether the directory trusts a CA certificate, PEM, for the API.
func (d *Dir) HasCA(pem []byte) (bool, error) {
	trusted, err := d.read(httpCAFile)
	return bytes.Contains(trusted, bytes.TrimSpace(pem)), err
}

// Found prepares a directory for the first member of a new cluster: keys, authorities, certificates, the
// administrator's token, and a sealed record of the first transaction. It may be repeated after a crash. The cluster
// exists once the store has committed that transaction.
func Found(d *Dir, p Plan, now time.Time) (*Node, error) {
	n, f, _, err := d.prepareFounding(p, now)
	if err != nil {
		return nil, err
	}
	return n, d.saveFounding(n, *f)
}

// prepareFounding makes everything of a new cluster but its record and node.json. It returns the data-encryption key
// that is wrapped in the record.
func (d *Dir) prepareFounding(p Plan, now time.Time) (*Node, *store.Founding, certs.DEK, error) {
	dek := certs.NewDEK()
	fail := func(err error) (*Node, *store.Founding, certs.DEK, error) { return nil, nil, dek, err }
	if err := store.CheckOverlay(p.OverlayCIDR, p.OverlaySlice); err != nil {
		return fail(err)
	}
	n := newNode(uuid.NewString(), 1, p)
	brought, err := p.broughtCA(n, now) // before any write
	if err != nil {
		return fail(err)
	}
	identity, err := d.Identity()
	if err != nil {
		return fail(err)
	}
	wrap, err := certs.Wrap(dek[:], identity.Recipient().String())
	if err != nil {
		return fail(err)
	}
	secret := certs.NewSecret()
	member, err := d.firstMember(n, p, identity)
	if err != nil {
		return fail(err)
	}
	f := &store.Founding{
		ClusterID:     n.ClusterID,
		CreatedAt:     now,
		Wrap:          wrap,
		AdminTokenID:  store.NewID(),
		AdminHash:     certs.HashSecret(secret),
		OverlayCIDR:   p.OverlayCIDR,
		OverlaySlices: p.OverlaySlice,
		Datacenter:    p.Datacenter,
		Member:        member,
	}
	if f.Keys, err = foundKeys(dek); err != nil {
		return fail(err)
	}
	if err := foundAuthority(d, f, n, p, certs.HTTP, brought, dek, now); err != nil {
		return fail(err)
	}
	if err := foundAuthority(d, f, n, p, certs.Transport, certs.CA{}, dek, now); err != nil {
		return fail(err)
	}
	return n, f, dek, d.write(adminFile, []byte(secret+"\n"), 0o600)
}

// foundKeys makes the first epoch of each key of a cluster.
func foundKeys(dek certs.DEK) (list []store.SealedKey, err error) {
	keys, err := store.NewKeys(store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		sealed, err := dek.Seal(store.KeySecret(key.Purpose, 1), 1, key.Secret)
		if err != nil {
			return nil, err
		}
		list = append(list, store.SealedKey{Purpose: key.Purpose, KID: key.KID, Public: key.Public, Sealed: sealed})
	}
	return list, nil
}

// saveFounding writes the files that the founder's first start needs; node.json comes last.
func (d *Dir) saveFounding(n *Node, f store.Founding) error {
	record, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := d.write(foundingFile, record, 0o600); err != nil {
		return err
	}
	return d.SaveNode(n)
}

// newNode returns the first member of a cluster.
func newNode(clusterID string, nodeID uint64, p Plan) *Node {
	return &Node{
		ClusterID:   clusterID,
		NodeID:      nodeID,
		ID:          uuid.Must(uuid.NewV7()).String(),
		Name:        p.Name,
		APIAddress:  p.APIAddress,
		RaftAddress: p.RaftAddress,
		Others:      []Place{},
	}
}

// firstMember returns the row of the first member of a cluster.
func (d *Dir) firstMember(n *Node, p Plan, identity *age.X25519Identity) (m store.Member, err error) {
	host, _, err := net.SplitHostPort(p.RaftAddress)
	if err != nil {
		return m, err
	}
	certKey, err := d.certKey()
	return store.Member{
		NodeID:        n.NodeID,
		ID:            n.ID,
		Name:          p.Name,
		Mode:          store.ModeFull,
		Role:          store.RoleVoter,
		RaftAddress:   p.RaftAddress,
		APIAddress:    p.APIAddress,
		AdvertiseAddr: host,
		Recipient:     identity.Recipient().String(),
		BinaryVersion: p.Version,
		MaxSchema:     store.LatestSchema(),
		OS:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		DrainState:    store.DrainActive,
		CertKey:       certKey,
	}, err
}

// broughtCA checks the operator's CA with a leaf of the founder. It returns an empty CA when the operator gave none.
func (p Plan) broughtCA(n *Node, now time.Time) (ca certs.CA, err error) {
	if p.HTTPCACert == nil {
		return ca, nil
	}
	trial := certs.Leaf{
		Kind:      certs.HTTP,
		ClusterID: n.ClusterID,
		NodeID:    n.NodeID,
		Name:      p.Name,
		Hosts:     p.Hosts(),
	}
	if ca, _, err = certs.ParseAuthority(p.HTTPCACert, p.HTTPCAKey, trial, now); err != nil {
		return ca, fmt.Errorf("--http-ca-cert and --http-ca-key: %w", err)
	}
	return ca, nil
}

// foundAuthority makes an authority, unless the operator gave one, and the founder's leaf.
func foundAuthority(d *Dir, f *store.Founding, n *Node, p Plan, kind certs.Kind, ca certs.CA, dek certs.DEK,
	now time.Time) (err error) {
	operators := ca.Key != nil
	if !operators {
		if ca, err = certs.NewCA(kind, n.ClusterID, now); err != nil {
			return err
		}
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
	chain := caPEM
	if operators {
		chain = p.HTTPCACert
	}
	f.Authorities = append(f.Authorities, store.SealedAuthority{
		Kind:      kind,
		CertPEM:   string(chain),
		SealedKey: sealed,
		ExpiresAt: ca.Cert.NotAfter,
		Operators: operators,
	})

	record, err := d.ownLeaf(n, p, kind, store.Issuer{CA: ca, Chain: chain, Bundle: caPEM}, now)
	if err != nil {
		return err
	}
	f.Certificates = append(f.Certificates, record)
	return nil
}
