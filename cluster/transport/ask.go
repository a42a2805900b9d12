package transport

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// The ask protocol: a question is one byte; the answer is eight bytes, the leader that the Raft server of the asked
// node follows at that moment. A linearisable read costs the other voters nothing else, so it is this small.

const askTimeout = time.Second

func serveAsk(conn net.Conn, replica Replica) {
	var question [1]byte
	var answer [8]byte
	for {
		if _, err := io.ReadFull(conn, question[:]); err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		leader, err := replica.FollowsNow(ctx)
		cancel()
		if err != nil {
			leader = 0
		}
		binary.BigEndian.PutUint64(answer[:], leader)
		if _, err := conn.Write(answer[:]); err != nil {
			return
		}
	}
}

// askers keeps one connection per voter.
type askers struct {
	dial   func(context.Context, uint64) (net.Conn, error)
	mu     sync.Mutex
	voters map[uint64]*asker
}

type asker struct {
	mu   sync.Mutex // held during a question
	cmu  sync.Mutex
	conn net.Conn
	gone bool // it was forgotten: a new connection is closed at once
}

func (a *askers) of(id uint64) *asker {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.voters == nil {
		a.voters = map[uint64]*asker{}
	}
	if a.voters[id] == nil {
		a.voters[id] = &asker{}
	}
	return a.voters[id]
}

func (a *askers) ask(ctx context.Context, self uint64, nodes []uint64, need int) bool {
	answers := make(chan bool, len(nodes))
	for _, id := range nodes {
		go func() { answers <- a.of(id).follows(ctx, a.dial, id, self) }()
	}
	for left := len(nodes); need > 0; left-- {
		if left < need {
			return false
		}
		select {
		case yes := <-answers:
			if yes {
				need--
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// follows asks one node. A node that still owes an answer counts as silent, so that it does not delay the others.
func (p *asker) follows(ctx context.Context, dial func(context.Context, uint64) (net.Conn, error), id,
	self uint64) bool {
	if !p.mu.TryLock() {
		return false
	}
	defer p.mu.Unlock()
	p.cmu.Lock()
	conn := p.conn
	p.cmu.Unlock()
	if conn == nil {
		var err error
		// Not ctx: the connection is useful even if this question has ended.
		dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		conn, err = dial(dctx, id)
		cancel()
		if err != nil {
			return false
		}
		if !p.keep(conn) {
			conn.Close()
			return false
		}
	}
	var answer [8]byte
	_ = conn.SetDeadline(time.Now().Add(askTimeout))
	_, err := conn.Write([]byte{1})
	if err == nil {
		_, err = io.ReadFull(conn, answer[:])
	}
	if err != nil {
		p.drop()
		return false
	}
	return binary.BigEndian.Uint64(answer[:]) == self
}

// keep stores a new connection, unless the asker was forgotten meanwhile.
func (p *asker) keep(conn net.Conn) bool {
	p.cmu.Lock()
	defer p.cmu.Unlock()
	if !p.gone {
		p.conn = conn
	}
	return !p.gone
}

// end closes the connection for good.
func (p *asker) end() {
	p.cmu.Lock()
	p.gone = true
	p.cmu.Unlock()
	p.drop()
}

func (p *asker) drop() {
	p.cmu.Lock()
	defer p.cmu.Unlock()
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

func (a *askers) forget(id uint64) {
	a.mu.Lock()
	p := a.voters[id]
	delete(a.voters, id)
	a.mu.Unlock()
	if p != nil {
		p.end()
	}
}

func (a *askers) close() {
	a.mu.Lock()
	voters := a.voters
	a.voters = nil
	a.mu.Unlock()
	for _, p := range voters {
		p.end()
	}
}
