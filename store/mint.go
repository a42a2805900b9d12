package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"muster/addr"
	"muster/certs"
)

// JoinTokenMint makes the texts of join tokens and records them.
type JoinTokenMint struct {
	Store     *Store
	ClusterID string
	PlainHTTP string        // address of this member's listener without TLS, if it has one
	Leaf      func() []byte // DER of the certificate that the API listener presents
	Now       func() time.Time
}

// Mint makes a token: a repeated request gets the first text, whoever leads. It fails with ErrKeyMoved when the key
// that signs it is replaced meanwhile: a token must not be dead before it is given out.
func (j *JoinTokenMint) Mint(ctx context.Context, actor Actor, t JoinToken) (made *JoinToken, err error) {
	if t.Format == FormatZLayer {
		err = j.sign(ctx, &t)
	} else {
		err = j.authenticate(ctx, &t)
	}
	if err != nil {
		return nil, err
	}
	// Last: an error behind the write would be taken for one before it, and the request repeated.
	t, err = j.Store.JoinTokens.Create(ctx, actor, t)
	return &t, err // of the first time, when the request is a repetition
}

// authenticate makes a token in the documented format of the members family.
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

// sign makes a token in ZLayer's format, from which a stock joiner finds its way: it dials http://<api_endpoint>, so
// this member's --plain-http listener is named when there is one.
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

// JoinAddresses are the API addresses that a token carries: the Raft servers, so that it stays short and stays
// good when some of them are gone. What nobody can dial is left out: an older muster let members advertise it.
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

// wrapFor gives a new holder the data-encryption key twice: as an age file for the database, as a sealed box for the
// wire.
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

// issue signs a leaf of the record for a certificate request. The chain begins with it; the root is what to trust. Both
// are PEM.
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

// NodeTokens makes the identities that members show to software.
type NodeTokens struct {
	Store     *Store
	ClusterID string
	Now       func() time.Time
}

// Mint signs the identity of a member and returns it with the time at which it ends.
func (n *NodeTokens) Mint(ctx context.Context, m *Member) (text string, ends time.Time, err error) {
	key, err := n.Store.Keys.Active(ctx, AsLeader, KeyJWT)
	if err != nil {
		return "", ends, err
	}
	now := n.Now()
	text, err = key.nodeJWT(n.ClusterID, m, now)
	return text, now.Add(certs.NodeJWTLifetime), err
}

// Admissions lets machines in.
type Admissions struct {
	Store     *Store
	ClusterID string
	Now       func() time.Time
}

// Applicant is a machine that asks to be let in. The certificates and the wrap of its Joiner are made here.
type Applicant struct {
	Joiner
	HTTPCSR, TransportCSR []byte // DER; nil for none
}

// Leaf is a certificate that was issued, as PEM.
type Leaf struct {
	Kind  certs.Kind
	Chain string // the certificate first
	Root  string // what to trust; during a rotation several
}

// Admission is what a machine that was let in is told.
type Admission struct {
	Joined
	Voter      bool
	JoinSecret string
	NodeJWT    string // empty for a machine without a key
	WrappedDEK []byte // a sealed box for its key; nil without one
	Leaves     []Leaf
	Raft       []Member // the Raft servers
	Others     []Member // some of the other members, the joiner perhaps among them
}

// admissionBasis is what admissions rest on. It is read before anything is written: a read that fails must not leave a
// member that was told nothing.
type admissionBasis struct {
	secret, jwt  *Key
	trust        *Trust
	raft, others []Member
	peering      string // the name under which other clusters ask for this one
}

// Admit lets a machine in, once: repeated with the same token and key it gives the same identity. others bounds the
// members outside Raft that it tells of. It blocks until that is committed or ctx ends.
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

// certKeyOf is the hash of the public key that a transport certificate is asked for; empty when none is.
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

// certify signs the certificates that were asked for.
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
