package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"muster/addr"
	"muster/certs"
	"muster/cluster/transport"
	"muster/store"
)

const (
	proofWithin = 2 * time.Second
	// withheldFor is how long a member does not ask again for hosts that the leader has left out.
	withheldFor = time.Hour
)

// remoteHost is the IP address that an internal request came from.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// issuer makes what only a leader may make: leaves, trust and node identities, for itself and for others.
type issuer struct{ *member }

// dialled connects to those addresses of a member whose hosts are otherwise neither allowed nor proven, and returns the
// hosts where the member itself has answered. It blocks for two seconds at the most.
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
				is.log.Debug("a member does not answer where it says that it is", "node", a.NodeID, "address", address, "err", err)
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

// proveAPI shows that a member's API listener is at an address. The member is known by the node id in the certificate.
func (is *issuer) proveAPI(ctx context.Context, nodeID uint64, address string) error {
	trust, err := is.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trust.HTTP.Bundle)
	// replaced by the check below, which does not go by names
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			expired, err := certs.VerifyAged(s.PeerCertificates, roots, x509.ExtKeyUsageServerAuth, time.Now())
			if err != nil || expired {
				return errors.Join(err, transport.ErrExpired)
			}
			id, err := certs.NodeID(s.PeerCertificates[0], is.Transport.ClusterID())
			if err == nil && id != nodeID {
				err = errors.New("another member answers")
			}
			return err
		}}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// withheld are hosts of this member that the leader leaves out of its certificates, so that it does not ask for them
// without end.
type withheld struct {
	mu    sync.Mutex
	hosts []string
	until time.Time
}

// note remembers what was left out, and reports whether that is news.
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
