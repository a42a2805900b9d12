package datadir

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"muster/certs"
)

// What to do about expired certificates. Only a leader can renew them, and expired ones suffice to elect one.
const (
	nextExpired = "start a majority of the voters: members that know each other's key accept an expired certificate " +
		"for Raft and for its renewal, and as soon as there is a leader everybody has a fresh one"
	nextEnded = "start a majority of the voters: the leader replaces an authority that has ended, and members get " +
		"certificates of the new one; give clients the new ca.crt then"
	nextEnds = "the leader replaces an authority that ends; an operator's own is yours to replace: " +
		"muster ca rotate --cert FILE --key FILE"
	// NextRejoin is what to do about a member that is left behind.
	NextRejoin = "if this member is left behind, let it rejoin: muster serve --data DIR (and its other flags) --rejoin " +
		"--join TOKEN, with a token that muster join-token create makes on a working member"
	nextStart = "start the member: a leader gives it another one"
	// Who has no key cannot show that it is the member.
	nextKeyLost = "restore tls/transport.key from a copy, or remove the member and join again with an empty directory"
)

func (x *doctor) certificates() {
	for _, c := range []struct {
		name string
		kind certs.Kind
	}{{"API certificate", certs.HTTP}, {"transport certificate", certs.Transport}} {
		leaf, err := x.d.checkCertificate(filesOf(c.kind))
		if err != nil {
			x.say(c.name, FindingFail, x.nextCertificate(c.kind), "%s", plainError(err))
			continue
		}
		left := time.Until(leaf.NotAfter)
		ends := leaf.NotAfter.UTC().Format(time.RFC3339)
		switch {
		case left < 0 && x.d.EndsWithCA(c.kind, leaf):
			x.say(c.name, FindingFail, nextEnded, "it has expired at %s, together with its authority", ends)
		case left < 0:
			x.say(c.name, FindingFail, nextExpired, "it has expired at %s", ends)
		case left < 7*24*time.Hour && x.d.EndsWithCA(c.kind, leaf):
			x.say(c.name, FindingWarn, nextEnds, "it expires in %s, together with its authority", left.Round(time.Minute))
		case left < 7*24*time.Hour:
			x.say(c.name, FindingWarn, "a running member renews it by itself; look at its log",
				"it expires in %s", left.Round(time.Minute))
		default:
			x.say(c.name, FindingOK, "", "it fits its key and its authority and expires in %d days", int(left.Hours()/24))
		}
	}
}

func (x *doctor) nextCertificate(kind certs.Kind) string {
	switch {
	case kind == certs.Transport:
		return x.d.nextTransport()
	case x.d.HTTPDamaged():
		return nextStart
	}
	return NextRejoin
}

// checkCertificate returns the leaf in a file if it matches its key and its authority. The leaf may have expired.
func (d *Dir) checkCertificate(f certFiles) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(d.file(f.cert), d.file(f.key))
	if err != nil {
		return nil, err
	}
	roots, err := d.roots(f.ca)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	_, err = certs.VerifyAged(chain, roots, x509.ExtKeyUsageAny, time.Now())
	return chain[0], err
}

func (d *Dir) roots(ca string) (*x509.CertPool, error) {
	text, err := d.read(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	return roots, nil
}

// agedTLS trusts the API of a member of this cluster, even with an expired certificate: it is asked for its status and
// receives nothing secret.
func (d *Dir) agedTLS(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	roots, err := d.roots(httpCAFile)
	if err != nil {
		return nil, fmt.Errorf("ca.crt cannot be used: %w", err)
	}
	return &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, // replaced by the check below
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate was presented")
			}
			if _, err := certs.VerifyAged(s.PeerCertificates, roots, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
				return err
			}
			return s.PeerCertificates[0].VerifyHostname(host)
		},
	}, nil
}
