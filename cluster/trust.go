package cluster

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/store"
)

const (
	pathNodeToken = "/internal/node-token"
	syncTimeout   = 10 * time.Second
	checkEvery    = time.Minute // what expires
)

// trustAnswer is store.Trust without keys: the chains that a member presents and the authorities that it accepts.
type trustAnswer struct {
	Revision  uint64     `json:"revision"`
	HTTP      trustOfOne `json:"http"`
	Transport trustOfOne `json:"transport"`
}

type trustOfOne struct {
	Chain  []byte `json:"chain"`  // PEM, follows the leaf
	Bundle []byte `json:"bundle"` // PEM, the issuer first
}

// expect wakes the renewal when something is not as the leader has it. It believes the leader in nothing else: what it
// then gets comes from whoever leads.
func (r *renewal) expect(trust uint64, key string) {
	r.expected.Store(trust)
	if old := r.tokenKey.Load(); key != "" && (old == nil || *old != key) {
		r.tokenKey.Store(&key)
	} else if trust <= r.trusted.Load() {
		return
	}
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// fromLeader asks the leader, or this member itself when it leads.
func fromLeader[T any](ctx context.Context, m *member, method, path string,
	own func(context.Context, uint64) (T, error)) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	leader, err := m.Store.AwaitLeader(ctx)
	if err != nil {
		return out, err
	}
	if leader == m.Store.NodeID() {
		return own(ctx, leader)
	}
	err = m.Transport.Call(ctx, method, leader, path, nil, &out)
	return out, err
}

// syncTrust puts the leader's trust into effect: first what is accepted, then what is presented, with new leaves if
// another authority issues now. Connections that are open stay.
func (r *renewal) syncTrust(ctx context.Context) error {
	if have := r.trusted.Load(); have > 0 && have >= r.expected.Load() {
		return nil
	}
	a, err := fromLeader(ctx, r.member, http.MethodGet, transport.PathTrust, r.issuer.trust)
	if err != nil {
		return err
	}
	if a.Revision < r.trusted.Load() {
		return nil // of a leader that has been deposed and does not know
	}
	kinds := []struct {
		kind certs.Kind
		of   trustOfOne
	}{{certs.HTTP, a.HTTP}, {certs.Transport, a.Transport}}
	for _, x := range kinds {
		if err := r.Dir.InstallAuthorities(x.kind, x.of.Bundle); err != nil {
			return err
		}
	}
	if err := r.reload(); err != nil {
		return err
	}
	own := true
	for _, x := range kinds {
		same, err := r.Dir.Rechain(x.kind, x.of.Chain, x.of.Bundle)
		if err != nil {
			return err
		}
		own = own && same
	}
	if own {
		err = r.reload()
	} else if err = r.renewNow(ctx); err == nil {
		r.log.Info("certificates renewed", "why", "another authority issues")
	}
	if err == nil {
		r.trusted.Store(a.Revision)
	}
	return err
}

// reload uses the files of both listeners from the next connection on.
func (r *renewal) reload() error {
	if err := r.Dir.Load(r.Transport.Credentials()); err != nil {
		return err
	}
	return r.ReloadHTTP()
}

func (is *issuer) trust(ctx context.Context, _ uint64) (a trustAnswer, err error) {
	t, err := is.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	return trustAnswer{t.Revision, trustOfOne{t.HTTP.Chain, t.HTTP.Bundle},
		trustOfOne{t.Transport.Chain, t.Transport.Bundle}}, nil
}

func (is *issuer) serveTrust(w http.ResponseWriter, r *http.Request) {
	serveLeader(is.member, w, r, is.trust)
}

// serveLeader answers another member with what the leader makes for it.
func serveLeader[T any](m *member, w http.ResponseWriter, r *http.Request,
	make func(context.Context, uint64) (T, error)) {
	out, err := make(r.Context(), transport.MemberID(r.Context()))
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	case err != nil:
		m.log.Warn("internal request", "path", r.URL.Path, "node", transport.MemberID(r.Context()), "err", err)
		http.Error(w, "not now", http.StatusServiceUnavailable)
	default:
		writeJSON(w, out)
	}
}

// nodeToken is an identity of a node, for whatever runs on its machine.
type nodeToken struct {
	NodeJWT string `json:"nodeJwt"`
}

// mintToken signs the identity of a member. That the request has come over the cluster listener proves who it is.
func (is *issuer) mintToken(ctx context.Context, nodeID uint64) (t nodeToken, err error) {
	m, err := is.Store.Members.Get(ctx, store.AsLeader, nodeID)
	if err != nil {
		return t, err
	}
	if m == nil {
		return t, fmt.Errorf("node %d is not a member", nodeID)
	}
	key, err := is.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT)
	if err != nil {
		return t, err
	}
	t.NodeJWT, err = certs.MintNodeJWT(ed25519.NewKeyFromSeed(key.Secret), key.KID, is.Transport.ClusterID(), m.ID,
		m.NodeID, time.Now())
	return t, err
}

func (is *issuer) serveNodeToken(w http.ResponseWriter, r *http.Request) {
	serveLeader(is.member, w, r, is.mintToken)
}

// syncToken keeps DIR/node.jwt valid: it is renewed in the middle of its life and when the key that signs it has
// changed.
func (r *renewal) syncToken(ctx context.Context) error {
	if !r.tokenDue(time.Now()) {
		return nil
	}
	t, err := fromLeader(ctx, r.member, http.MethodPost, pathNodeToken, r.issuer.mintToken)
	if err != nil {
		return err
	}
	return r.Dir.SaveNodeToken(t.NodeJWT)
}

func (r *renewal) tokenDue(now time.Time) bool {
	jwt, err := r.Dir.NodeToken()
	if err != nil {
		return true
	}
	kid, expires, err := certs.PeekNodeJWT(jwt)
	if err != nil || expires.Sub(now) < certs.NodeJWTLifetime/2 {
		return true
	}
	key := r.tokenKey.Load()
	return key != nil && *key != kid
}
