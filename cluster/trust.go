package cluster

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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

// trustAnswer is store.Trust without keys: what a member is to present and to accept.
type trustAnswer struct {
	Revision  uint64     `json:"revision"`
	HTTP      trustOfOne `json:"http"`
	Transport trustOfOne `json:"transport"`
}

type trustOfOne struct {
	Chain  []byte `json:"chain"`  // PEM, follows the leaf
	Bundle []byte `json:"bundle"` // PEM, the issuer first
}

// announced is what the leader's probes tell members of: the revision of the trust and the key of node identities.
func (c *Cluster) announced(ctx context.Context) (trust uint64, key string) {
	if t, err := c.Store.Authorities.Trust(ctx, store.AsLeader); err == nil {
		trust = t.Revision
	}
	if k, err := c.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT); err == nil {
		key = k.KID
	}
	return trust, key
}

func probePath(trust uint64, key string, stalled bool) string {
	q := url.Values{"trust": {strconv.FormatUint(trust, 10)}, "key": {key}}
	if stalled {
		q.Set("stalled", "true")
	}
	return transport.PathProbe + "?" + q.Encode()
}

// hear reads what a probe tells.
func (c *Cluster) hear(q url.Values) {
	var at *time.Time
	if q.Get("stalled") == "true" {
		now := time.Now()
		at = &now
	}
	c.stalledAt.Store(at)
	trust, _ := strconv.ParseUint(q.Get("trust"), 10, 64)
	c.expect(trust, q.Get("key"))
}

// expect wakes the renewal when something is not as the leader has it. It believes the leader in nothing else: what it
// then gets comes from whoever leads.
func (c *Cluster) expect(trust uint64, key string) {
	c.expected.Store(trust)
	if old := c.tokenKey.Load(); key != "" && (old == nil || *old != key) {
		c.tokenKey.Store(&key)
	} else if trust <= c.trusted.Load() {
		return
	}
	select {
	case c.due <- struct{}{}:
	default:
	}
}

// fromLeader asks the leader, or this member itself when it leads.
func fromLeader[T any](ctx context.Context, c *Cluster, method, path string, own func(context.Context, uint64) (T, error)) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	leader, err := c.Store.AwaitLeader(ctx)
	if err != nil {
		return out, err
	}
	if leader == c.Store.NodeID() {
		return own(ctx, leader)
	}
	err = c.Transport.Call(ctx, method, leader, path, nil, &out)
	return out, err
}

// syncTrust puts the leader's trust into effect: first what is accepted, then what is presented, with new leaves if
// another authority issues now. Connections that are open stay.
func (c *Cluster) syncTrust(ctx context.Context) error {
	if have := c.trusted.Load(); have > 0 && have >= c.expected.Load() {
		return nil
	}
	a, err := fromLeader(ctx, c, http.MethodGet, transport.PathTrust, c.trust)
	if err != nil {
		return err
	}
	if a.Revision < c.trusted.Load() {
		return nil // of a leader that has been deposed and does not know
	}
	kinds := []struct {
		kind certs.Kind
		of   trustOfOne
	}{{certs.HTTP, a.HTTP}, {certs.Transport, a.Transport}}
	for _, x := range kinds {
		if err := c.Dir.InstallAuthorities(x.kind, x.of.Bundle); err != nil {
			return err
		}
	}
	if err := c.reload(); err != nil {
		return err
	}
	own := true
	for _, x := range kinds {
		same, err := c.Dir.Rechain(x.kind, x.of.Chain, x.of.Bundle)
		if err != nil {
			return err
		}
		own = own && same
	}
	if own {
		err = c.reload()
	} else if err = c.renewNow(ctx); err == nil {
		c.log.Info("certificates renewed", "why", "another authority issues")
	}
	if err == nil {
		c.trusted.Store(a.Revision)
	}
	return err
}

// reload uses the files of both listeners from the next connection on.
func (c *Cluster) reload() error {
	if err := c.Dir.Load(c.Transport.Credentials()); err != nil {
		return err
	}
	return c.ReloadHTTP()
}

func (c *Cluster) trust(ctx context.Context, _ uint64) (a trustAnswer, err error) {
	t, err := c.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	return trustAnswer{t.Revision, trustOfOne{t.HTTP.Chain, t.HTTP.Bundle}, trustOfOne{t.Transport.Chain, t.Transport.Bundle}}, nil
}

func (c *Cluster) serveTrust(w http.ResponseWriter, r *http.Request) {
	serveLeader(c, w, r, c.trust)
}

