package cluster

import (
	"context"
	"errors"
	"net"
	"time"

	"muster/certs"
	"muster/store"
)

const (
	firstFrameWithin = 5 * time.Second
	leaderWithin     = 3 * time.Second // a dialer that arrives during an election waits for its end
)

// serve takes a connection of another cluster. On a member that does not lead it is passed on to the leader byte for
// byte: the dialer need not be able to reach every member. Only what has been passed on once is refused.
func (p *peers) serve(conn net.Conn, relayed bool) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaderWithin)
	defer cancel()
	c := &peerConn{Conn: conn}
	for ctx.Err() == nil {
		leader, err := p.store.AwaitLeader(ctx)
		if err != nil {
			break
		}
		if leader == p.store.NodeID() {
			wait, stop := context.WithTimeout(ctx, 200*time.Millisecond) // leadership may turn meanwhile
			t := p.leading(wait)
			stop()
			if t != nil {
				t.answer(c)
				return
			}
			continue
		}
		if relayed {
			break
		}
		to, err := p.net.dial(ctx, leader, protoRelay, false)
		if err == nil {
			store.Splice(conn, to)
			return
		}
		rest(ctx, 50*time.Millisecond)
	}
	_ = c.write(frame{Refused: &refusedFrame{refusedNotLeader, "there is no leader now"}}, time.Second)
}

// answer reads the first message and does what it asks for.
func (t *peerTerm) answer(c *peerConn) {
	_ = c.SetReadDeadline(time.Now().Add(firstFrameWithin))
	f, err := c.read()
	if err != nil {
		t.log.Debug("a peer's connection was closed", "remote", c.RemoteAddr(), "err", err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(t.ctx, openWithin)
	defer cancel()
	var out frame
	switch {
	case f.Exchange != nil:
		secret := certs.NewUUID()
		if err = t.store.ExchangePeeringSecret(ctx, peerActor, f.Exchange.PeerID, certs.HashSecret(f.Exchange.Secret), certs.HashSecret(secret)); err == nil {
			out.Secret = &secretFrame{secret}
		}
	case f.Leave != nil:
		if err = t.store.LeavePeering(ctx, peerActor, f.Leave.PeerID, certs.HashSecret(f.Leave.Secret)); err == nil {
			out.Terminated = &struct{}{}
		}
	case f.Open != nil:
		var p *store.Peering
		if len(f.Open.Datacenter) > 63 {
			err = errors.New("the name of a datacenter has at most 63 characters")
		} else if p, err = t.store.OpenPeeringStream(ctx, peerActor, f.Open.PeerID, certs.HashSecret(f.Open.Secret), f.Open.Datacenter); err == nil {
			t.accept(ctx, p, c)
			return
		}
	default:
		err = errors.New("first message when initiating a peering must be: Open")
	}
	if err != nil {
		t.log.Info("a peer was refused", "remote", c.RemoteAddr(), "err", err)
		out.Refused = refusalOf(err)
	}
	_ = c.write(out, time.Second)
}

func refusalOf(err error) *refusedFrame {
	var known *store.Refusal
	switch {
	case errors.Is(err, store.ErrPeeringTerminated):
		return &refusedFrame{refusedTerminated, err.Error()}
	case errors.Is(err, store.ErrPeeringSecret), errors.Is(err, store.ErrStreamSecret):
		return &refusedFrame{refusedSecret, err.Error()}
	case errors.As(err, &known):
		return &refusedFrame{refusedOther, err.Error()}
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrUnknownOutcome):
		return &refusedFrame{refusedNotLeader, "there is no leader now"}
	default:
		return &refusedFrame{refusedOther, "the connection was not accepted"}
	}
}

// accept carries the stream of a dialer.
func (t *peerTerm) accept(ctx context.Context, p *store.Peering, c *peerConn) {
	datacenter, err := t.store.Datacenter(ctx)
	if err == nil {
		err = c.write(frame{Opened: &openedFrame{datacenter}}, frameTimeout)
	}
	if err == nil {
		err = t.carry(t.ctx, p, c)
	}
	if failure(err) {
		t.down(p.ID, err)
	}
}
