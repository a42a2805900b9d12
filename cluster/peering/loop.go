package peering

import (
	"context"
	"time"

	"muster/internal/timing"
	"muster/store"
)

// dial keeps the stream of a peering up until ctx ends or the peering does.
func (t *term) dial(ctx context.Context, l *dialLoop, id string) {
	for tries := 0; ctx.Err() == nil; {
		p, err := t.store.Peerings.ByID(ctx, store.AsLeader, id)
		lasted := false
		switch {
		case err != nil:
		case p == nil || p.Ended():
			return
		default:
			lasted, err = t.round(ctx, l, p)
		}
		wait := backoff(tries, dialRest)
		tries++
		switch {
		case ctx.Err() != nil, err == errTerminated:
			return
		case refusedWith(err, refusedTerminated):
			if t.store.Peerings.Terminate(ctx, actor, id) == nil {
				return
			}
		case err == errMoved, refusedWith(err, refusedNotLeader):
			wait = backoff(0, dialRest) / 4
		case failure(err):
			t.down(id, err)
		}
		if lasted {
			tries, wait = 0, exchangePause // it was up: another member there probably still is
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// round tries one address after the other and carries the first stream. It returns why that stream ended, and whether
// it lasted.
func (t *term) round(ctx context.Context, l *dialLoop, p *store.Peering) (lasted bool, err error) {
	secret, err := t.store.Peerings.StreamSecret(ctx, store.AsLeader, p.ID)
	if err != nil {
		return false, err
	}
	datacenter, err := t.store.Settings.Datacenter(ctx)
	if err != nil {
		return false, err
	}
	dialer, err := t.dialer(ctx)
	if err != nil {
		return false, err
	}
	addresses := p.Addresses()
	for range addresses {
		var conn *peerConn
		if conn, err = dialer.open(ctx, p, addresses[l.next%len(addresses)], secret, datacenter); err == nil {
			begin := time.Now()
			err = t.carry(ctx, p, conn, conn.identity)
			return time.Since(begin) > streamLasts, err
		}
		if why := causeOf(err).Error(); why != l.why { // not at each attempt
			l.why = why
			t.log.Info("a peering's stream was not opened", "peering", p.Name, "err", printable(why, 300))
		}
		if refusedWith(err, refusedTerminated) || !timing.Rest(ctx, exchangePause/3) {
			return false, err
		}
		l.next++
	}
	return false, err
}
