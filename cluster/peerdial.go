package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"muster/store"
)

const (
	exchangeWithin = 2800 * time.Millisecond // a caller is told within 3 s that nobody can be reached
	exchangePause  = 150 * time.Millisecond
	connectWithin  = time.Second // to one address, while a caller waits
	openWithin     = 5 * time.Second

	peerUserTimeout = 10 * time.Second // other clusters may be far away: longer than among members
)

// dialPeer connects to a member of another cluster, which is known by its authorities and its server name alone.
func dialPeer(ctx context.Context, address, serverName string, pems []string) (*peerConn, error) {
	roots := x509.NewCertPool()
	for _, pem := range pems {
		roots.AppendCertsFromPEM([]byte(pem))
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return limitSilence(c, peerUserTimeout) }}
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serverName, NextProtos: []string{protoPeer}})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return &peerConn{Conn: conn}, nil
}

// ExchangePeeringSecret trades the one-time secret of a token for a stream secret, at any of the addresses. It tries them
// in turn until one answers, for 2.8 s. store.ErrPeeringSecret says that the other side refuses the secret; the text of
// any other error has a line for each address.
func (c *Cluster) ExchangePeeringSecret(ctx context.Context, addresses []string, serverName string, pems []string, peerID, secret string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeWithin)
	defer cancel()
	last := make([]error, len(addresses))
	for ctx.Err() == nil {
		for i, address := range addresses {
			answer, err := exchange(ctx, address, serverName, pems, exchangeFrame{peerID, secret})
			switch {
			case err == nil:
				return answer, nil
			case refusedWith(err, refusedSecret):
				return "", store.ErrPeeringSecret
			case last[i] == nil || ctx.Err() == nil:
				last[i] = err
			}
			if !rest(ctx, exchangePause) {
				break
			}
		}
	}
	var b strings.Builder
	lines := 0
	for i, err := range last {
		if err != nil {
			lines++
			fmt.Fprintf(&b, "\t* failed to exchange peering secret through address %q: %v\n", addresses[i], err)
		}
	}
	noun := "errors"
	if lines == 1 {
		noun = "error"
	}
	text := fmt.Sprintf("%d %s occurred:\n%s\n", lines, noun, b.String()) // the blank line at the end is documented
	return "", errors.New(text)
}

func exchange(ctx context.Context, address, serverName string, pems []string, x exchangeFrame) (string, error) {
	dctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	conn, err := dialPeer(dctx, address, serverName, pems)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// Once the secret is sent it may be used up: the answer is waited for as long as there is time.
	deadline, _ := ctx.Deadline()
	answer, err := conn.ask(ctx, frame{Exchange: &x}, time.Until(deadline))
	switch {
	case err != nil:
		return "", err
	case answer.Secret == nil || answer.Secret.Secret == "":
		return "", errors.New("the other side does not answer as the protocol says")
	}
	return answer.Secret.Secret, nil
}

// open begins a stream.
func open(ctx context.Context, p *store.Peering, address, secret, datacenter string) (*peerConn, error) {
	dctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := dialPeer(dctx, address, p.ServerName, p.CAPems)
	if err != nil {
		return nil, err
	}
	answer, err := conn.ask(ctx, frame{Open: &openFrame{PeerID: p.PeerID, Secret: secret, Datacenter: datacenter}}, openWithin)
	if err == nil && answer.Opened == nil {
		err = errors.New("the other side does not answer as the protocol says")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// farewell tells an acceptor that its peering was deleted here, until it knows.
func (t *peerTerm) farewell(k store.Tombstone) {
	for tries := 0; t.ctx.Err() == nil; tries++ {
		for _, address := range k.Addresses {
			err := leave(t.ctx, k, address)
			if err == nil || refusedWith(err, refusedOther) || refusedWith(err, refusedSecret) || refusedWith(err, refusedTerminated) {
				outcome := "the other side knows"
				if err != nil {
					outcome = "the other side knows no such peering"
				}
				if err := t.store.FarewellSaid(t.ctx, peerActor, k.ID, outcome); err == nil {
					return
				}
			}
		}
		if !rest(t.ctx, backoff(tries, farewellRest)) {
			return
		}
	}
}

func leave(ctx context.Context, k store.Tombstone, address string) error {
	dctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := dialPeer(dctx, address, k.ServerName, k.CAPems)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := conn.ask(ctx, frame{Leave: &openFrame{PeerID: k.PeerID, Secret: k.Secret}}, openWithin)
	if err == nil && answer.Terminated == nil {
		err = errors.New("the other side does not answer as the protocol says")
	}
	return err
}

// backoff grows from a second to most, with a fifth of it by chance in either direction.
func backoff(tries int, most time.Duration) time.Duration {
	d := most
	if tries < 10 {
		d = min(most, time.Second<<tries)
	}
	return d*4/5 + rand.N(d*2/5)
}

// rest sleeps and tells whether ctx still goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reasonOf says in a sentence why there is no stream.
func reasonOf(err error) string {
	switch {
	case closedByPeer(err):
		return "the connection was closed by the other side"
	case errors.Is(err, context.DeadlineExceeded):
		return "the other side does not answer"
	}
	text := err.Error()
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil { // without the local port, which differs each time
		text = fmt.Sprintf("%s %s: %v", op.Op, op.Addr, op.Err)
	}
	return text[:min(len(text), 300)]
}
