package peering

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"muster/certs"
	"muster/internal/netlimit"
	"muster/internal/timing"
	"muster/store"
)

const (
	firstFrameWithin = 5 * time.Second
	leaderWithin     = 3 * time.Second // a dialer that arrives during an election waits for its end
)

// Serve serves a connection of another cluster and blocks until it ends. Its first message, which must be short and
// come soon, names the peering. A member that does not lead passes all bytes on to the leader, so the dialer need not
// reach every member. A relayed connection is not passed on again.
func (p *Streams) Serve(conn net.Conn, relayed bool) {
	if relayed { // the member that relays it has counted it; here it is not counted yet
		select {
		case p.relayed <- struct{}{}:
		default:
			return
		}
	}
	c := &peerConn{Conn: conn}
	leave := func() {
		if relayed {
			<-p.relayed
			relayed = false
		}
	}
	defer func() { leave() }()
	data, first, err := c.readFirst(firstFrameWithin)
	if err != nil {
		if !relayed {
			p.strangers.Failed(conn.RemoteAddr(), time.Now())
		}
		p.strangers.Log(slog.LevelDebug, "a peer's connection was closed", "remote", conn.RemoteAddr(), "err", err)
		return
	}
	direct := !relayed
	known := func() { // the other side has authenticated
		leave()
		c.known = true
		if direct {
			p.strangers.Peer(conn.RemoteAddr(), time.Now())
			if n := netlimit.Of(conn); n != nil {
				n.Proven("peer")
			}
		}
	}
	if !p.toLeader(c, data, first, direct, known) {
		_ = c.write(frame{Refused: &refusedFrame{refusedNotLeader, "there is no leader now"}}, time.Second)
	}
}

// toLeader serves a connection if this member leads; otherwise it relays a direct connection to the leader. It returns
// false when it finds no leader in time.
func (p *Streams) toLeader(c *peerConn, data []byte, first *frame, direct bool, known func()) bool {
	ctx, cancel := context.WithTimeout(context.Background(), leaderWithin)
	defer cancel()
	for ctx.Err() == nil {
		leader, err := p.store.AwaitLeader(ctx)
		if err != nil {
			break
		}
		if leader == p.store.NodeID() {
			wait, stop := context.WithTimeout(ctx, 200*time.Millisecond) // leadership may change meanwhile
			t := p.leading(wait)
			stop()
			if t != nil {
				t.answer(c, first, direct, known)
				return true
			}
			continue
		}
		if !direct {
			break
		}
		to, err := p.net.DialRelay(ctx, leader)
		if err == nil {
			p.passOn(c, to, data, known)
			return true
		}
		timing.Rest(ctx, 50*time.Millisecond)
	}
	return false
}

// passOn relays a connection of another cluster to the leader. The leader's first answer shows whether the dialer is
// known.
func (p *Streams) passOn(c *peerConn, to net.Conn, data []byte, known func()) {
	defer to.Close()
	l := &peerConn{Conn: to}
	if l.writeRaw(data, time.Second) != nil {
		return
	}
	answer, f, err := l.readFirst(leaderWithin + openWithin)
	if err != nil {
		return
	}
	switch {
	case f.Refused != nil && (f.Refused.Code == refusedSecret || f.Refused.Code == refusedOther ||
		f.Refused.Code == refusedBusy):
		p.strangers.Failed(c.RemoteAddr(), time.Now())
	case f.Secret != nil, f.Opened != nil, f.Terminated != nil:
		known()
	}
	if f.Opened == nil {
		_ = c.writeRaw(answer, time.Second)
		return
	}
	if !p.take() {
		_ = c.write(frame{Refused: &refusedFrame{refusedBusy, tooManyStreams}}, time.Second)
		return
	}
	defer p.free()
	if c.writeRaw(answer, frameTimeout) == nil {
		_ = c.SetWriteDeadline(time.Time{}) // the ends of the stream set their own deadlines
		_ = to.SetWriteDeadline(time.Time{})
		store.Splice(c.Conn, to)
	}
}

