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

// Credential is the credential of a request: a secret, or an id with a secret. With Basic the id may also be the name
// of an API token.
type Credential struct{ Scheme, ID, Secret string }

// Reason is why authentication or authorization failed.
type Reason int

const (
	NoCredential      Reason = iota // none was presented, or it cannot be parsed
	UnknownCredential               // no token or key has it
	UnknownKey                      // no API key has this id
	WrongSecret                     // an API key has this id but another secret
	KeyEnded                        // Denial.Key is revoked or has expired
	KeyUsedUp                       // Denial.Key has no uses left
	MissingScope                    // the credential is valid but lacks the scope
)

// Denial describes a failed authentication or authorization; the request's family words it.
type Denial struct {
	Reason     Reason
	Credential Credential    // as presented
	Key        *store.APIKey // the key, for KeyEnded and KeyUsedUp
	Scope      string        // the scope that is needed
}

// credential reads the credential from any of the headers that the families use. As Nomad documents, its own header
// takes precedence over Authorization.
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

// admit authenticates and authorizes a request.
func (s *Server) admit(rt *Route, o origin, q *Request) error {
	q.Actor = store.Actor{NodeID: s.Replica.NodeID(), Remote: remoteOf(q.Request, o)}
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

// Recheck authenticates and authorizes a request again after it has waited.
func (q *Request) Recheck() error { return q.server.admit(q.route, q.origin, q) }

// admitCommon admits a member's identity, or a credential with the scope of the route.
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

// AdmitKnown admits every valid credential, whatever its scopes.
func AdmitKnown(q *Request) error {
	denial, err := q.server.authenticate(q)
	if err != nil || denial == nil {
		return err
	}
	return q.route.Family.deny(q, denial)
}

// deny returns the refusal in the family's words.
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

// HeaderScope is the header of a refusal that names the missing scope.
const HeaderScope = "X-Muster-Scope"

// lacking is a refusal for a missing scope.
type lacking struct {
	error
	scope string
}

func (e *lacking) Unwrap() error { return e.error }

// Lacks adds the missing scope to a family's refusal; the answer has it in HeaderScope.
func Lacks(scope string, refusal error) error { return &lacking{refusal, scope} }

// Allows reports whether the credential has a scope. An enrollment token can only enroll.
func (q *Request) Allows(scope string) bool {
	return q.Token.Allows(scope) && (q.route.Enrolls || q.Key == nil || q.Key.Kind != store.KeyKindEnrollment)
}

// authenticate finds the member, token or key that a request's credential belongs to.
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

// Identify finds the API token or key of the request and sets Token and Key. When there is none it returns the reason,
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

// recognise finds the API token or key of a credential and sets Token and Key.
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
	known, err := s.APITokens.ByID(ctx, from, c.ID)
	if err != nil {
		return nil, err
	}
	key, err := s.APIKeys.ByID(ctx, from, c.ID)
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

// repeats reports whether an earlier attempt of this same request took the last use of a key.
func (s *Server) repeats(q *Request, key *store.APIKey) (bool, error) {
	again := q.Header.Get(HeaderKey)
	if !q.route.Enrolls || again == "" || len(again) > maxIdempotencyKey {
		return false, nil
	}
	return s.Replica.Answered(q.Context(), store.Actor{
		Accessor:       key.ID,
		IdempotencyKey: again,
		RequestHash:    requestHash(q),
		Attempt:        s.attemptOf(q),
	})
}

// accessorOfMembers is the accessor of requests with the internal bearer.
const accessorOfMembers = "internal"

// authenticateNode accepts a node identity, or the internal bearer derived from the join secret (reference zlayer_join,
// section 5.2), with the scope cluster:read. Neither outlives the node's membership: the identity is looked up, and the
// secret changes with every removal.
func (s *Server) authenticateNode(q *Request) (*store.APIToken, error) {
	if bearer := q.Header.Get("X-ZLayer-Internal-Token"); bearer != "" {
		key, err := s.Keys.Active(q.Context(), store.AsLeader, store.KeyJoinSecret)
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
	keys, _, err := NodeKeys(q.Context(), s.Keys, s.Now())
	if err != nil {
		return nil, err
	}
	claims, err := certs.VerifyNodeJWT(c.Secret, s.ClusterID, keys, s.Now())
	if err != nil {
		return nil, nil
	}
	m, err := s.Members.Get(q.Context(), store.AsLeader, claims.RaftNodeID)
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

// NodeKeys returns the public keys that verify node identities by key id, and the key ids, newest first.
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

// findToken returns the valid API token of a credential, or nil.
func (s *Server) findToken(ctx context.Context, from store.Consistency, c Credential) (*store.APIToken, error) {
	hash := certs.HashSecret(c.Secret)
	if c.ID == "" || c.Scheme == "basic" {
		token, err := s.APITokens.ByHash(ctx, from, hash)
		if err != nil || token == nil || c.ID == "" || c.ID == token.ID || c.ID == token.Name {
			return token, err
		}
		return nil, nil
	}
	token, err := s.APITokens.ByID(ctx, from, c.ID)
	if err != nil || token == nil || subtle.ConstantTimeCompare([]byte(token.SecretHash), []byte(hash)) != 1 {
		return nil, err
	}
	return token, nil
}

// NoLonger limits the expiry of a new credential (nil: never) to the expiry of the credential that creates it.
func (q *Request) NoLonger(at *time.Time) *time.Time {
	if own := q.Token.ExpiresAt; own != nil && (at == nil || own.Before(*at)) {
		return own
	}
	return at
}

// OwnKey sets id, secret, owner and expiry of a new API key. The key does not outlive the credential that creates it.
func (q *Request) OwnKey(k *store.APIKey, ttl time.Duration) {
	k.ID, k.Secret = store.NewID(), certs.NewSecret()
	k.SecretHash, k.OwnerID, k.OwnerName = certs.HashSecret(k.Secret), q.Token.ID, q.Token.Name
	if ttl > 0 {
		at := q.server.Now().Add(ttl).Truncate(time.Second)
		k.ExpiresAt = &at
	}
	if q.Key != nil { // a key made with a key belongs to the same owner and counts as the owner's
		k.OwnerID, k.OwnerName = q.Key.OwnerID, q.Key.OwnerName
	}
	k.ExpiresAt = q.NoLonger(k.ExpiresAt)
}
