package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"muster/certs"
	"muster/internal/addr"
)

// JoinTokenMint creates join tokens: it signs their texts and records them.
type JoinTokenMint struct {
	Store     *Store
	ClusterID string
	PlainHTTP string        // address of this member's listener without TLS, if it has one
	Leaf      func() []byte // DER of the certificate that the API listener presents
	Now       func() time.Time
}

// Mint creates a token; a repeated request gets the first text from any leader. It returns ErrKeyMoved when the signing
// key is replaced in the meantime, so that a token is not superseded before it is returned.
func (j *JoinTokenMint) Mint(ctx context.Context, actor Actor, t JoinToken) (made *JoinToken, err error) {
	if t.Format == FormatZLayer {
		err = j.sign(ctx, &t)
	} else {
		err = j.authenticate(ctx, &t)
	}
	if err != nil {
		return nil, err
	}
	// This must be last: an error after the write would look like one before it, and the request would be repeated.
	t, err = j.Store.JoinTokens.Create(ctx, actor, t)
	return &t, err // the first token, when the request is repeated
}

// authenticate creates the text of a token in the members family's format, with a MAC.
func (j *JoinTokenMint) authenticate(ctx context.Context, t *JoinToken) error {
	t.ID, t.Format = NewID(), FormatMuster
	key, err := j.Store.Keys.Active(ctx, AsLeader, KeyJoinHMAC)
	if err != nil {
		return err
	}
	ca, err := j.Store.Authorities.Issuing(ctx, AsLeader, certs.HTTP)
	if err != nil {
		return err
	}
	members, err := j.Store.Members.Raft(ctx, AsLeader)
	if err != nil {
		return err
	}
	t.KeyEpoch = key.Epoch
	t.Text, err = certs.MintJoinToken(key.Secret, certs.JoinClaims{
		ID:            t.ID,
		NodeID:        t.NodeID,
		IssuedAt:      j.Now().Unix(),
		ExpiresAt:     t.ExpiresAt.Unix(),
		LCP:           certs.Fingerprint(j.Leaf()),
		ClusterID:     j.ClusterID,
		CAFingerprint: certs.Fingerprint(ca.Cert.Raw),
		Addresses:     JoinAddresses(members),
	})
	return err
}

// sign creates the text of a token in ZLayer's format. A stock joiner dials http://<api_endpoint>, so that is this
// member's --plain-http listener, if it has one.
func (j *JoinTokenMint) sign(ctx context.Context, t *JoinToken) error {
	key, err := j.Store.Keys.Active(ctx, AsLeader, KeyJoinSigning)
	if err != nil {
		return err
	}
	self, err := j.Store.Members.Get(ctx, AsLeader, j.Store.NodeID())
	if err != nil {
		return err
	}
	cidr, err := j.Store.Settings.OverlayCIDR(ctx, AsLeader)
	if err != nil {
		return err
	}
	endpoint := self.APIAddress
	if j.PlainHTTP != "" {
		endpoint = j.PlainHTTP
	}
	t.Text, err = certs.MintSignedToken(ed25519.NewKeyFromSeed(key.Secret), certs.SignedClaims{
		APIEndpoint:    endpoint,
		RaftEndpoint:   self.RaftAddress,
		LeaderWGPubkey: self.WGPublicKey,
		OverlayCIDR:    cidr,
		Exp:            certs.SignedTime(t.ExpiresAt),
		Iat:            certs.SignedTime(j.Now()),
		Iss:            self.ID,
	})
	if err != nil {
		return err
	}
	signed, err := certs.ParseSignedToken(t.Text)
	if err != nil {
		return err
	}
	t.ID, t.KeyEpoch = signed.ID(), key.Epoch
	return nil
}

// JoinAddresses returns the API addresses for a token: those of the Raft servers, so that it is short and still works
// when some are gone. It omits addresses that cannot be dialled, which older versions let members advertise.
func JoinAddresses(members []Member) []string {
	var list []string
	for i := range members {
		if addr.Check(members[i].APIAddress) == nil {
			list = append(list, members[i].APIAddress)
		}
	}
	return list
}