// serveLeader answers another member with what the leader makes for it.
func serveLeader[T any](c *Cluster, w http.ResponseWriter, r *http.Request, make func(context.Context, uint64) (T, error)) {
	out, err := make(r.Context(), transport.MemberID(r.Context()))
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	case err != nil:
		c.log.Warn("internal request", "path", r.URL.Path, "node", transport.MemberID(r.Context()), "err", err)
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
func (c *Cluster) mintToken(ctx context.Context, nodeID uint64) (t nodeToken, err error) {
	m, err := c.Store.Members.Get(ctx, store.AsLeader, nodeID)
	if err != nil {
		return t, err
	}
	if m == nil {
		return t, fmt.Errorf("node %d is not a member", nodeID)
	}
	key, err := c.Store.Keys.Active(ctx, store.AsLeader, store.KeyJWT)
	if err != nil {
		return t, err
	}
	t.NodeJWT, err = certs.MintNodeJWT(ed25519.NewKeyFromSeed(key.Secret), key.KID, c.Transport.ClusterID(), m.ID, m.NodeID, time.Now())
	return t, err
}

func (c *Cluster) serveNodeToken(w http.ResponseWriter, r *http.Request) {
	serveLeader(c, w, r, c.mintToken)
}

// syncToken keeps DIR/node.jwt valid: it is renewed in the middle of its life and when the key that signs it has changed.
func (c *Cluster) syncToken(ctx context.Context) error {
	if !c.tokenDue(time.Now()) {
		return nil
	}
	t, err := fromLeader(ctx, c, http.MethodPost, pathNodeToken, c.mintToken)
	if err != nil {
		return err
	}
	return c.Dir.SaveNodeToken(t.NodeJWT)
}

func (c *Cluster) tokenDue(now time.Time) bool {
	jwt, err := c.Dir.NodeToken()
	if err != nil {
		return true
	}
	kid, expires, err := certs.PeekNodeJWT(jwt)
	if err != nil || expires.Sub(now) < certs.NodeJWTLifetime/2 {
		return true
	}
	key := c.tokenKey.Load()
	return key != nil && *key != kid
}

// awaited marks the members that a rotation waits for, so that they are probed more often.
func (c *Cluster) awaited(ctx context.Context, list []target, t *term) []target {
	rotations, err := c.Store.Authorities.Rotations(ctx, store.AsLeader)
	if err != nil || len(rotations) == 0 {
		return list
	}
	holders, err := c.Store.Authorities.Holders(ctx, store.AsLeader)
	if err != nil {
		return list
	}
	trust, _ := c.announced(ctx)
	seen := t.prober.snapshot()
	most := hurryMost
	for i := range list {
		_, holds := slices.BinarySearch(holders, list[i].nodeID)
		if holds && most > 0 && seen[list[i].nodeID].Trust < trust {
			list[i].awaited = true
			most--
		}
	}
	return list
}

// Installed tells which members have put the present trust into effect, and why the others have not. Where this member
// does not lead it knows of none.
func (c *Cluster) Installed(ctx context.Context) (in store.Installed, why map[uint64]string, err error) {
	t, err := c.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return in, nil, err
	}
	in = store.Installed{Revision: t.Revision, Nodes: map[uint64]bool{}}
	why = map[uint64]string{}
	p := c.prober.Load()
	if p == nil {
		return in, why, nil
	}
	for id, o := range p.snapshot() {
		switch silent := time.Since(o.LastContact); {
		case o.LastContact.IsZero():
			why[id] = "does not answer"
		case o.Trust >= t.Revision:
			in.Nodes[id] = true
		case silent > 2*o.Interval+probeTimeout:
			why[id] = "does not answer since " + o.LastContact.UTC().Format(time.RFC3339)
		}
	}
	return in, why, nil
}

// advanceCA carries rotations of the authorities on and warns of what expires.
func (c *Cluster) advanceCA(ctx context.Context, t *term) error {
	rotations, err := c.Store.Authorities.Rotations(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	if err := c.succeed(ctx, rotations); err != nil {
		return err
	}
	changed := false
	if len(rotations) > 0 {
		in, _, err := c.Installed(ctx)
		if err != nil {
			return err
		}
		if changed, err = c.Store.Authorities.Advance(ctx, c.actor(), in); err != nil {
			return err
		}
	}
	if changed {
		c.wake()
		for i := range rotations {
			r := &rotations[i]
			c.log.Info("the rotation of an authority goes on", "kind", r.Kind, "generation", r.New, "left", r.Phase)
		}
	} else if time.Since(t.checked) < checkEvery {
		return nil
	}
	t.checked = time.Now()
	expiring, err := c.Store.Certificates.WarnOfExpiry(ctx, c.actor())
	for i := range expiring {
		e := &expiring[i]
		c.log.Warn("a certificate in use expires soon", "what", e.String(), "at", e.NotAfter, "days", int(e.DaysLeft(time.Now())))
	}
	return err
}
