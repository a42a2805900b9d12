package handlers

import (
	"crypto/ed25519"
	"encoding/hex"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"muster/addr"
	"muster/certs"
	"muster/hostlist"
	"muster/store"
)

const (
	defaultTokenTTL = 1800 // seconds

	maxJoinTTL  = 366 * 86400
	maxJoinUses = 1_000_000
)

type joinToken struct {
	ID        string            `json:"id"`
	Token     string            `json:"token,omitempty"`
	NodeID    uint64            `json:"nodeId,omitempty"`
	Mode      string            `json:"mode,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Format    string            `json:"format"`
	BindCIDR  string            `json:"bindCidr,omitempty"`
	BindName  string            `json:"bindName,omitempty"`
	BindKey   string            `json:"bindKey,omitempty"`
	Hosts     []string          `json:"hosts,omitempty"`
	UsedBy    []tokenUse        `json:"usedBy,omitempty"`
	State     string            `json:"state"`
	Uses      int               `json:"uses"`
	MaxUses   int               `json:"maxUses"`
	CreatedBy string            `json:"createdBy"`
	CreatedAt string            `json:"createdAt"`
	ExpiresAt string            `json:"expiresAt"`
}

type tokenUse struct {
	NodeID uint64 `json:"nodeId"`
	UsedAt string `json:"usedAt"`
	Remote string `json:"remote"`
}

func (s *Server) showJoinToken(t *store.JoinToken) joinToken {
	return joinToken{ID: t.ID, NodeID: t.NodeID, Mode: t.Mode, Labels: t.Labels, Format: t.Format,
		BindCIDR: t.BindCIDR, BindName: t.BindName, BindKey: t.BindKey, Hosts: t.Hosts, State: t.State(s.Now()), Uses: t.Uses, MaxUses: t.MaxUses,
		CreatedBy: t.CreatedBy, CreatedAt: t.CreatedAt.UTC().Format(TimeFormat), ExpiresAt: t.ExpiresAt.UTC().Format(TimeFormat)}
}

// createJoinToken is our own: id optional, several uses, mode and labels decided by whoever makes the token.
func (s *Server) createJoinToken(q *Request) error {
	f, err := ParseFields(q.Content)
	if err != nil {
		return err
	}
	want := store.JoinToken{Format: f.Text("format", false, 0, 16), BindCIDR: f.Text("bindCidr", false, 0, 64), BindName: f.Text("bindName", false, 0, 128),
		BindKey: f.Text("bindKey", false, 0, 64), NodeID: uint64(f.Integer("nodeId", false, 1, certs.MaxNodeID)), Mode: f.Text("mode", false, 0, 16),
		Labels: f.Labels("labels"), Hosts: f.Texts("hosts", false), MaxUses: int(f.Integer("maxUses", false, 1, maxJoinUses))}
	ttl := f.Integer("ttlSeconds", false, 1, maxJoinTTL)
	if f.Err != nil {
		return f.Err
	}
	if err := checkBinding(&want); err != nil {
		return err
	}
	if want.Mode != "" && want.Mode != store.ModeFull && want.Mode != store.ModeReplicate {
		return Fail(http.StatusBadRequest, "mode must be full or replicate")
	}
	if want.MaxUses == 0 {
		want.MaxUses = 1
	}
	if want.NodeID != 0 && want.MaxUses != 1 {
		return Fail(http.StatusBadRequest, "maxUses must be 1 for a token with a nodeId: one id is one member")
	}
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	token, t, err := s.newJoinToken(q, want, ttl)
	if err != nil {
		return err
	}
	out := s.showJoinToken(t)
	out.State, out.Token = "valid", token // as when it was made, also when the request is a repetition
	return q.Result(http.StatusCreated, out)
}

// checkBinding checks the format of a token and what it is to be bound to.
func checkBinding(t *store.JoinToken) error {
	bad := func(text string) error { return Fail(http.StatusBadRequest, text) }
	if t.Format != "" && t.Format != store.FormatMuster && t.Format != store.FormatZLayer {
		return bad("format must be muster or zlayer")
	}
	if t.BindCIDR != "" {
		p, err := netip.ParsePrefix(t.BindCIDR)
		if err != nil || p != p.Masked() {
			return bad("bindCidr must be a prefix such as 10.0.0.0/8")
		}
	}
	if _, err := path.Match(t.BindName, ""); err != nil {
		return bad("bindName must be a pattern such as web-*")
	}
	if _, err := hostlist.Parse(t.Hosts); err != nil {
		return bad("hosts must be " + hostlist.Rule + ": " + err.Error())
	}
	if b, err := hex.DecodeString(t.BindKey); t.BindKey != "" && (err != nil || len(b) != 32 || t.BindKey != strings.ToLower(t.BindKey)) {
		return bad("bindKey must be the SHA-256 of a raw X25519 public key, 64 lower-case hexadecimal digits")
	}
	return nil
}

// newJoinToken makes the text of a token and stores its record: a repeated request gets the first text, whoever leads. It
// fails with store.ErrKeyMoved when the key that signs it is replaced meanwhile: a token must not be dead before it is
// given out.
func (s *Server) newJoinToken(q *Request, t store.JoinToken, ttl int64) (text string, made *store.JoinToken, err error) {
	t.ExpiresAt = s.Now().Add(time.Duration(ttl) * time.Second).Truncate(time.Second)
	t.ExpiresAt = *q.NoLonger(&t.ExpiresAt)
	if t.Format == store.FormatZLayer {
		return s.newSignedToken(q, t)
	}
	return s.newHMACToken(q, t)
}

// newHMACToken makes a token in the documented format of the members family.
func (s *Server) newHMACToken(q *Request, t store.JoinToken) (string, *store.JoinToken, error) {
	ctx := q.Context()
	t.ID, t.Format = store.NewID(), store.FormatMuster
	key, err := s.Store.ActiveKey(ctx, store.KeyJoinHMAC)
	if err != nil {
		return "", nil, err
	}
	ca, err := s.Store.Authority(ctx, certs.HTTP)
	if err != nil {
		return "", nil, err
	}
	members, err := s.Store.RaftMembers(ctx)
	if err != nil {
		return "", nil, err
	}
	claims := certs.JoinClaims{ID: t.ID, NodeID: t.NodeID, IssuedAt: s.Now().Unix(), ExpiresAt: t.ExpiresAt.Unix(), LCP: certs.Fingerprint(s.Leaf()),
		ClusterID: s.ClusterID, CAFingerprint: certs.Fingerprint(ca.Cert.Raw), Addresses: joinAddresses(members)}
	if t.Text, err = certs.MintJoinToken(key.Secret, claims); err != nil {
		return "", nil, err
	}
	t.KeyEpoch = key.Epoch
	// Last: an error behind the write would be taken for one before it, and the request repeated.
	if t, err = s.Store.CreateJoinToken(ctx, q.Actor, t); err != nil {
		return "", nil, err
	}
	return t.Text, &t, nil // of the first time, when the request is a repetition
}

// newSignedToken makes a token in ZLayer's format, from which a stock joiner finds its way: it dials
// http://<api_endpoint>, so this member's --plain-http listener is named when there is one.
func (s *Server) newSignedToken(q *Request, t store.JoinToken) (string, *store.JoinToken, error) {
	ctx := q.Context()
	key, err := s.Store.ActiveKey(ctx, store.KeyJoinSigning)
	if err != nil {
		return "", nil, err
	}
	self, err := s.Store.PeekMember(ctx, s.Store.NodeID())
	if err != nil {
		return "", nil, err
	}
	cidr, err := s.Store.OverlayCIDR(ctx)
	if err != nil {
		return "", nil, err
	}
	endpoint := self.APIAddress
	if s.PlainHTTP != "" {
		endpoint = s.PlainHTTP
	}
	text, err := certs.MintSignedToken(ed25519.NewKeyFromSeed(key.Secret), certs.SignedClaims{APIEndpoint: endpoint, RaftEndpoint: self.RaftAddress,
		LeaderWGPubkey: self.WGPublicKey, OverlayCIDR: cidr, Exp: certs.SignedTime(t.ExpiresAt), Iat: certs.SignedTime(s.Now()), Iss: self.ID})
	if err != nil {
		return "", nil, err
	}
	signed, err := certs.ParseSignedToken(text)
	if err != nil {
		return "", nil, err
	}
	t.ID, t.Text, t.KeyEpoch = signed.ID(), text, key.Epoch
	if t, err = s.Store.CreateJoinToken(ctx, q.Actor, t); err != nil {
		return "", nil, err
	}
	return t.Text, &t, nil // of the first time, when the request is a repetition
}

// joinAddresses are the API addresses that a token carries: the Raft servers, so that it stays short and stays
// good when some of them are gone. What nobody can dial is left out: an older muster let members advertise it.
func joinAddresses(members []store.Member) []string {
	var list []string
	for i := range members {
		if addr.Check(members[i].APIAddress) == nil {
			list = append(list, members[i].APIAddress)
		}
	}
	return list
}

func (s *Server) listJoinTokens(q *Request) error {
	tokens, err := s.Store.JoinTokens(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	uses, err := s.Store.JoinTokenUses(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	by := map[string][]tokenUse{}
	for _, u := range uses {
		by[u.TokenID] = append(by[u.TokenID], tokenUse{u.NodeID, u.UsedAt.UTC().Format(TimeFormat), u.Remote})
	}
	list := make([]joinToken, len(tokens))
	for i := range tokens {
		list[i] = s.showJoinToken(&tokens[i])
		list[i].UsedBy = by[tokens[i].ID]
	}
	return q.Result(http.StatusOK, list)
}

func (s *Server) revokeJoinToken(q *Request) error {
	if err := s.Store.RevokeJoinToken(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, Message{"Join token revoked"})
}