// nodeJWT signs the identity of a member with a key of purpose KeyJWT.
func (k *Key) nodeJWT(clusterID string, m *Member, now time.Time) (string, error) {
	return certs.MintNodeJWT(ed25519.NewKeyFromSeed(k.Secret), k.KID, clusterID, m.ID, m.NodeID, now)
}

// wrapFor encrypts the data-encryption key for a new holder twice: as an age file for the database, and as a sealed box
// for the wire.
func (s *Store) wrapFor(recipient string, pub [32]byte) (wrap, sealed []byte, generation uint64, err error) {
	dek, generation, err := s.Keys.ActiveDEK()
	if err != nil {
		return nil, nil, 0, err
	}
	if wrap, err = certs.Wrap(dek[:], recipient); err != nil {
		return nil, nil, 0, err
	}
	sealed, err = certs.SealBox(dek[:], pub)
	return wrap, sealed, generation, err
}

// issue signs the leaf of a record for a CSR. It returns the chain, leaf first, and the root to trust, both PEM.
func (c *Certificate) issue(by *Issuer, csr []byte, clusterID, name string,
	hosts []string) (chain, root string, err error) {
	request, err := certs.ParseCSR(csr)
	if err != nil {
		return "", "", err
	}
	der, err := c.Sign(by.CA, request.PublicKey, clusterID, name, hosts)
	if err != nil {
		return "", "", err
	}
	return string(certs.EncodeCert(der)) + string(by.Chain), string(by.Bundle), nil
}

// NodeTokens issues node identities, which software on a member presents.
type NodeTokens struct {
	Store     *Store
	ClusterID string
	Now       func() time.Time
}

// Mint signs the identity of a member and returns it with its expiry.
func (n *NodeTokens) Mint(ctx context.Context, m *Member) (text string, ends time.Time, err error) {
	key, err := n.Store.Keys.Active(ctx, AsLeader, KeyJWT)
	if err != nil {
		return "", ends, err
	}
	now := n.Now()
	text, err = key.nodeJWT(n.ClusterID, m, now)
	return text, now.Add(certs.NodeJWTLifetime), err
}

// Admissions admits machines to the cluster.
type Admissions struct {
	Store     *Store
	ClusterID string
	Now       func() time.Time
}

// Applicant is a machine that asks to join. Admit fills in the certificates and the wrap of its Joiner.
type Applicant struct {
	Joiner
	HTTPCSR, TransportCSR []byte // DER; nil for none
}

// Leaf is an issued certificate, as PEM.
type Leaf struct {
	Kind  certs.Kind
	Chain string // the certificate first
	Root  string // CAs to trust; several during a rotation
}

// Admission is the answer for an admitted machine.
type Admission struct {
	Joined
	Voter      bool
	JoinSecret string
	NodeJWT    string // empty for a machine without a key
	WrappedDEK []byte // a sealed box for its key; nil: no key
	Leaves     []Leaf
	Raft       []Member // the Raft servers
	Others     []Member // some of the other members, possibly including the joiner
}

// admissionBasis is the state that an admission needs. It is read before the write, so that a failed read does not
// leave a registered member without an answer.
type admissionBasis struct {
	secret, jwt  *Key
	trust        *Trust
	raft, others []Member
	peering      string // this cluster's TLS server name for other clusters
}

