package handlers

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"muster/certs"
	"muster/netlimit"
	"muster/store"
)

// credential is what a request shows: a bare secret, or an id with its secret. With Basic the id may also be the name of an
// API token.
type credential struct{ scheme, id, secret string }

// credentialOf reads the credential from wherever the families put it (design section 8.9). The documented
// precedence of Nomad holds: its own header wins over Authorization.
func credentialOf(r *http.Request) (c credential, ok bool) {
	if strings.HasPrefix(r.URL.Path, peeringPrefix) {
		if c, ok := peeringCredential(r); c.secret != "" {
			return c, ok
		}
	}
	for _, h := range []string{"X-Nomad-Token", "X-Consul-Token"} {
		if v := strings.TrimSpace(r.Header.Get(h)); v != "" {
			return credential{secret: v}, true
		}
	}
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	scheme, rest = strings.ToLower(scheme), strings.TrimSpace(rest)
	switch scheme {
	case "bearer":
		secret, _, _ := strings.Cut(rest, " ")
		return credential{scheme: scheme, secret: secret}, secret != ""
	case "apikey":
		raw, err := base64.StdEncoding.DecodeString(rest)
		id, secret, found := strings.Cut(string(raw), ":")
		return credential{scheme, id, secret}, err == nil && found && id != "" && secret != ""
	case "basic":
		id, secret, found := r.BasicAuth()
		return credential{scheme, id, secret}, found && id != "" && secret != ""
	}
	return credential{}, false
}

// authenticate finds the API token of a request; nil when it has none that is valid.
func (s *Server) authenticate(q *request) (*store.APIToken, error) {
	if !q.stale {
		if token, err := s.authenticateNode(q); err != nil || token != nil {
			return token, err
		}
	}
	c, ok := credentialOf(q.Request)
	if !ok {
		q.failed = true
		return nil, nil
	}
	token, _, err := s.recognise(q, c)
	q.failed = err == nil && token == nil
	return token, err
}

// authenticateNode accepts a node's identity, or the internal bearer that is derived from the join secret (reference
// zlayer_join, section 5.2), as a credential that may read the cluster. Both end with the node's membership: the identity
// is looked up, and the secret changes with every removal.
func (s *Server) authenticateNode(q *request) (*store.APIToken, error) {
	if bearer := q.Header.Get("X-ZLayer-Internal-Token"); bearer != "" {
		key, err := s.Store.ActiveKey(q.Context(), store.KeyJoinSecret)
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare([]byte(bearer), []byte(certs.InternalBearer(string(key.Secret)))) != 1 {
			return nil, nil
		}
		return &store.APIToken{ID: "internal", Name: "a member", Scopes: []string{store.ScopeClusterRead}}, nil
	}
	c, ok := credentialOf(q.Request)
	if !ok || c.id != "" || strings.Count(c.secret, ".") != 2 {
		return nil, nil
	}
	keys, _, err := s.nodeKeys(q)
	if err != nil {
		return nil, err
	}
	claims, err := certs.VerifyNodeJWT(c.secret, s.ClusterID, keys, s.Now())
	if err != nil {
		return nil, nil
	}
	m, err := s.Store.PeekMember(q.Context(), claims.RaftNodeID)
	if err != nil || m == nil || m.ID != claims.NodeID {
		return nil, err
	}
	q.node = m
	return &store.APIToken{ID: "node/" + m.ID, Name: m.Name, Scopes: []string{store.ScopeClusterRead}}, nil
}

// findToken finds the API token that a credential shows; nil when there is none that is valid.
func (s *Server) findToken(ctx context.Context, from store.Consistency, c credential) (*store.APIToken, error) {
	hash := certs.HashSecret(c.secret)
	if c.id == "" || c.scheme == "basic" {
		token, err := s.Store.TokenByHash(ctx, from, hash)
		if err != nil || token == nil || c.id == "" || c.id == token.ID || c.id == token.Name {
			return token, err
		}
		return nil, nil
	}
	token, err := s.Store.TokenByID(ctx, from, c.id)
	if err != nil || token == nil || subtle.ConstantTimeCompare([]byte(token.SecretHash), []byte(hash)) != 1 {
		return nil, err
	}
	return token, nil
}

// noLonger is when something ends that is made with the caller's credential and would end at a time, or never (nil): with
// the credential at the latest.
func (q *request) noLonger(at *time.Time) *time.Time {
	if own := q.token.ExpiresAt; own != nil && (at == nil || own.Before(*at)) {
		return own
	}
	return at
}

// failureLimiter bounds how often one address may show a wrong credential. Valid ones never wait for it.
type failureLimiter struct {
	mu    sync.Mutex
	hosts map[string]*failing
}

type failing struct {
	limit *rate.Limiter
	last  time.Time
}

const (
	failuresPerMinute = 120
	failingHosts      = 10_000
)

const tooManyFailures = "too many failed attempts; try again in a minute"

func newFailureLimiter() *failureLimiter { return &failureLimiter{hosts: map[string]*failing{}} }

// spent reports whether an address has failed as often as it may, without counting anything.
func (l *failureLimiter) spent(host string) bool {
	host = failingHost(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.hosts[host]
	return f != nil && f.limit.Tokens() < 1
}

// failingHost is what counts as one address: with IPv6 a /64, of which one caller may have all.
func failingHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && !ip.Is4() {
		return netlimit.GroupOf(ip).String()
	}
	return host
}

// count notes a failure and returns an error when there have been too many.
func (l *failureLimiter) count(host string) error {
	host = failingHost(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f := l.hosts[host]
	if f == nil {
		if len(l.hosts) >= failingHosts {
			for h, x := range l.hosts {
				if now.Sub(x.last) > time.Minute {
					delete(l.hosts, h)
				}
			}
		}
		if len(l.hosts) >= failingHosts {
			return fail(http.StatusTooManyRequests, tooManyFailures)
		}
		f = &failing{limit: rate.NewLimiter(rate.Every(time.Minute/failuresPerMinute), failuresPerMinute)}
		l.hosts[host] = f
	}
	f.last = now
	if !f.limit.AllowN(now, 1) {
		return fail(http.StatusTooManyRequests, tooManyFailures)
	}
	return nil
}
