package workload

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"muster/certs"
	"muster/store"
)

const (
	lookRest   = 100 * time.Millisecond // between two reads of the database
	retryRest  = time.Second            // after a failed request to the leader
	renewCheck = 10 * time.Minute       // at least that often
	askWithin  = 5 * time.Second
)

// svid is an identity that is ready.
type svid struct {
	id     spiffeid.ID
	leaf   *x509.Certificate
	chain  []byte // DER, the leaf first
	key    []byte // PKCS#8, DER
	issued time.Time
	hosts  []string // as registered when it was made
	renew  time.Time
}

// state is what this member can issue at one moment. It is immutable.
type state struct {
	bundle    *spiffebundle.Bundle // nil: unknown yet
	federated map[spiffeid.TrustDomain]*spiffebundle.Bundle
	workloads []store.Workload
	svids     map[string]*svid // by registration; "" is the member itself
}

// entitled lists the registrations that match a caller; "" for the member itself.
func (st *state) entitled(c *caller) (list []string) {
	for i := range st.workloads {
		if c.is(&st.workloads[i]) {
			list = append(list, st.workloads[i].ID)
		}
	}
	if c.ownsMember() {
		list = append(list, "")
	}
	return list
}

// ready lists the valid certificates of the registrations, each SPIFFE ID once.
func (st *state) ready(list []string, now time.Time) (out []*svid) {
	for _, id := range list {
		s := st.svids[id]
		if s == nil || !now.Before(s.leaf.NotAfter) ||
			slices.ContainsFunc(out, func(o *svid) bool { return o.id == s.id }) {
			continue
		}
		out = append(out, s)
	}
	return out
}

// agent keeps the identities of this member's software ready.
type agent struct {
	cfg  Config
	self spiffeid.ID
	due  chan struct{} // wakes it early

	mu      sync.Mutex
	current *state
	changed chan struct{} // closed and replaced when current changes
	looked  *look         // input of the newest state

	kept   map[string]*svid // of an earlier process; nil once it was used
	failed atomic.Uint64    // failed renewals
}

// look is the relevant content of the database.
type look struct {
	workloads []store.Workload
	bundle    *spiffebundle.Bundle
	peers     []store.PeerBundle
}

func (l *look) same(o *look) bool {
	return o != nil && l.bundle.Equal(o.bundle) && slices.Equal(l.peers, o.peers) &&
		slices.EqualFunc(l.workloads, o.workloads, func(a, b store.Workload) bool {
			return a.ID == b.ID && slices.Equal(a.Hosts, b.Hosts)
		})
}

func newAgent(cfg Config) (*agent, error) {
	self, err := certs.NodeSVID(cfg.ClusterID, cfg.NodeID)
	if err != nil {
		return nil, err
	}
	a := &agent{
		cfg:     cfg,
		self:    self,
		due:     make(chan struct{}, 1),
		current: &state{},
		changed: make(chan struct{}),
	}
	if cfg.Kept != "" {
		if a.kept, err = recall(cfg.Kept, cfg.ClusterID, time.Now()); err != nil {
			cfg.Logger.Warn("the stored identities of workloads cannot be used", "file", cfg.Kept, "err", err)
		}
	}
	return a, nil
}

// now returns the state and a channel that is closed when it changes.
func (a *agent) now() (*state, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current, a.changed
}

func (a *agent) publish(st *state, l *look) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current, a.looked = st, l
	close(a.changed)
	a.changed = make(chan struct{})
}

// run keeps the state up to date until ctx ends.
func (a *agent) run(ctx context.Context) {
	warned := time.Time{}
	for ctx.Err() == nil {
		changed := a.cfg.Registry.Changed()
		wait, err := a.refresh(ctx)
		if err != nil && ctx.Err() == nil {
			wait = min(wait, retryRest)
			a.failed.Add(1)
			if time.Since(warned) > time.Minute {
				warned = time.Now()
				a.cfg.Logger.Warn("identities of workloads could not be renewed yet", "err", err)
			}
		}
		select {
		case <-time.After(wait):
		case <-a.due:
		case <-ctx.Done():
		case <-changed:
			select { // several changes are handled together
			case <-time.After(lookRest):
			case <-a.due:
			case <-ctx.Done():
			}
		}
	}
}

// settle blocks until this member has used the authorities of a revision: its workloads trust all trusted ones, and no
// certificate is of one that no longer issues.
func (a *agent) settle(ctx context.Context, revision uint64) error {
	for {
		st, changed := a.now()
		if st.bundle != nil {
			if sequence, _ := st.bundle.SequenceNumber(); sequence >= revision && st.settled() {
				return nil
			}
		}
		select {
		case a.due <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-time.After(lookRest):
		case <-ctx.Done():
			return errors.New("the identities of this member's workloads are not renewed yet")
		}
	}
}

// settled reports whether all certificates are of the issuing authority.
func (st *state) settled() bool {
	if len(st.bundle.X509Authorities()) == 0 || st.svids[""] == nil {
		return false
	}
	for i := range st.workloads {
		if st.svids[st.workloads[i].ID] == nil {
			return false
		}
	}
	for _, s := range st.svids {
		if !issuedBy(s, st.bundle) {
			return false
		}
	}
	return true
}

// issuedBy reports whether the issuing authority, the first of the bundle, has made a certificate.
func issuedBy(s *svid, bundle *spiffebundle.Bundle) bool {
	roots := bundle.X509Authorities()
	return len(roots) > 0 && bytes.Equal(s.leaf.RawIssuer, roots[0].RawSubject)
}