// Admit admits a machine. Repeated with the same token and key it gives the same identity. others is the maximum number
// of members outside Raft in the answer. It blocks until the join is committed or ctx ends.
func (a *Admissions) Admit(ctx context.Context, actor Actor, in Applicant, others int) (Admission, error) {
	for _, c := range []struct {
		kind certs.Kind
		csr  []byte
	}{{certs.HTTP, in.HTTPCSR}, {certs.Transport, in.TransportCSR}} {
		if c.csr != nil {
			in.Certificates = append(in.Certificates, NewCertificate(c.kind, a.Now()))
		}
	}
	var err error
	if in.CertKey, err = certKeyOf(in.TransportCSR); err != nil {
		return Admission{}, err
	}
	for {
		out, err := a.admit(ctx, actor, &in, others)
		if !errors.Is(err, ErrKeyMoved) && !errors.Is(err, ErrAuthorityMoved) || ctx.Err() != nil {
			return out, err
		}
	}
}

// certKeyOf returns the hash of the public key in a CSR; "" without a CSR.
func certKeyOf(csr []byte) (string, error) {
	if csr == nil {
		return "", nil
	}
	request, err := certs.ParseCSR(csr)
	if err != nil {
		return "", err
	}
	return certs.KeyHash(request.PublicKey)
}

func (a *Admissions) basis(ctx context.Context, others int) (b admissionBasis, err error) {
	if b.secret, err = a.Store.Keys.Active(ctx, AsLeader, KeyJoinSecret); err != nil {
		return b, err
	}
	if b.jwt, err = a.Store.Keys.Active(ctx, AsLeader, KeyJWT); err != nil {
		return b, err
	}
	if b.trust, err = a.Store.Authorities.Trust(ctx, AsLeader); err != nil {
		return b, err
	}
	datacenter, err := a.Store.Settings.Datacenter(ctx)
	if err != nil {
		return b, err
	}
	b.peering = certs.PeeringName(datacenter, a.ClusterID)
	if b.raft, err = a.Store.Members.Raft(ctx, AsLeader); err != nil {
		return b, err
	}
	b.others, err = a.Store.Members.Others(ctx, AsLeader, others)
	return b, err
}

func (a *Admissions) admit(ctx context.Context, actor Actor, in *Applicant, others int) (out Admission, err error) {
	b, err := a.basis(ctx, others)
	if err != nil {
		return out, err
	}
	for i := range in.Certificates {
		in.Certificates[i].Authority = b.trust.Of(in.Certificates[i].Kind).Generation
	}
	var sealed []byte
	if in.PublicKey != nil {
		if in.Wrap, sealed, in.DEKGeneration, err = a.Store.wrapFor(in.Member.Recipient,
			[32]byte(in.PublicKey)); err != nil {
			return out, err
		}
	}
	joined, err := a.Store.Members.Join(ctx, actor, in.Joiner)
	if err != nil {
		return out, err
	}
	out = Admission{
		Joined:     joined,
		JoinSecret: string(b.secret.Secret),
		WrappedDEK: sealed,
		Raft:       b.raft,
		Others:     b.others,
	}
	out.DEKGeneration = in.DEKGeneration
	for _, v := range a.Store.Servers() {
		out.Voter = out.Voter || v.NodeID == joined.Member.NodeID && v.Role == RoleVoter
	}
	if joined.Member.Recipient != "" {
		if out.NodeJWT, err = b.jwt.nodeJWT(a.ClusterID, &joined.Member, a.Now()); err != nil {
			return out, err
		}
	}
	return out, a.certify(&out, in, b)
}

// certify signs the requested certificates.
func (a *Admissions) certify(out *Admission, in *Applicant, b admissionBasis) error {
	for i := range out.Certificates {
		record := &out.Certificates[i]
		csr, hosts := in.HTTPCSR, slices.Clone(out.Hosts)
		if record.Kind == certs.Transport {
			csr, hosts = in.TransportCSR, append(hosts, b.peering)
		}
		leaf := Leaf{Kind: record.Kind}
		var err error
		if leaf.Chain, leaf.Root, err = record.issue(b.trust.Of(record.Kind), csr, a.ClusterID, out.Member.Name,
			hosts); err != nil {
			return err
		}
		out.Leaves = append(out.Leaves, leaf)
	}
	return nil
}
