package cluster

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/certs"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/cluster/workload"
	"muster/internal/addr"
	"muster/store"
)

const (
	renewCheck     = time.Hour
	renewRetry     = 5 * time.Second
	renewLeast     = time.Second
	renewWarnEvery = 30 * time.Second
	clockLook      = 10 * time.Second // interval of the check for a clock that was set
	clockStep      = time.Minute
	clockSettle    = 5 * time.Second  // after which a leader knows that its own clock is not wrong
	syncTimeout    = 10 * time.Second // for a leader and its answer
	// withheldFor is how long a member does not request hosts again that the leader has left out.
	withheldFor = time.Hour
)

// renewal keeps this member's certificates, trust and node identity up to date.
type renewal struct {
	*member
	issuer    *issuer
	announcer *announcer
	workloads *workload.API          // nil: this member does not serve the Workload API
	due       chan struct{}          // wakes it early
	expected  atomic.Uint64          // revision of store.Trust that a leader has announced
	trusted   atomic.Uint64          // revision that is applied here
	tokenKey  atomic.Pointer[string] // id of the key that signs node identities, announced by a leader
	withheld  withheld
	warned    time.Time

	clock, set time.Time // last look at the clock; last time that it was found set; of run alone
}

// run renews this member's certificates before they expire and when its addresses or the authorities change, and its
// node identity, without a restart.
func (r *renewal) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.refresh(ctx)
		_, wait := r.reason(time.Now())
		if err != nil {
			wait = min(wait, renewRetry)
			if ctx.Err() == nil {
				r.log.Debug("certificates, trust or node identity could not be refreshed yet", "err", err)
			}
		}
		r.rest(ctx, max(wait, renewLeast))
	}
}

// rest waits until a leader announces work or the clock is set, at most wait.
func (r *renewal) rest(ctx context.Context, wait time.Duration) {
	began := time.Now()
	for left := wait; left > 0 && !clockSet(began, time.Now()); left = wait - time.Since(began) {
		select {
		case <-time.After(min(left, clockLook)):
		case <-r.due:
			return
		case <-ctx.Done():
			return
		}
	}
}

// clockCounts reports whether this member may rely on its clock: it was not set recently, and is not doubted. A leader
// with a wrong clock would issue leaves that other members reject.
func (r *renewal) clockCounts(now time.Time) bool {
	if !r.clock.IsZero() && clockSet(r.clock, now) {
		r.set = now
	}
	r.clock = now
	return (r.set.IsZero() || now.Sub(r.set) >= clockSettle) && !r.announcer.clocks.doubted()
}

// clockSet reports whether the clock was set between two times by more than the backdating of certificates, or whether
// the machine slept, when the monotonic clock of Linux stops.
func clockSet(began, now time.Time) bool {
	return (now.Round(0).Sub(began.Round(0)) - now.Sub(began)).Abs() > clockStep
}

func (r *renewal) refresh(ctx context.Context) error {
	if reason, _ := r.reason(time.Now()); reason != "" {
		if err := r.renewNow(ctx); err != nil {
			if ctx.Err() == nil && time.Since(r.warned) > renewWarnEvery {
				r.warned = time.Now()
				r.log.Warn("the certificates could not be renewed yet", "why", reason, "err", err)
			}
			return err
		}
		r.log.Info("certificates renewed", "why", reason)
	}
	if err := r.syncTrust(ctx); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := r.syncToken(ctx); err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	return nil
}

// reason returns why the leaves must be replaced, or "", and the time until the next check.
func (r *renewal) reason(now time.Time) (reason string, wait time.Duration) {
	wait = renewCheck
	counts := r.clockCounts(now)
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		leaf, err := r.Dir.Leaf(kind)
		if err != nil {
			return "a certificate file cannot be read", wait
		}
		if kind == certs.HTTP && !r.Dir.HTTPUsable() {
			return "it does not fit its key", wait
		}
		if !r.Dir.EndsWithCA(kind, leaf) { // a new one would not be valid longer
			left := untilRenewal(leaf, now)
			switch due := left <= 0 || now.Before(leaf.NotBefore); {
			case due && !counts:
				wait = min(wait, clockSettle)
			case due:
				return expiryText(leaf, now), wait
			default:
				wait = min(wait, left)
			}
		}
		if known := r.peeringName(); kind == certs.Transport && known != "" && leaf.VerifyHostname(known) != nil {
			return "it lacks the server name for other clusters", wait
		}
		for _, host := range (datadir.Plan{APIAddress: r.Self.APIAddress, RaftAddress: r.Self.RaftAddress}).AddressHosts() {
			if leaf.VerifyHostname(host) != nil && !r.withheld.has(host, now) {
				return "it is not for the address " + host, wait
			}
		}
	}
	return "", wait
}

