// Package enginetest joins engines of one process by plain sockets that a test can cut.
package enginetest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Node is a member on the net.
type Node interface {
	DialOwn(ctx context.Context, from uint64) (net.Conn, error)
	FollowsNow(ctx context.Context) (uint64, error)
}

// Net carries what the members of a test say to each other.
type Net struct {
	mu    sync.Mutex
	nodes map[uint64]Node
	cut   map[uint64]bool
	hole  bool
}

// New makes a net without members.
func New() *Net { return &Net{nodes: map[uint64]Node{}, cut: map[uint64]bool{}} }

// Set puts a member on the net, or takes it away when it is nil.
func (n *Net) Set(id uint64, node Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if node == nil {
		delete(n.nodes, id)
		return
	}
	n.nodes[id] = node
}

// Isolate cuts a member off from all others, in both directions, or takes it back.
func (n *Net) Isolate(id uint64, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = cut
}

// Isolated reports whether a member is cut off.
func (n *Net) Isolated(id uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[id]
}

// Swallow has what is cut off swallow what is sent to it, where it would refuse it otherwise.
func (n *Net) Swallow(hole bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hole = hole
}

func (n *Net) between(a, b uint64) (to Node, down, hole bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[b], n.cut[a] || n.cut[b], n.hole
}

// Dial connects a member to the dqlite server of another one.
func (n *Net) Dial(ctx context.Context, from, to uint64) (net.Conn, error) {
	node, down, hole := n.between(from, to)
	if down && hole {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if node == nil || down {
		return nil, errors.New("unreachable")
	}
	conn, err := node.DialOwn(ctx, from)
	if err != nil {
		return nil, err
	}
	return &cuttable{Conn: conn, n: n, a: from, b: to}, nil
}

// cuttable drops what passes while one of its ends is cut off.
type cuttable struct {
	net.Conn
	n     *Net
	a, b  uint64
	holed bool // something is missing in the stream; used by Write alone
}

func (k *cuttable) Write(p []byte) (int, error) {
	_, down, hole := k.n.between(k.a, k.b)
	if down && hole {
		k.holed = true
		return len(p), nil
	}
	if down || k.holed {
		k.Conn.Close()
		return 0, errors.New("cut")
	}
	return k.Conn.Write(p)
}

// Ask asks some members whether they follow the one that asks, until as many as are needed have said so.
func (n *Net) Ask(ctx context.Context, from uint64, ids []uint64, need int) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, len(ids))
	for _, id := range ids {
		go func() {
			node, down, hole := n.between(from, id)
			if down && hole {
				<-ctx.Done()
			}
			if node == nil || down {
				answers <- false
				return
			}
			l, err := node.FollowsNow(ctx)
			answers <- err == nil && l == from
		}()
	}
	for range ids {
		if <-answers {
			need--
		}
		if need <= 0 {
			return true
		}
	}
	return false
}