const tooManyStreams = "there are too many streams of peerings here; try again later"

// take and free count the streams of authenticated clusters.
func (p *Streams) take() bool {
	select {
	case p.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p *Streams) free() { <-p.slots }

// answer carries out the first message. It calls known when the other side has authenticated.
func (t *term) answer(c *peerConn, f *frame, direct bool, known func()) {
	ctx, cancel := context.WithTimeout(t.ctx, openWithin)
	defer cancel()
	var out frame
	var err error
	switch {
	case f.Exchange != nil:
		secret := certs.NewUUID()
		if err = t.store.Peerings.ExchangeSecret(ctx, actor, f.Exchange.PeerID, certs.HashSecret(f.Exchange.Secret),
			certs.HashSecret(secret)); err == nil {
			out.Secret = &secretFrame{secret}
		}
	case f.Leave != nil:
		if err = t.store.Peerings.Leave(ctx, actor, f.Leave.PeerID, certs.HashSecret(f.Leave.Secret)); err == nil {
			out.Terminated = &struct{}{}
		}
	case f.Open != nil:
		var p *store.Peering
		if p, err = t.open(ctx, f.Open); err == nil {
			known()
			if t.take() {
				defer t.free()
				t.accept(ctx, p, c)
				return
			}
			err = &refusal{refusedFrame{refusedBusy, tooManyStreams}}
		}
	default:
		err = errors.New("first message when initiating a peering must be: Open")
	}
	if err == nil {
		known()
	} else {
		out.Refused = refusalOf(err)
		if direct && out.Refused.Code != refusedNotLeader && out.Refused.Code != refusedTerminated {
			t.strangers.Failed(c.RemoteAddr(), time.Now())
		}
		t.strangers.Log(slog.LevelInfo, "a peer was refused", "remote", c.RemoteAddr(), "err", printable(err.Error(), 300))
	}
	_ = c.write(out, time.Second)
}

// open admits a dialer that does not open streams too often.
func (t *term) open(ctx context.Context, f *openFrame) (*store.Peering, error) {
	if f.Datacenter != "" && !certs.ValidDatacenter(f.Datacenter) {
		return nil, errBadDatacenter
	}
	p, err := t.store.Peerings.OpenStream(ctx, actor, f.PeerID, certs.HashSecret(f.Secret), f.Datacenter)
	if err == nil && !t.budgetOf(p.ID).open(time.Now()) {
		err = &refusal{refusedFrame{refusedBusy, "this peering is opened too often; try again later"}}
	}
	return p, err
}

var errBadDatacenter = errors.New("the name of a datacenter must be a DNS label in lower case")

func refusalOf(err error) *refusedFrame {
	var known *store.Refusal
	var own *refusal
	switch {
	case errors.As(err, &own):
		return &own.refusedFrame
	case errors.Is(err, store.ErrPeeringTerminated):
		return &refusedFrame{refusedTerminated, err.Error()}
	case errors.Is(err, store.ErrPeeringSecret), errors.Is(err, store.ErrStreamSecret):
		return &refusedFrame{refusedSecret, err.Error()}
	case errors.As(err, &known):
		return &refusedFrame{refusedOther, err.Error()}
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader), errors.Is(err,
		store.ErrClosed), errors.Is(err, store.ErrUnknownOutcome):
		return &refusedFrame{refusedNotLeader, "there is no leader now"}
	default:
		return &refusedFrame{refusedOther, "the connection was not accepted"}
	}
}

// accept carries the stream of a dialer until it ends.
func (t *term) accept(ctx context.Context, p *store.Peering, c *peerConn) {
	datacenter, err := t.store.Settings.Datacenter(ctx)
	if err == nil {
		err = c.write(frame{Opened: &openedFrame{datacenter + " " + takesIdentity}}, frameTimeout)
	}
	if err == nil {
		err = t.carry(t.ctx, p, c, false)
	}
	if failure(err) {
		t.down(p.ID, err)
	}
}