// untilRenewal returns the time until less than a third of a leaf's lifetime remains; the lifetime excludes the
// backdating.
func untilRenewal(leaf *x509.Certificate, now time.Time) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore) - store.LeafBackdate
	return leaf.NotAfter.Add(-life / 3).Sub(now)
}

func expiryText(leaf *x509.Certificate, now time.Time) string {
	if now.Before(leaf.NotBefore) {
		return "it is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339) + " by this machine's clock"
	}
	if now.After(leaf.NotAfter) {
		return "it has expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("it expires in %d days", int(leaf.NotAfter.Sub(now).Hours()/24))
}

func (r *renewal) renewNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	leader, err := r.Store.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if err := r.announcer.announceTo(ctx, leader); err != nil { // the new leaf has the addresses that the leader knows
		return err
	}
	keys, err := datadir.PrepareJoin(r.Dir, "node")
	if err != nil {
		return err
	}
	q := certificateRequest{HTTP: keys.HTTPCSR, Transport: keys.TransportCSR}
	var a certificateAnswer
	if leader == r.Store.NodeID() {
		a, err = r.issuer.issue(ctx, leader, q, store.HostEvidence{Own: true})
	} else {
		var body []byte
		if body, err = json.Marshal(q); err != nil {
			return err
		}
		err = r.Transport.Call(ctx, http.MethodPost, leader, transport.PathCertificates, bytes.NewReader(body), &a)
	}
	if err != nil {
		return err
	}
	if r.withheld.note(a.LeftOut, time.Now()) {
		r.log.Warn("this member's certificates lack some of its hosts: an operator can allow them with the setting "+
			store.SettingCertificateHosts,
			"hosts", a.LeftOut)
	}
	return r.install(a)
}

// install writes the new leaves, which new connections use.
func (r *renewal) install(a certificateAnswer) error {
	if err := r.Dir.Install(datadir.Leaves{HTTP: a.HTTP, HTTPCA: a.HTTPCA, Transport: a.Transport,
		TransportCA: a.TransportCA}, r.Transport.Credentials()); err != nil {
		return err
	}
	return r.ReloadHTTP()
}

// peeringName returns this cluster's TLS server name for other clusters, or "" while the datacenter is unknown.
func (m *member) peeringName() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	datacenter, err := m.Store.Settings.Datacenter(ctx)
	if err != nil {
		return ""
	}
	return certs.PeeringName(datacenter, m.Transport.ClusterID())
}

// expect wakes the renewal when this member's state differs from the announced one. The announcement is only a trigger:
// the content is then requested from the current leader.
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

// fromLeader calls the leader, or this member itself when it leads.
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

// syncTrust applies the leader's trust: first the accepted authorities, then the presented chains, with new leaves if
// another authority issues now. Open connections stay.
func (r *renewal) syncTrust(ctx context.Context) error {
	if have := r.trusted.Load(); have > 0 && have >= r.expected.Load() {
		return nil
	}
	a, err := fromLeader(ctx, r.member, http.MethodGet, transport.PathTrust, r.issuer.trust)
	if err != nil {
		return err
	}
	if a.Revision < r.trusted.Load() {
		return nil // from a deposed leader
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
	if err == nil && r.workloads != nil && a.Workload > 0 {
		settle, cancel := context.WithTimeout(ctx, syncTimeout)
		defer cancel()
		err = r.workloads.Settle(settle, a.Workload)
	}
	if err == nil {
		r.trusted.Store(a.Revision)
	}
	return err
}

// reload makes both listeners use their current files for new connections.
func (r *renewal) reload() error {
	if err := r.Dir.Load(r.Transport.Credentials()); err != nil {
		return err
	}
	return r.ReloadHTTP()
}

// syncToken keeps DIR/node.jwt valid: it renews it after half of its lifetime and when the signing key has changed.
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
	kid, expires, err := certs.DecodeNodeJWT(jwt)
	if err != nil || expires.Sub(now) < certs.NodeJWTLifetime/2 {
		return true
	}
	key := r.tokenKey.Load()
	return key != nil && *key != kid
}

// withheld lists the hosts of this member that the leader leaves out of its certificates, so that it does not request
// them all the time.
type withheld struct {
	mu    sync.Mutex
	hosts []string
	until time.Time
}

// note records the hosts that were left out, and reports whether the list has changed.
func (w *withheld) note(hosts []string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := len(hosts) > 0 && !slices.Equal(hosts, w.hosts)
	w.hosts, w.until = hosts, now.Add(withheldFor)
	return news
}

func (w *withheld) has(host string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return now.Before(w.until) && slices.Contains(w.hosts, addr.CanonicalHost(host))
}
