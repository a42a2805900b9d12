package handlers

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"muster/certs"
	"muster/store"
)

// Credential is what a request shows: a bare secret, or an id with its secret. With Basic the id may also be the name
// of an API token.
type Credential struct{ Scheme, ID, Secret string }

// Reason is why a caller is not let in.
type Reason int

const (
	NoCredential      Reason = iota // none was shown, or one that cannot be read
	UnknownCredential               // it is nobody's
	UnknownKey                      // no API key has this id
	WrongSecret                     // an API key has this id, and another secret
	KeyEnded                        // Denial.Key is revoked or has expired
	KeyUsedUp                       // Denial.Key has been used as often as it may
	MissingScope                    // the caller is known and may not
)

// Denial is why a request is not let in; its family says it in its own words.
type Denial struct {
	Reason     Reason
	Credential Credential    // as it was shown
	Key        *store.APIKey // whose credential it is, where that is a key that is good no more
	Scope      string        // what it would take
}

// credential reads the credential from wherever the families put it (design section 8.9). The documented
// precedence of Nomad holds: its own header wins over Authorization.
func (f *Family) credential(r *http.Request) (c Credential, ok bool) {
	if f.Credential != nil {
		if c, ok := f.Credential(r); c.Secret != "" {
			return c, ok
		}
	}
	for _, h := range []string{"X-Nomad-Token", "X-Consul-Token"} {
		if v := strings.TrimSpace(r.Header.Get(h)); v != "" {
			return Credential{Secret: v}, true
		}
	}
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	scheme, rest = strings.ToLower(scheme), strings.TrimSpace(rest)
	switch scheme {
	case "bearer":
		secret, _, _ := strings.Cut(rest, " ")
		return Credential{Scheme: scheme, Secret: secret}, secret != ""
	case "apikey":
		raw, err := base64.StdEncoding.DecodeString(rest)
		id, secret, found := strings.Cut(string(raw), ":")
		return Credential{scheme, id, secret}, err == nil && found && id != "" && secret != ""
	case "basic":
		id, secret, found := r.BasicAuth()
		return Credential{scheme, id, secret}, found && id != "" && secret != ""
	}
	return Credential{}, false
}

// admit finds out who is asking and whether they may.
func (s *Server) admit(rt *Route, o origin, q *Request) error {
	q.Actor = store.Actor{NodeID: s.Store.NodeID(), Remote: remoteOf(q.Request, o)}
	if q.vouched != nil {
		q.Token, q.Actor.Accessor, q.Actor.Name = q.vouched, q.vouched.ID, q.vouched.Name
		return nil
	}
	if !rt.asks() {
		return nil
	}
	let := s.admitCommon
	if rt.Admit != nil {
		let = rt.Admit
	}
	err := let(q)
	if q.Token != nil {
		q.Actor.Accessor, q.Actor.Name = q.Token.ID, q.Token.Name
	}
	return err
}

// Recheck asks again who is calling, and whether they may: for a request that has waited.
func (q *Request) Recheck() error { return q.server.admit(q.route, q.origin, q) }

// admitCommon lets in who shows a member's identity or a credential that has the scope of the route.
func (s *Server) admitCommon(q *Request) error {
	denial, err := s.authenticate(q)
	if err == nil && denial == nil && !q.Allows(q.route.Scope) {
		denial = &Denial{Reason: MissingScope}
	}
	if err != nil || denial == nil {
		return err
	}
	denial.Scope = q.route.Scope
	return q.route.Family.deny(q, denial)
}

// AdmitKnown lets in who shows a credential that the cluster knows, whatever it allows.
func AdmitKnown(q *Request) error {
	denial, err := q.server.authenticate(q)
	if err != nil || denial == nil {
		return err
	}
	return q.route.Family.deny(q, denial)
}

// deny says why a request is not let in.
func (f *Family) deny(q *Request, d *Denial) (err error) {
	switch {
	case f.Denied != nil:
		err = f.Denied(q, d)
	case d.Reason == MissingScope:
		err = Fail(f.Forbidden.Status, f.Forbidden.Text)
	default:
		return Fail(f.Unauthenticated.Status, f.Unauthenticated.Text)
	}
	if d.Reason == MissingScope {
		return Lacks(d.Scope, err)
	}
	return err
}

