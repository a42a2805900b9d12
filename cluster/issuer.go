package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/internal/addr"
	"muster/store"
)

const (
	pathNodeToken = "/internal/node-token"
	proofWithin   = 2 * time.Second // for connections to the addresses that a member announces
)

// remoteHost returns the source IP address of an internal request.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// issuer issues, as the leader, leaves, trust and node identities for all members.
type issuer struct{ *member }

// dialled connects to the addresses of a member whose hosts are neither allowed nor proven yet, and returns the hosts
// where the member itself answered. It blocks for at most two seconds.
func (is *issuer) dialled(ctx context.Context, a store.Announcement) (proven []string) {
	left, err := is.Store.Members.UnprovenHosts(ctx, a)
	if err != nil || len(left) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proofWithin)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	try := func(address string, dial func(context.Context, uint64, string) error) {
		host, _, err := net.SplitHostPort(address)
		host = addr.CanonicalHost(host)
		if err != nil || addr.Check(address) != nil || !slices.Contains(left, host) {
			return
		}
		all.Go(func() {
			if err := dial(ctx, a.NodeID, address); err != nil {
				is.log.Debug("a member does not answer at an address that it announces", "node", a.NodeID, "address", address,
					"err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			proven = append(proven, host)
		})
	}
	try(a.RaftAddress, is.Transport.Prove)
	try(a.APIAddress, is.proveAPI)
	all.Wait()
	return proven
}

// proveAPI proves that a member's API listener is at an address, by the node id in its certificate.
func (is *issuer) proveAPI(ctx context.Context, nodeID uint64, address string) error {
	trust, err := is.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trust.HTTP.Bundle)
	check := func(s tls.ConnectionState) error {
		aged, err := certs.VerifyAged(s.PeerCertificates, roots, x509.ExtKeyUsageServerAuth, time.Now())
		if err != nil || aged {
			return errors.Join(err, transport.ErrExpired)
		}
		id, err := certs.NodeID(s.PeerCertificates[0], is.Transport.ClusterID())
		if err == nil && id != nodeID {
			err = errors.New("another member answers")
		}
		return err
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Control: is.Transport.Dials.Control},
		Config: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // replaced by check, which does not use names
			VerifyConnection:   check,
		},
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
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
			return a, fmt.Errorf("the %s authority has expired and its successor does not issue yet", records[i].Kind)
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
		is.log.Warn("certificates were issued without hosts that are neither allowed nor proven; the setting "+
			store.SettingCertificateHosts+" allows hosts", "node", nodeID, "hosts", a.LeftOut)
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

// certificateRequest and certificateAnswer are the messages by which a member gets new leaves from the leader, over a
// connection authenticated by its old leaf.
type certificateRequest struct {
	HTTP      []byte `json:"http"` // CSR in DER
	Transport []byte `json:"transport"`
}

type certificateAnswer struct {
	HTTP        []byte `json:"http"` // PEM, the leaf first
	HTTPCA      []byte `json:"httpCa"`
	Transport   []byte `json:"transport"`
	TransportCA []byte `json:"transportCa"`

	LeftOut []string `json:"leftOut,omitempty"` // hosts of this member that are neither allowed nor proven
}

func (is *issuer) trust(ctx context.Context, _ uint64) (a trustAnswer, err error) {
	t, err := is.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return a, err
	}
	a = trustAnswer{t.Revision, trustOfOne{t.HTTP.Chain, t.HTTP.Bundle},
		trustOfOne{t.Transport.Chain, t.Transport.Bundle}, 0}
	if t.Workload.Generation > 0 {
		a.Workload = t.Revision
	}
	return a, nil
}

func (is *issuer) serveTrust(w http.ResponseWriter, r *http.Request) {
	serveLeader(is.member, w, r, is.trust)
}

// nodeToken is a node identity, for software on the member's machine.
type nodeToken struct {
	NodeJWT string `json:"nodeJwt"`
}

// mintToken signs the identity of a member, which the cluster listener has authenticated.
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

// serveLeader answers another member's request to the leader.
func serveLeader[T any](m *member, w http.ResponseWriter, r *http.Request,
	make func(context.Context, uint64) (T, error)) {
	m.Store.AwaitOwn(r.Context())
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

// trustAnswer is store.Trust without keys: the chains to present and the authorities to accept.
type trustAnswer struct {
	Revision  uint64     `json:"revision"`
	HTTP      trustOfOne `json:"http"`
	Transport trustOfOne `json:"transport"`
	// Workload is the revision of the workload authorities; 0: none.
	Workload uint64 `json:"workload,omitempty"`
}

type trustOfOne struct {
	Chain  []byte `json:"chain"`  // PEM, follows the leaf
	Bundle []byte `json:"bundle"` // PEM, the issuer first
}
