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

// renew keeps this member's certificates valid, in step with its addresses and with the authorities, and its node
// identity fresh, without a restart.
func (c *Cluster) renew(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.refresh(ctx)
		_, wait := c.renewalDue(time.Now())
		if err != nil {
			wait = min(wait, renewRetry)
			if ctx.Err() == nil {
				c.log.Debug("certificates, trust or node identity could not be refreshed yet", "err", err)
			}
		}
		select {
		case <-time.After(max(wait, renewLeast)):
		case <-c.due:
		case <-ctx.Done():
		}
	}
}

func (c *Cluster) refresh(ctx context.Context) error {
	if reason, _ := c.renewalDue(time.Now()); reason != "" {
		if err := c.renewNow(ctx); err != nil {
			if ctx.Err() == nil && time.Since(c.renewWarned) > renewWarnEvery {
				c.renewWarned = time.Now()
				c.log.Warn("the certificates could not be renewed yet", "why", reason, "err", err)
			}
			return err
		}
		c.log.Info("certificates renewed", "why", reason)
	}
	if err := c.syncTrust(ctx); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := c.syncToken(ctx); err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	return nil
}

// renewalDue says why the leaves should be replaced, "" when they need not be, and how long to wait before the next look.
func (c *Cluster) renewalDue(now time.Time) (reason string, wait time.Duration) {
	wait = renewCheck
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		leaf, err := c.Dir.Leaf(kind)
		if err != nil {
			return "a certificate file cannot be read", wait
		}
		if !c.Dir.EndsWithCA(kind, leaf) { // a new one would not live longer
			left := untilRenewal(leaf, now)
			if left <= 0 {
				return expiryText(leaf, now), wait
			}
			wait = min(wait, left)
		}
		if known := c.peeringName(); kind == certs.Transport && known != "" && leaf.VerifyHostname(known) != nil {
			return "other clusters do not know it by its name", wait
		}
		for _, host := range (datadir.Plan{APIAddress: c.Self.APIAddress, RaftAddress: c.Self.RaftAddress}).AddressHosts() {
			if leaf.VerifyHostname(host) != nil && !c.withheld.has(host, now) {
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

func (c *Cluster) renewNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	leader, err := c.Store.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if err := c.announceTo(ctx, leader); err != nil { // the new leaf is for the addresses that the leader knows
		return err
	}
	keys, err := datadir.PrepareJoin(c.Dir, "node")
	if err != nil {
		return err
	}
	q := certificateRequest{HTTP: keys.HTTPCSR, Transport: keys.TransportCSR}
	var a certificateAnswer
	if leader == c.Store.NodeID() {
		a, err = c.issue(ctx, leader, q, store.HostEvidence{Own: true})
	} else {
		var body []byte
		if body, err = json.Marshal(q); err != nil {
			return err
		}
		err = c.Transport.Call(ctx, http.MethodPost, leader, transport.PathCertificates, bytes.NewReader(body), &a)
	}
	if err != nil {
		return err
	}
	if c.withheld.note(a.LeftOut, time.Now()) {
		c.log.Warn("this member's certificates are not for all of its hosts: an operator allows them with the setting "+store.SettingCertificateHosts,
			"hosts", a.LeftOut)
	}
	return c.install(a)
}

// install writes the new leaves and uses them from the next connection on.
func (c *Cluster) install(a certificateAnswer) error {
	if err := c.Dir.Install(datadir.Leaves{HTTP: a.HTTP, HTTPCA: a.HTTPCA, Transport: a.Transport, TransportCA: a.TransportCA}, c.Transport.Credentials()); err != nil {
		return err
	}
	return c.ReloadHTTP()
}

// issue signs new leaves for a member.
func (c *Cluster) issue(ctx context.Context, nodeID uint64, q certificateRequest, e store.HostEvidence) (a certificateAnswer, err error) {
	m, err := c.Store.Members.Get(ctx, store.AsLeader, nodeID)
	if err != nil {
		return a, err
	}
	if m == nil {
		return a, fmt.Errorf("node %d is not a member", nodeID)
	}
	now := time.Now()
	records := []store.Certificate{store.NewCertificate(certs.HTTP, now), store.NewCertificate(certs.Transport, now)}
	trust, err := c.Store.Authorities.Trust(ctx, store.AsLeader)
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
	e.Dialled = c.dialled(ctx, store.Announcement{NodeID: nodeID, RaftAddress: m.RaftAddress, APIAddress: m.APIAddress, Evidence: e})
	hosts, err := c.Store.Certificates.Record(ctx, c.actor(), nodeID, records, e)
	if err != nil {
		return a, err
	}
	if a.LeftOut = hosts.LeftOut; len(a.LeftOut) > 0 {
		c.log.Warn("certificates were issued without hosts that are neither allowed nor proven; the setting "+store.SettingCertificateHosts+
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
			names = append(names, c.peeringName())
		}
		der, err := records[i].Sign(by.CA, csr.PublicKey, c.Transport.ClusterID(), m.Name, names)
		if err != nil {
			return a, err
		}
		*out.chain, *out.bundle = append(certs.EncodeCert(der), by.Chain...), by.Bundle
	}
	return a, nil
}

func (c *Cluster) serveCertificates(w http.ResponseWriter, r *http.Request) {
	var q certificateRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	a, err := c.issue(r.Context(), transport.MemberID(r.Context()), q, store.HostEvidence{Remote: remoteHost(r)})
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
	case err != nil:
		c.log.Warn("certificates", "node", transport.MemberID(r.Context()), "err", err)
		http.Error(w, "the certificates were not issued", http.StatusServiceUnavailable)
	default:
		writeJSON(w, a)
	}
}

// peeringName is the name under which other clusters ask for this one, "" while the datacenter is not known.
func (c *Cluster) peeringName() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	datacenter, err := c.Store.Settings.Datacenter(ctx)
	if err != nil {
		return ""
	}
	return certs.PeeringName(datacenter, c.Transport.ClusterID())
}