// refresh reads the database, requests the missing and due certificates, and publishes changes. It returns the time
// until the next renewal.
func (a *agent) refresh(ctx context.Context) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	l, err := a.look(ctx)
	if err != nil {
		return renewCheck, err
	}
	old, _ := a.now()
	now := time.Now()
	st := &state{bundle: l.bundle, workloads: l.workloads, svids: map[string]*svid{}, federated: old.federated}
	if !l.same(a.looked) {
		st.federated = a.federate(l.peers)
	}
	var missing []order
	for _, o := range a.orders(l.workloads) {
		s := old.svids[o.workload]
		if s == nil && a.kept[o.workload] != nil && a.kept[o.workload].id == o.id {
			s = a.kept[o.workload]
		}
		if s != nil && slices.Equal(s.hosts, o.hosts) {
			st.svids[o.workload] = s
			if now.Before(s.renew) && issuedBy(s, l.bundle) {
				continue
			}
		}
		missing = append(missing, o)
	}
	// Removals and new trust do not wait for the leader.
	if !l.same(a.looked) || len(st.svids) != len(old.svids) {
		a.publish(st, l)
	}
	a.kept = nil
	made := 0
	for part := range slices.Chunk(missing, maxPerRequest) {
		got, failed := a.get(ctx, part)
		if err = failed; err != nil {
			break
		}
		next := &state{bundle: st.bundle, workloads: st.workloads, svids: map[string]*svid{}, federated: st.federated}
		for id, s := range st.svids {
			next.svids[id] = s
		}
		for id, s := range got {
			next.svids[id] = s
		}
		made += len(got)
		st = next
		a.publish(st, l)
	}
	if made > 0 && a.cfg.Kept != "" {
		if failed := keep(a.cfg.Kept, st); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	if err == nil && made < len(missing) {
		err = fmt.Errorf("the leader has signed for %d of %d", made, len(missing))
	}
	return st.untilDue(time.Now()), err
}

// untilDue returns the time until the next renewal.
func (st *state) untilDue(now time.Time) time.Duration {
	wait := renewCheck
	for _, s := range st.svids {
		wait = min(wait, max(s.renew.Sub(now), lookRest))
	}
	return wait
}

func (a *agent) look(ctx context.Context) (*look, error) {
	var l look
	var err error
	if l.bundle, err = a.cfg.Registry.Bundle(ctx); err != nil {
		return nil, err
	}
	list, err := a.cfg.Registry.Workloads(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if _, err := certs.WorkloadID(a.cfg.ClusterID, list[i].Path); err == nil { // valid as at its registration
			l.workloads = append(l.workloads, list[i])
		}
	}
	l.peers, err = a.cfg.Registry.PeerBundles(ctx)
	return &l, err
}

// federate parses the bundles of other clusters. It leaves out invalid ones.
func (a *agent) federate(list []store.PeerBundle) map[spiffeid.TrustDomain]*spiffebundle.Bundle {
	out := map[spiffeid.TrustDomain]*spiffebundle.Bundle{}
	for i := range list {
		b, err := certs.ParseBundle(list[i].TrustDomain, []byte(list[i].Bundle))
		if err != nil || list[i].TrustDomain == a.cfg.ClusterID {
			a.cfg.Logger.Warn("the trust bundle of another cluster is left out", "peering", list[i].Peering, "err", err)
			continue
		}
		out[b.TrustDomain()] = b
	}
	return out
}

// order is a certificate that this member needs.
type order struct {
	workload string
	id       spiffeid.ID
	hosts    []string
}

func (a *agent) orders(list []store.Workload) []order {
	out := []order{{id: a.self}}
	for i := range list {
		if id, err := certs.WorkloadID(a.cfg.ClusterID, list[i].Path); err == nil {
			out = append(out, order{list[i].ID, id, list[i].Hosts})
		}
	}
	return out
}

// get makes keys and requests signatures of the leader. The leader leaves out what is no longer registered.
func (a *agent) get(ctx context.Context, list []order) (map[string]*svid, error) {
	var q SVIDRequest
	keys := map[string]*ecdsa.PrivateKey{}
	orders := map[string]order{}
	for _, o := range list {
		key, err := certs.NewKey()
		if err != nil {
			return nil, err
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		keys[o.workload], orders[o.workload] = key, o
		q.List = append(q.List, PublicKey{o.workload, public})
	}
	answer, err := a.cfg.Leader.SignSVIDs(ctx, q)
	if err != nil {
		return nil, err
	}
	out := map[string]*svid{}
	for _, signed := range answer.List {
		o, asked := orders[signed.Workload]
		if !asked {
			continue
		}
		s, err := o.take(keys[signed.Workload], signed.Chain, time.Now())
		if err != nil {
			return nil, err
		}
		out[signed.Workload] = s
	}
	return out, nil
}

// take checks the leader's answer.
func (o order) take(key *ecdsa.PrivateKey, chain [][]byte, now time.Time) (*svid, error) {
	if len(chain) == 0 {
		return nil, errors.New("the leader's answer has no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != o.id.String() || !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the leader's answer is for another identity")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	// Renew in the middle of its life, at a different time on each member.
	life := leaf.NotAfter.Sub(now)
	renew := now.Add(life/2 - time.Duration(rand.Int64N(int64(max(life/10, 1)))))
	return &svid{
		id:     o.id,
		leaf:   leaf,
		chain:  bytes.Join(chain, nil),
		key:    der,
		issued: now,
		hosts:  o.hosts,
		renew:  renew,
	}, nil
}
