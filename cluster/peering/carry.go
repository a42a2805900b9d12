package peering

import (
	"context"
	"errors"
	"time"

	"muster/store"
)

// carry runs a stream until it ends. A newer stream of the same peering replaces it. identity: the other side
// understands identityFrame.
func (t *term) carry(ctx context.Context, p *store.Peering, conn *peerConn, identity bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &stream{
		term: t,
		id:   p.ID,
		name: p.Name,

		serverName: p.ServerName,
		meta:       p.Meta,
		dialer:     p.Dialer,
		conn:       conn,
		status:     t.status(p.ID),
		cancel:     cancel,
		tells:      make(chan struct{}, 1),
	}
	s.identity.Store(identity)
	t.mu.Lock()
	if old := t.streams[p.ID]; old != nil {
		old.cancel(errReplaced)
	}
	t.streams[p.ID] = s
	delete(t.missing, p.ID)
	t.mu.Unlock()
	t.note(p.ID, func(n *store.PeerNews) { n.State, n.Reason = store.PeeringActive, "" })
	// The peering may have ended before its stream was registered.
	if now, err := t.store.Peerings.ByID(ctx, store.AsLeader, p.ID); err == nil && (now == nil || now.Ended()) {
		cancel(errDeleted)
	}
	t.refresh()
	t.log.Info("a peering is up", "peering", p.Name, "remote", conn.RemoteAddr())
	err := s.run(ctx)
	t.mu.Lock()
	if t.streams[p.ID] == s {
		delete(t.streams, p.ID)
	} else {
		err = errReplaced
	}
	if err == errMoved {
		t.missing[p.ID] = time.Now().Add(moveWithin)
	}
	t.mu.Unlock()
	t.log.Info("a peering's stream has ended", "peering", p.Name, "why", err)
	return err
}

// failure reports whether the end of a stream is a failure that the peering's state must show.
func failure(err error) bool {
	return err != errMoved && err != errTerminated && err != errDeleted && err != errReplaced &&
		!errors.Is(err, context.Canceled)
}
