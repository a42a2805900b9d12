package cluster

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"muster/certs"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

const (
	renewCheck     = time.Hour
	renewRetry     = 5 * time.Second
	renewLeast     = time.Second
	renewWarnEvery = 30 * time.Second
)

// certificateRequest and certificateAnswer are how a member gets new leaves from the leader, over a connection that
// its old one has authenticated.
type certificateRequest struct {
	HTTP      []byte `json:"http"` // DER of a certificate request
	Transport []byte `json:"transport"`
}

type certificateAnswer struct {
	HTTP        []byte `json:"http"` // PEM, the leaf first
	HTTPCA      []byte `json:"httpCa"`
	Transport   []byte `json:"transport"`
	TransportCA []byte `json:"transportCa"`

	LeftOut []string `json:"leftOut,omitempty"` // hosts of this member that nobody has allowed or proven
}

// renewal keeps this member's certificates, its trust and its node identity up to date.
type renewal struct {
	*member
	issuer    *issuer
	announcer *announcer
	due       chan struct{}          // wakes it before its time
	expected  atomic.Uint64          // revision of store.Trust that a leader has told of
	trusted   atomic.Uint64          // and the one that is in effect here
	tokenKey  atomic.Pointer[string] // id of the key that signs node identities, as a leader has told
	withheld  withheld
	warned    time.Time
}

// run keeps this member's certificates valid, in step with its addresses and with the authorities, and its node
// identity fresh, without a restart.
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
		select {
		case <-time.After(max(wait, renewLeast)):
		case <-r.due:
		case <-ctx.Done():
		}
	}
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

// reason says why the leaves should be replaced, "" when they need not be, and how long to wait before the next look.
func (r *renewal) reason(now time.Time) (reason string, wait time.Duration) {
	wait = renewCheck
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		leaf, err := r.Dir.Leaf(kind)
		if err != nil {
			return "a certificate file cannot be read", wait
		}
		if !r.Dir.EndsWithCA(kind, leaf) { // a new one would not live longer
			left := untilRenewal(leaf, now)
			if left <= 0 {
				return expiryText(leaf, now), wait
			}
			wait = min(wait, left)
		}
		if known := r.peeringName(); kind == certs.Transport && known != "" && leaf.VerifyHostname(known) != nil {
			return "other clusters do not know it by its name", wait
		}
		for _, host := range (datadir.Plan{APIAddress: r.Self.APIAddress, RaftAddress: r.Self.RaftAddress}).AddressHosts() {
			if leaf.VerifyHostname(host) != nil && !r.withheld.has(host, now) {
				return "it is not for the address " + host, wait
			}
		}
	}
	return "", wait
}

// untilRenewal is how long a leaf has still more than a third of its life, not counting that it begins early.
func untilRenewal(leaf *x509.Certificate, now time.Time) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore) - store.LeafBackdate
	return leaf.NotAfter.Add(-life / 3).Sub(now)
}

func expiryText(leaf *x509.Certificate, now time.Time) string {
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
	if err := r.announcer.announceTo(ctx, leader); err != nil { // the new leaf is for the addresses that the leader knows
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
		r.log.Warn("this member's certificates are not for all of its hosts: an operator allows them with the setting "+store.SettingCertificateHosts,
			"hosts", a.LeftOut)
	}
	return r.install(a)
}

// install writes the new leaves and uses them from the next connection on.
func (r *renewal) install(a certificateAnswer) error {
	if err := r.Dir.Install(datadir.Leaves{HTTP: a.HTTP, HTTPCA: a.HTTPCA, Transport: a.Transport,
		TransportCA: a.TransportCA}, r.Transport.Credentials()); err != nil {
		return err
	}
	return r.ReloadHTTP()
}

// issue signs new leaves for a member.
func (is *issuer) issue(ctx context.Context, nodeID uint64, q certificateRequest,
	e store.HostEvidence) (a certificateAnswer, err error) {
	m, err := is.Store.Members.Get(ctx, store.AsLeader, nodeID)
	if err != nil {
		return a, err
	}
	if m == nil {
		return a, fmt.Errorf("node %d is not a member", nodeID)
	}
	now := time.Now()
	records := []store.Certificate{store.NewCertificate(certs.HTTP, now), store.NewCertificate(certs.Transport, now)}
	trust, err := is.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	for i := range records {
		by := trust.Of(records[i].Kind)
		if !now.Before(by.Cert.NotAfter) {
			return a, fmt.Errorf("the %s authority has ended and its successor does not issue yet", records[i].Kind)
		}
		records[i].NodeID, records[i].Authority = nodeID, by.Generation
	}
	e.Dialled = is.dialled(ctx, store.Announcement{NodeID: nodeID, RaftAddress: m.RaftAddress, APIAddress: m.APIAddress,
		Evidence: e})
	hosts, err := is.Store.Certificates.Record(ctx, is.actor(), nodeID, records, e)
	if err != nil {
		return a, err
	}
	if a.LeftOut = hosts.LeftOut; len(a.LeftOut) > 0 {
		is.log.Warn("certificates were issued without hosts that are neither allowed nor proven; the setting "+store.SettingCertificateHosts+
			" allows hosts", "node", nodeID, "hosts", a.LeftOut)
	}
	for i, out := range []struct {
		csr           []byte
		chain, bundle *[]byte
	}{{q.HTTP, &a.HTTP, &a.HTTPCA}, {q.Transport, &a.Transport, &a.TransportCA}} {
		var csr *x509.CertificateRequest
		if csr, err = certs.ParseCSR(out.csr); err != nil {
			return a, err
		}
		by := trust.Of(records[i].Kind)
		names := slices.Clone(hosts.For)
		if records[i].Kind == certs.Transport {
			names = append(names, is.peeringName())
		}
		der, err := records[i].Sign(by.CA, csr.PublicKey, is.Transport.ClusterID(), m.Name, names)
		if err != nil {
			return a, err
		}
		*out.chain, *out.bundle = append(certs.EncodeCert(der), by.Chain...), by.Bundle
	}
	return a, nil
}

func (is *issuer) serveCertificates(w http.ResponseWriter, r *http.Request) {
	var q certificateRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	a, err := is.issue(r.Context(), transport.MemberID(r.Context()), q, store.HostEvidence{Remote: remoteHost(r)})
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	case err != nil:
		is.log.Warn("certificates", "node", transport.MemberID(r.Context()), "err", err)
		http.Error(w, "the certificates were not issued", http.StatusServiceUnavailable)
	default:
		writeJSON(w, a)
	}
}

// peeringName is the name under which other clusters ask for this one, "" while the datacenter is not known.
func (m *member) peeringName() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	datacenter, err := m.Store.Settings.Datacenter(ctx)
	if err != nil {
		return ""
	}
	return certs.PeeringName(datacenter, m.Transport.ClusterID())
}
