package native

import (
	"encoding/hex"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/internal/addr"
	"muster/store"
)

const (
	maxJoinTTL  = 366 * 86400
	maxJoinUses = 1_000_000
)

func (s *service) showJoinToken(t *store.JoinToken) api.JoinToken {
	return api.JoinToken{
		ID:        t.ID,
		NodeID:    t.NodeID,
		Mode:      t.Mode,
		Labels:    t.Labels,
		Format:    t.Format,
		BindCIDR:  t.BindCIDR,
		BindName:  t.BindName,
		BindKey:   t.BindKey,
		Hosts:     t.Hosts,
		State:     t.State(s.Now()),
		Uses:      t.Uses,
		MaxUses:   t.MaxUses,
		CreatedBy: t.CreatedBy,
		CreatedAt: api.Time(t.CreatedAt),
		ExpiresAt: api.Time(t.ExpiresAt),
	}
}

// createJoinToken is muster's own endpoint: optional node id, several uses, and mode and labels set by the token.
func (s *service) createJoinToken(q *handlers.Request) error {
	want, ttl, err := joinTokenRequest(q.Content)
	if err != nil {
		return err
	}
	ends := s.Now().Add(time.Duration(ttl) * time.Second).Truncate(time.Second)
	want.ExpiresAt = *q.NoLonger(&ends)
	t, err := s.Tokens.Mint(q.Context(), q.Actor, want)
	if err != nil {
		return err
	}
	out := s.showJoinToken(t)
	out.State, out.Token = "valid", t.Text // its state at creation, also for a repeated request
	return q.Result(http.StatusCreated, out)
}

// joinTokenRequest reads the body; ttl is in seconds. It rejects empty bindings: a token meant to be bound must not
// become one that everybody can use.
func joinTokenRequest(body []byte) (want store.JoinToken, ttl int64, err error) {
	f, err := handlers.ParseFields(body)
	if err != nil {
		return want, 0, err
	}
	want = store.JoinToken{
		Format:   f.Text("format", false, 1, 16),
		BindCIDR: f.Text("bindCidr", false, 1, 64),
		BindName: f.Line("bindName", false, 1, 128),
		BindKey:  f.Text("bindKey", false, 1, 64),
		NodeID:   uint64(f.Integer("nodeId", false, 1, certs.MaxNodeID)),
		Mode:     f.Text("mode", false, 1, 16),
		Labels:   f.Labels("labels"),
		Hosts:    f.Texts("hosts", false),
		MaxUses:  int(f.Integer("maxUses", false, 1, maxJoinUses)),
	}
	ttl = f.Integer("ttlSeconds", false, 1, maxJoinTTL)
	if err := f.End(); err != nil {
		return want, 0, err
	}
	if err := checkBinding(&want); err != nil {
		return want, 0, err
	}
	if want.Mode != "" && want.Mode != store.ModeFull && want.Mode != store.ModeReplicate {
		return want, 0, handlers.Fail(http.StatusBadRequest, "mode must be full or replicate")
	}
	if want.MaxUses == 0 {
		want.MaxUses = 1
	}
	if want.NodeID != 0 && want.MaxUses != 1 {
		return want, 0, handlers.Fail(http.StatusBadRequest,
			"maxUses must be 1 for a token with a nodeId: one id is one member")
	}
	if ttl == 0 {
		ttl = handlers.DefaultTokenTTL
	}
	return want, ttl, nil
}

// checkBinding checks the format and the bindings of a token, and the label that puts whoever joins with it into a
// zone.
func checkBinding(t *store.JoinToken) error {
	bad := func(text string) error { return handlers.Fail(http.StatusBadRequest, text) }
	if t.Format != "" && t.Format != store.FormatMuster && t.Format != store.FormatZLayer {
		return bad("format must be muster or zlayer")
	}
	if t.BindCIDR != "" {
		p, err := netip.ParsePrefix(t.BindCIDR)
		if err != nil || p != p.Masked() {
			return bad("bindCidr must be a prefix such as 10.0.0.0/8")
		}
	}
	if zone, given := t.Labels["zone"]; given {
		if err := store.CheckZone(zone); err != nil {
			return bad("labels: " + err.Error())
		}
	}
	if _, err := path.Match(t.BindName, ""); err != nil {
		return bad("bindName must be a pattern such as web-*")
	}
	if _, err := addr.ParseHostList(t.Hosts); err != nil {
		return bad("hosts must be " + addr.HostListRule + ": " + err.Error())
	}
	if b, err := hex.DecodeString(t.BindKey); t.BindKey != "" &&
		(err != nil || len(b) != 32 || t.BindKey != strings.ToLower(t.BindKey)) {
		return bad("bindKey must be the SHA-256 of a raw X25519 public key, 64 lower-case hexadecimal digits")
	}
	return nil
}

func (s *service) listJoinTokens(q *handlers.Request) error {
	tokens, err := s.JoinTokens.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	uses, err := s.JoinTokens.Uses(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	by := map[string][]api.TokenUse{}
	for _, u := range uses {
		by[u.TokenID] = append(by[u.TokenID], api.TokenUse{NodeID: u.NodeID, UsedAt: api.Time(u.UsedAt), Remote: u.Remote})
	}
	list := make([]api.JoinToken, len(tokens))
	for i := range tokens {
		list[i] = s.showJoinToken(&tokens[i])
		list[i].UsedBy = by[tokens[i].ID]
	}
	return q.Result(http.StatusOK, list)
}

func (s *service) revokeJoinToken(q *handlers.Request) error {
	if err := s.JoinTokens.Revoke(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Join token revoked"})
}