// HeaderScope names the scope that a refused request would have taken.
const HeaderScope = "X-Muster-Scope"

// lacking is the refusal of a caller that is known and lacks a scope.
type lacking struct {
	error
	scope string
}

func (e *lacking) Unwrap() error { return e.error }

// Lacks adds to a refusal, which a family says in its own words, the scope that the caller lacks. The answer names it
// in HeaderScope.
func Lacks(scope string, refusal error) error { return &lacking{refusal, scope} }

// Allows reports whether the credential allows what the route does. An enrollment token enrolls and does nothing else.
func (q *Request) Allows(scope string) bool {
	return q.Token.Allows(scope) && (q.route.Enrolls || q.Key == nil || q.Key.Kind != store.KeyKindEnrollment)
}

// authenticate finds whose credential a request shows, a member's among them.
func (s *Server) authenticate(q *Request) (*Denial, error) {
	q.Token = nil
	if !q.Stale {
		token, err := s.authenticateNode(q)
		if q.Token = token; err != nil || token != nil {
			return nil, err
		}
	}
	return q.Identify()
}

// Identify finds whose API token or key the request shows, and sets Token and Key; when it is nobody's, it returns why,
// and the request counts as a failed attempt.
func (q *Request) Identify() (*Denial, error) {
	q.Token = nil
	c, ok := q.route.Family.credential(q.Request)
	if !ok {
		q.Failed = true
		return &Denial{Reason: NoCredential}, nil
	}
	denial, err := q.server.recognise(q, c)
	q.Failed = err == nil && denial != nil
	return denial, err
}

// recognise finds whose credential it is and sets Token and Key.
func (s *Server) recognise(q *Request, c Credential) (*Denial, error) {
	ctx, from := q.Context(), q.Consistency()
	token, err := s.findToken(ctx, from, c)
	switch {
	case err != nil:
		return nil, err
	case token != nil:
		q.Token = token
		return nil, nil
	case c.ID == "":
		return &Denial{Reason: UnknownCredential, Credential: c}, nil
	}
	known, err := s.Store.APITokens.ByID(ctx, from, c.ID)
	if err != nil {
		return nil, err
	}
	key, err := s.Store.APIKeys.ByID(ctx, from, c.ID)
	denied := func(why Reason) (*Denial, error) { return &Denial{Reason: why, Credential: c, Key: key}, nil }
	switch {
	case err != nil:
		return nil, err
	case key == nil && known == nil:
		return denied(UnknownKey)
	case key == nil, subtle.ConstantTimeCompare([]byte(key.SecretHash), []byte(certs.HashSecret(c.Secret))) != 1:
		return denied(WrongSecret)
	case key.Refusal(s.Now()) != "":
		return denied(KeyEnded)
	}
	if key.UsedUp() {
		again, err := s.repeats(q, key)
		if err != nil {
			return nil, err
		}
		if !again {
			return denied(KeyUsedUp)
		}
	}
	q.Key, q.Token = key, key.Token()
	return nil, nil
}

// repeats reports whether what has used a key up is this very request, an earlier time.
func (s *Server) repeats(q *Request, key *store.APIKey) (bool, error) {
	again := q.Header.Get(HeaderKey)
	if !q.route.Enrolls || again == "" || len(again) > maxIdempotencyKey {
		return false, nil
	}
	return s.Store.Answered(q.Context(), store.Actor{Accessor: key.ID, IdempotencyKey: again, RequestHash: requestHash(q),
		Attempt: s.attemptOf(q)})
}

// accessorOfMembers is who shows the internal bearer.
const accessorOfMembers = "internal"

