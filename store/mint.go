package store

import (
	"context"
	"crypto/ed25519"
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

// NodeJWT signs the identity of a member with a key of purpose KeyJWT.
func (k *Key) NodeJWT(clusterID string, m *Member, now time.Time) (string, error) {
	return certs.MintNodeJWT(ed25519.NewKeyFromSeed(k.Secret), k.KID, clusterID, m.ID, m.NodeID, now)
}

// WrapFor gives a new holder the data-encryption key twice: as an age file for the database, as a sealed box for the
// wire.
func WrapFor(s *Store, recipient string, pub [32]byte) (wrap, sealed []byte, generation uint64, err error) {
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

// Issue signs a leaf of the record for a certificate request. The chain begins with it; the root is what to trust. Both
// are PEM.
func (c *Certificate) Issue(by *Issuer, csr []byte, clusterID, name string,
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
