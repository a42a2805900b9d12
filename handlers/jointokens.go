package handlers

import (
	"net/http"
	"time"

	"github.com/musterhq/muster/certs"
	"github.com/musterhq/muster/store"
)

const (
	defaultTokenTTL = 1800  // seconds
	minMintTTL      = 300   // of the documented endpoint
	maxMintTTL      = 86400 // of the documented endpoint
	maxJoinTTL      = 366 * 86400
	maxJoinUses     = 1_000_000
)

// mintJoinToken is the documented endpoint: a single-use token for one node id (reference ella_members, 1.2).
func (s *Server) mintJoinToken(q *request) error {
	f, err := parseFields(q.body)
	if err != nil {
		return fail(http.StatusBadRequest, "decode body")
	}
	var node, ttl int64
	if !f.get("nodeID", false, "", &node) && f.err != nil || !f.get("ttlSeconds", false, "", &ttl) && f.err != nil {
		return fail(http.StatusBadRequest, "decode body")
	}
	if node < 1 || node > certs.MaxNodeID {
		return fail(http.StatusBadRequest, "nodeID must be in [1, 9007199254740991]")
	}
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	if ttl < minMintTTL || ttl > maxMintTTL {
		return fail(http.StatusBadRequest, "ttlSeconds must be between 300 and 86400")
	}
	token, t, err := s.newJoinToken(q, store.JoinToken{NodeID: uint64(node), MaxUses: 1}, ttl)
	if err != nil {
		return err
	}
	return q.result(http.StatusCreated, struct {
		Token     string `json:"token"`
		ExpiresAt int64  `json:"expiresAt"`
		ID        string `json:"id"`
	}{token, t.ExpiresAt.Unix(), t.ID})
}

type joinToken struct {
	ID        string            `json:"id"`
	Token     string            `json:"token,omitempty"`
	NodeID    uint64            `json:"nodeId,omitempty"`
	Mode      string            `json:"mode,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	State     string            `json:"state"`
	Uses      int               `json:"uses"`
	MaxUses   int               `json:"maxUses"`
	CreatedBy string            `json:"createdBy"`
	CreatedAt string            `json:"createdAt"`
	ExpiresAt string            `json:"expiresAt"`
}

func (s *Server) showJoinToken(t *store.JoinToken) joinToken {
	return joinToken{ID: t.ID, NodeID: t.NodeID, Mode: t.Mode, Labels: t.Labels, State: t.State(s.Now()), Uses: t.Uses, MaxUses: t.MaxUses,
		CreatedBy: t.CreatedBy, CreatedAt: t.CreatedAt.UTC().Format(timeFormat), ExpiresAt: t.ExpiresAt.UTC().Format(timeFormat)}
}

// createJoinToken is our own: id optional, several uses, mode and labels decided by whoever makes the token.
func (s *Server) createJoinToken(q *request) error {
	f, err := parseFields(q.body)
	if err != nil {
		return err
	}
	want := store.JoinToken{NodeID: uint64(f.integer("nodeId", false, 1, certs.MaxNodeID)), Mode: f.text("mode", false, 0, 16),
		Labels: f.labels("labels"), MaxUses: int(f.integer("maxUses", false, 1, maxJoinUses))}
	ttl := f.integer("ttlSeconds", false, 1, maxJoinTTL)
	if f.err != nil {
		return f.err
	}
	if want.Mode != "" && want.Mode != store.ModeFull && want.Mode != store.ModeReplicate {
		return fail(http.StatusBadRequest, "mode must be full or replicate")
	}
	if want.MaxUses == 0 {
		want.MaxUses = 1
	}
	if want.NodeID != 0 && want.MaxUses != 1 {
		return fail(http.StatusBadRequest, "maxUses must be 1 for a token with a nodeId: one id is one member")
	}
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	token, t, err := s.newJoinToken(q, want, ttl)
	if err != nil {
		return err
	}
	out := s.showJoinToken(t)
	out.Token = token
	return q.result(http.StatusCreated, out)
}

// newJoinToken stores a token and computes its text: the same record gives the same text, so that a repeated
// request is answered alike.
func (s *Server) newJoinToken(q *request, t store.JoinToken, ttl int64) (string, *store.JoinToken, error) {
	ctx := q.Context()
	t.ID, t.Format = store.NewID(), "muster"
	t.ExpiresAt = s.Now().Add(time.Duration(ttl) * time.Second)
	t, err := s.Store.CreateJoinToken(ctx, q.actor, t)
	if err != nil {
		return "", nil, err
	}
	key, err := s.Store.Secret(ctx, store.SecretJoinKey)
	if err != nil {
		return "", nil, err
	}
	ca, err := s.Store.Authority(ctx, certs.HTTP)
	if err != nil {
		return "", nil, err
	}
	members, err := s.Store.PeekMembers(ctx)
	if err != nil {
		return "", nil, err
	}
	claims := certs.JoinClaims{ID: t.ID, NodeID: t.NodeID, IssuedAt: t.CreatedAt.Unix(), ExpiresAt: t.ExpiresAt.Unix(), LCP: certs.Fingerprint(s.Leaf()),
		ClusterID: s.ClusterID, CAFingerprint: certs.Fingerprint(ca.Cert.Raw), Addresses: joinAddresses(members, rolesOf(s.Store.Servers()))}
	text, err := certs.MintJoinToken(key, claims)
	return text, &t, err
}

// joinAddresses are the API addresses that a token carries: the Raft servers, so that it stays short and stays
// good when some of them are gone.
func joinAddresses(members []store.Member, roles map[uint64]store.Role) []string {
	var list []string
	for i := range members {
		if roles[members[i].NodeID] != store.RoleNone {
			list = append(list, members[i].APIAddress)
		}
	}
	return list
}

func (s *Server) listJoinTokens(q *request) error {
	tokens, err := s.Store.JoinTokens(q.Context(), store.Linearisable)
	if err != nil {
		return err
	}
	list := make([]joinToken, len(tokens))
	for i := range tokens {
		list[i] = s.showJoinToken(&tokens[i])
	}
	return q.result(http.StatusOK, list)
}

func (s *Server) revokeJoinToken(q *request) error {
	if err := s.Store.RevokeJoinToken(q.Context(), q.actor, q.vars()["id"]); err != nil {
		return err
	}
	return q.result(http.StatusOK, message{"Join token revoked"})
}
