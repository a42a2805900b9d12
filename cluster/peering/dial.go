package peering

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/internal/addr"
	"muster/internal/timing"
	"muster/store"
)

const (
	exchangeWithin = 2800 * time.Millisecond // the caller gets an answer within 3 s
	exchangePause  = 150 * time.Millisecond
	connectWithin  = time.Second // to one address, while a caller waits
	openWithin     = 5 * time.Second
	dialWithin     = 3 * time.Second // to one address, for a stream

)

// errUnreachable is the only text that callers get about a failed connection: whoever may name addresses must not learn
// which ports are open. The log has the cause.
var errUnreachable = errors.New("the other side cannot be reached")

// unreachable is errUnreachable with its cause, for the log.
type unreachable struct{ cause error }

func (unreachable) Error() string     { return errUnreachable.Error() }
func (unreachable) Is(err error) bool { return err == errUnreachable }

// causeOf returns the cause of an error, for the log.
func causeOf(err error) error {
	var u unreachable
	if errors.As(err, &u) {
		return u.cause
	}
	return err
}

// peerDialer connects to members of other clusters.
type peerDialer struct{ policy addr.DialPolicy }

// dialer returns a dialer with the present policy. Only the leader dials.
func (p *Streams) dialer(ctx context.Context) (d peerDialer, err error) {
	d.policy, err = p.store.Settings.PeeringNetworks(ctx, store.AsLeader)
	d.policy.Loopback = p.loopback
	return d, err
}

// MayDial returns why an address of another cluster must not be dialled, nil when it may be. A host name passes: the
// addresses that it resolves to are checked later. err is a failure to read the policy.
func (p *Streams) MayDial(ctx context.Context, address string) (why, err error) {
	d, err := p.dialer(ctx)
	if err != nil {
		return nil, err
	}
	return d.policy.CheckLiteral(address), nil
}

// dial connects to a member of another cluster, identified by its authorities and its server name alone. Every error is
// errUnreachable.
func (d peerDialer) dial(ctx context.Context, address, serverName string, pems []string) (*peerConn, error) {
	if !certs.ValidPeeringName(serverName) { // no cluster has this name, so it is never sent
		return nil, unreachable{errors.New("the server name is not that of a cluster")}
	}
	roots := x509.NewCertPool()
	for _, pem := range pems {
		roots.AppendCertsFromPEM([]byte(pem))
	}
	nd := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		if err := d.policy.Control(network, address, c); err != nil {
			return err
		}
		return transport.LimitSilence(c, transport.PeerSilence)
	}}
	raw, err := nd.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, unreachable{err}
	}
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serverName,
		NextProtos: []string{transport.ProtoPeer}})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, unreachable{err}
	}
	return &peerConn{Conn: conn}, nil
}

// ExchangeSecret exchanges the one-time secret of a token for a stream secret. It tries the addresses in turn until one
// answers, and blocks for at most 2.8 s. It returns store.ErrPeeringSecret when the other side rejects the secret; the
// text of any other error has a line for each address, and the log has the causes.
func (p *Streams) ExchangeSecret(ctx context.Context, addresses []string, serverName string, pems []string, peerID,
	secret string) (string, error) {
	d, err := p.dialer(ctx)
	if err != nil {
		return "", err
	}
	return d.exchangeAny(ctx, p.log, addresses, serverName, pems, exchangeFrame{peerID, secret})
}

func (d peerDialer) exchangeAny(ctx context.Context, log *slog.Logger, addresses []string, serverName string,
	pems []string, x exchangeFrame) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeWithin)
	defer cancel()
	last := make([]error, len(addresses))
	for ctx.Err() == nil {
		for i, address := range addresses {
			answer, err := d.exchange(ctx, address, serverName, pems, x)
			switch {
			case err == nil:
				return answer, nil
			case refusedWith(err, refusedSecret):
				return "", store.ErrPeeringSecret
			case last[i] == nil || !isTimeout(causeOf(err)): // a cause says more than the deadline
				last[i] = err
			}
			if !timing.Rest(ctx, exchangePause) {
				break
			}
		}
	}
	var b strings.Builder
	for i, err := range last { // list untried addresses too: their number would reveal timing
		said := errUnreachable.Error()
		if err != nil {
			log.Warn("a peering secret could not be exchanged", "address", addresses[i],
				"err", printable(causeOf(err).Error(), 300))
			var r *refusal
			if errors.As(err, &r) {
				said = printable(r.Error(), 300)
			}
		}
		fmt.Fprintf(&b, "\t* failed to exchange peering secret through address %q: %s\n", addresses[i], said)
	}
	noun := "errors"
	if len(addresses) == 1 {
		noun = "error"
	}
	// the documented text ends with a blank line
	text := fmt.Sprintf("%d %s occurred:\n%s\n", len(addresses), noun, b.String())
	return "", errors.New(text)
}

func (d peerDialer) exchange(ctx context.Context, address, serverName string, pems []string, x exchangeFrame) (string,
	error) {
	dctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	conn, err := d.dial(dctx, address, serverName, pems)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// Once the secret is sent it may be used up, so the answer may take all remaining time.
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

// open begins a stream at one address.
func (d peerDialer) open(ctx context.Context, p *store.Peering, address, secret, datacenter string) (*peerConn, error) {
	dctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := d.dial(dctx, address, p.ServerName, p.CAPems)
	if err != nil {
		return nil, err
	}
	answer, err := conn.ask(ctx, frame{Open: &openFrame{PeerID: p.PeerID, Secret: secret, Datacenter: datacenter}},
		openWithin)
	if err == nil && answer.Opened == nil {
		err = errors.New("the other side does not answer as the protocol says")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.known, conn.identity = true, answer.Opened.takes(takesIdentity)
	return conn, nil
}

// farewell tells an acceptor that its peering was deleted here, until it answers.
func (t *term) farewell(k store.Tombstone) {
	for tries := 0; t.ctx.Err() == nil; tries++ {
		for _, address := range k.Addresses {
			d, err := t.dialer(t.ctx)
			if err == nil {
				err = d.leave(t.ctx, k, address)
			}
			if err == nil || refusedWith(err, refusedOther) || refusedWith(err, refusedSecret) ||
				refusedWith(err, refusedTerminated) {
				outcome := "the other side knows"
				if err != nil {
					outcome = "the other side knows no such peering"
				}
				if err := t.store.Peerings.FarewellSaid(t.ctx, actor, k.ID, outcome); err == nil {
					return
				}
			}
		}
		if !timing.Rest(t.ctx, backoff(tries, farewellRest)) {
			return
		}
	}
}

func (d peerDialer) leave(ctx context.Context, k store.Tombstone, address string) error {
	dctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := d.dial(dctx, address, k.ServerName, k.CAPems)
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

// backoff grows from a second to most, plus or minus a random fifth.
func backoff(tries int, most time.Duration) time.Duration {
	d := most
	if tries < 10 {
		d = min(most, time.Second<<tries)
	}
	return d*4/5 + rand.N(d*2/5)
}

// reasonOf returns in a sentence why there is no stream. Text of the other side is reduced to printable characters.
func reasonOf(err error) string {
	switch {
	case closedByPeer(err):
		return "the connection was closed by the other side"
	case errors.Is(err, errUnreachable):
		return errUnreachable.Error() + "; the leader's log says why"
	case errors.Is(err, context.DeadlineExceeded):
		return "the other side does not answer"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return "the connection was lost"
	}
	return printable(err.Error(), 300)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// printable replaces bytes outside printable ASCII and truncates the text.
func printable(s string, most int) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), most)])
}
