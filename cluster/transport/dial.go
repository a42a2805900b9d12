package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
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
	type result struct {
		conn *tls.Conn
		at   string
		err  error
	}
	results := make(chan result, len(list))
	next, pending := 0, 0
	start := func() {
		address := list[next]
		next, pending = next+1, pending+1
		go func() {
			conn, err := t.dialAt(ctx, nodeID, address, proto, aged)
			results <- result{conn, address, err}
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
				cancel()
				go func() { // close later connections
					for range pending {
						if late := <-results; late.err == nil {
							late.conn.Close()
						}
					}
				}()
				t.book.Met(nodeID, r.at)
				return r.conn, nil
			}
			if failed == nil { // the likeliest address has the most useful error
				failed = r.err
			}
			if next < len(list) {
				start()
			}
		case <-stagger.C:
			if next < len(list) {
				start()
			}
		}
	}
	return nil, failed
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

// dialAt connects to one address of the member. Host names are resolved at each attempt.
func (t *Transport) dialAt(ctx context.Context, nodeID uint64, address, proto string, aged bool) (*tls.Conn, error) {
	d := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		if err := t.Dials.Control(network, address, c); err != nil {
			return err
		}
		return LimitSilence(c, userTimeout)
	}}
	raw, err := d.DialContext(ctx, "tcp", address)
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