// authenticateNode accepts a node's identity, or the internal bearer that is derived from the join secret (reference
// zlayer_join, section 5.2), as a credential that may read the cluster. Both end with the node's membership: the
// identity is looked up, and the secret changes with every removal.
func (s *Server) authenticateNode(q *Request) (*store.APIToken, error) {
	if bearer := q.Header.Get("X-ZLayer-Internal-Token"); bearer != "" {
		key, err := s.Store.Keys.Active(q.Context(), store.AsLeader, store.KeyJoinSecret)
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare([]byte(bearer), []byte(certs.InternalBearer(string(key.Secret)))) != 1 {
			return nil, nil
		}
		return &store.APIToken{ID: accessorOfMembers, Name: "a member", Scopes: []string{store.ScopeClusterRead}}, nil
	}
	c, ok := q.route.Family.credential(q.Request)
	if !ok || c.ID != "" || strings.Count(c.Secret, ".") != 2 {
		return nil, nil
	}
	keys, _, err := NodeKeys(q.Context(), s.Store.Keys, s.Now())
	if err != nil {
		return nil, err
	}
	claims, err := certs.VerifyNodeJWT(c.Secret, s.ClusterID, keys, s.Now())
	if err != nil {
		return nil, nil
	}
	m, err := s.Store.Members.Get(q.Context(), store.AsLeader, claims.RaftNodeID)
	if err != nil || m == nil || m.ID != claims.NodeID {
		return nil, err
	}
	q.Node = m
	return &store.APIToken{ID: "node/" + m.ID, Name: m.Name, Scopes: []string{store.ScopeClusterRead}}, nil
}

// Keyring lists the epochs of a key of the cluster.
type Keyring interface {
	List(ctx context.Context, c store.Consistency, purpose string) ([]store.Key, error)
}

// NodeKeys returns the public keys that node identities are verified with, by their ids, and the ids, the newest first.
func NodeKeys(ctx context.Context, ring Keyring, now time.Time) (map[string]ed25519.PublicKey, []string, error) {
	list, err := ring.List(ctx, store.AsLeader, store.KeyJWT)
	if err != nil {
		return nil, nil, err
	}
	keys, order := map[string]ed25519.PublicKey{}, []string{}
	for i := range list {
		if k := &list[i]; k.Verifies(now) {
			keys[k.KID] = ed25519.PublicKey(k.Public)
			order = append(order, k.KID)
		}
	}
	return keys, order, nil
}

// findToken finds the API token that a credential shows; nil when there is none that is valid.
func (s *Server) findToken(ctx context.Context, from store.Consistency, c Credential) (*store.APIToken, error) {
	hash := certs.HashSecret(c.Secret)
	if c.ID == "" || c.Scheme == "basic" {
		token, err := s.Store.APITokens.ByHash(ctx, from, hash)
		if err != nil || token == nil || c.ID == "" || c.ID == token.ID || c.ID == token.Name {
			return token, err
		}
		return nil, nil
	}
	token, err := s.Store.APITokens.ByID(ctx, from, c.ID)
	if err != nil || token == nil || subtle.ConstantTimeCompare([]byte(token.SecretHash), []byte(hash)) != 1 {
		return nil, err
	}
	return token, nil
}

// NoLonger is when something ends that is made with the caller's credential and would end at a time, or never (nil):
// with the credential at the latest.
func (q *Request) NoLonger(at *time.Time) *time.Time {
	if own := q.Token.ExpiresAt; own != nil && (at == nil || own.Before(*at)) {
		return own
	}
	return at
}

// OwnKey fills in what of a new API key does not come from the request: id, secret and owner, and when it ends. It does
// not outlive the credential that makes it.
func (q *Request) OwnKey(k *store.APIKey, ttl time.Duration) {
	k.ID, k.Secret = store.NewID(), certs.NewSecret()
	k.SecretHash, k.OwnerID, k.OwnerName = certs.HashSecret(k.Secret), q.Token.ID, q.Token.Name
	if ttl > 0 {
		at := q.server.Now().Add(ttl).Truncate(time.Second)
		k.ExpiresAt = &at
	}
	if q.Key != nil { // keys of keys are their owner's, and count as such
		k.OwnerID, k.OwnerName = q.Key.OwnerID, q.Key.OwnerName
	}
	k.ExpiresAt = q.NoLonger(k.ExpiresAt)
}
