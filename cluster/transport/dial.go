package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"muster/store"
)

// dialStagger is the head start of a likelier address of a member.
const dialStagger = 100 * time.Millisecond

// dial connects to a member at any of its addresses in the book. The first address that proves its identity wins and is
// remembered. aged: its certificate may have expired.
func (t *Transport) dial(ctx context.Context, nodeID uint64, proto string, aged bool) (*tls.Conn, error) {
	list := t.book.Candidates(nodeID)
	if len(list) == 0 {
		return nil, fmt.Errorf("the address of node %d is not known", nodeID)
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin(ctx))
	defer cancel()
	conn, won, err := race(ctx, len(list), func(ctx context.Context, i int) (*tls.Conn, error) {
		return t.dialAt(ctx, nodeID, list[i], proto, aged)
	})
	if err != nil {
		return nil, err
	}
	t.book.Met(nodeID, list[won])
	return conn, nil
}

// race tries n ways to a member, likelier ones first and with a head start. It returns the first connection and which
// way it took, or the error of the likeliest way.
func race(ctx context.Context, n int, try func(ctx context.Context, i int) (*tls.Conn, error)) (*tls.Conn, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn *tls.Conn
		way  int
		err  error
	}
	results := make(chan result, n)
	next, pending := 0, 0
	start := func() {
		way := next
		next, pending = next+1, pending+1
		go func() {
			conn, err := try(ctx, way)
			results <- result{conn, way, err}
		}()
	}
	start()
	stagger := time.NewTicker(dialStagger)
	defer stagger.Stop()
	var failed error
	for pending > 0 {
		select {
		case r := <-results:
			pending--
			if r.err == nil {
				go func() { // close later connections
					for range pending {
						if late := <-results; late.err == nil {
							late.conn.Close()
						}
					}
				}()
				return r.conn, r.way, nil
			}
			if failed == nil { // the likeliest address has the most useful error
				failed = r.err
			}
			if next < n {
				start()
			}
		case <-stagger.C:
			if next < n {
				start()
			}
		}
	}
	return nil, 0, failed
}

// DialRaft opens a stream to the dqlite port of a member. It blocks until then or until ctx ends.
func (t *Transport) DialRaft(ctx context.Context, nodeID uint64) (net.Conn, error) {
	return t.dial(ctx, nodeID, protoRaft, true)
}

// DialRelay opens a connection that relays one of another cluster to a member.
func (t *Transport) DialRelay(ctx context.Context, nodeID uint64) (net.Conn, error) {
	return t.dial(ctx, nodeID, protoRelay, false)
}

// Prove returns nil when the cluster listener at an address proves to be that of the member. It blocks until then or
// until ctx ends.
func (t *Transport) Prove(ctx context.Context, nodeID uint64, address string) error {
	conn, err := t.dialAt(ctx, nodeID, address, protoAsk, true)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dialAt connects to one address of the member. Host names are resolved at each attempt; one may have addresses of a
// dead interface, and those of other members.
func (t *Transport) dialAt(ctx context.Context, nodeID uint64, address, proto string, aged bool) (*tls.Conn, error) {
	list, err := t.resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	conn, _, err := race(ctx, len(list), func(ctx context.Context, i int) (*tls.Conn, error) {
		return t.dialIP(ctx, nodeID, list[i], address, proto, aged)
	})
	return conn, err
}

// namedMost is the maximum number of addresses of a host name that are tried.
const namedMost = 8

// resolve returns the addresses of HOST:PORT.
func (t *Transport) resolve(ctx context.Context, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{address}, nil
	}
	ips, err := t.lookup(ctx, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	var list []string
	for _, ip := range ips[:min(len(ips), namedMost)] {
		list = append(list, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return list, nil
}

// dialIP connects to one resolved address of the member; named is what it was resolved from.
func (t *Transport) dialIP(ctx context.Context, nodeID uint64, at, named, proto string, aged bool) (*tls.Conn, error) {
	address := named
	if at != named {
		address = named + " (" + at + ")"
	}
	d := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		if err := t.Dials.Control(network, address, c); err != nil {
			return err
		}
		return LimitSilence(c, userTimeout)
	}}
	raw, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(store.Direct(raw), t.creds.client(nodeID, proto, aged))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("node %d at %s: %w", nodeID, address, err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
		conn.Close()
		return nil, fmt.Errorf("node %d at %s does not speak %s", nodeID, address, proto)
	}
	return conn, nil
}
