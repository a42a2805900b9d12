package peering

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/internal/addr"
)

// loopbackDialer dials what a member on loopback may.
var loopbackDialer = peerDialer{addr.DialPolicy{Any: true, Loopback: true}}

// listenFor serves each connection to a port of its own until the test ends.
func listenFor(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return l.Addr().String()
}

// ownLeaf makes a certificate that signs itself, for a name.
func ownLeaf(t *testing.T, name string) tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// What keeps a connection from coming about is the same to whoever named the address, and stands in the log.
func TestDialFailuresAreAlike(t *testing.T) {
	t.Parallel()
	name := certs.PeeringName("dc1", certs.NewUUID())
	right, wrong := ownLeaf(t, name), ownLeaf(t, "other.example")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	tlsServer := func(c tls.Certificate) string {
		return listenFor(t, func(conn net.Conn) {
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c},
				NextProtos: []string{transport.ProtoPeer}}).Handshake()
		})
	}
	roots := []string{string(certs.EncodeCert(right.Certificate[0]))}
	for _, x := range []struct{ what, address, name, cause string }{
		{"a closed port", closed, name, "connection refused"},
		{"an open port without TLS", listenFor(t, func(c net.Conn) { _, _ = c.Write([]byte("220 not what you expect\r\n")) }),
			name, "TLS handshake"},
		{"an open port that hangs up", listenFor(t, func(net.Conn) {}), name, ""}, // EOF or a reset
		{"another authority", tlsServer(ownLeaf(t, name)), name, "unknown authority"},
		{"another name", tlsServer(wrong), name, "other.example"},
		{"a name that no cluster has", tlsServer(right), "wrong.name", "not that of a cluster"},
		{"link-local", "169.254.169.254:80", name, "link-local"},
		{"a host that does not exist", "nobody.invalid:7000", name, "lookup"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		var log bytes.Buffer
		_, err := loopbackDialer.exchangeAny(ctx, slog.New(slog.NewTextHandler(&log, nil)), []string{x.address}, x.name,
			roots, exchangeFrame{"id", "secret"})
		cancel()
		want := "1 error occurred:\n\t* failed to exchange peering secret through address \"" + x.address +
			"\": the other side cannot be reached\n\n"
		if err == nil || err.Error() != want {
			t.Errorf("%s: %q, want %q", x.what, err, want)
		}
		if x.what != "a host that does not exist" && !strings.Contains(log.String(), x.cause) { // resolvers differ
			t.Errorf("%s: the log has %s, want %q", x.what, log.String(), x.cause)
		}
	}
	// What the other side says of a refusal is shown as far as it can be.
	talks := listenFor(t, func(conn net.Conn) {
		c := peerConn{Conn: tls.Server(conn,
			&tls.Config{Certificates: []tls.Certificate{right}, NextProtos: []string{transport.ProtoPeer}})}
		if _, err := c.read(); err == nil {
			_ = c.write(frame{Refused: &refusedFrame{refusedOther, "a\r\n\x1b[2J" + strings.Repeat("x", 3000)}}, time.Second)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err = loopbackDialer.exchangeAny(ctx, slog.New(slog.DiscardHandler), []string{talks}, name, roots,
		exchangeFrame{"id", "secret"})
	if err == nil || !strings.Contains(err.Error(), ": a???[2Jxxx") || len(err.Error()) > 500 ||
		strings.ContainsAny(err.Error(), "\r\x1b") {
		t.Errorf("a refusal is told as %q", err)
	}
	// The state of a peering is for readers of the API, too.
	_, err = loopbackDialer.dial(context.Background(), closed, name, roots)
	if got := reasonOf(err); !errors.Is(err, errUnreachable) ||
		got != "the other side cannot be reached; the leader's log says why" {
		t.Errorf("the reason is %q for %v", got, causeOf(err))
	}
	for _, err := range []error{&net.OpError{Op: "read", Err: errors.New("x")},
		&refusal{refusedFrame{Message: "a\r\nb\x1b[31m" + strings.Repeat("é", 400)}}} {
		if got := reasonOf(err); len(got) > 300 || strings.ContainsAny(got, "\r\n\x1b") {
			t.Errorf("the reason is %q", got)
		}
	}
}

// Nothing goes over the wire, not even a greeting, to who is not to be dialled or under a name that no cluster has.
func TestNothingIsSentToStrangers(t *testing.T) {
	said := make(chan string, 10)
	address := listenFor(t, func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		data := make([]byte, 1024)
		n, _ := c.Read(data)
		said <- string(data[:n])
	})
	_, port, _ := net.SplitHostPort(address)
	name := certs.PeeringName("dc1", certs.NewUUID())
	for _, x := range []struct {
		d             peerDialer
		address, name string
	}{
		{loopbackDialer, address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{loopbackDialer, address, "mail.example.org"},
		{loopbackDialer, address, name + "\n"},
		{loopbackDialer, address, "x" + name},
		{peerDialer{addr.DialPolicy{Any: true}}, address, name},
		{peerDialer{addr.DialPolicy{Any: true}}, "localhost:" + port, name},
		{peerDialer{}, address, name},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if _, err := x.d.dial(ctx, x.address, x.name, nil); !errors.Is(err, errUnreachable) {
			t.Errorf("%s %q: %v", x.address, x.name, err)
		}
		cancel()
	}
	select {
	case text := <-said:
		t.Errorf("a connection was made and %q sent", text)
	default:
	}
}
