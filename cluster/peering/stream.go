package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"muster/certs"
	"muster/internal/timing"
	"muster/store"
)

const (
	heartbeatEvery   = 15 * time.Second
	heartbeatTimeout = 120 * time.Second
	lastWords        = 500 * time.Millisecond

	importRest       = 250 * time.Millisecond // between two lists: a peer must not keep this cluster's log busy
	maxPeerMembers   = 20_000
	maxPeerAddresses = 64
	maxPeerRoots     = 16
	maxPeerRoot      = 8 << 10
)

// Ends of a stream that are not failures.
var (
	errMoved      = errors.New("the other side's leadership moves")
	errTerminated = errors.New("the other side has deleted the peering")
	errDeleted    = errors.New("the peering was deleted here")
	errReplaced   = errors.New("a newer stream has taken its place")
)

// stream is a connection to another cluster that carries a peering.
type stream struct {
	*term
	id, name string // of the peering

	serverName string // of the acceptor, on a dialer's side
	meta       map[string]string
	dialer     bool
	conn       *peerConn
	status     *streamStatus
	cancel     context.CancelCauseFunc

	heard    atomic.Pointer[time.Time] // when the last message came
	beat     atomic.Pointer[time.Time] // when the last heartbeat came
	pings    chan struct{}
	imports  chan []store.PeerMember // the newest complete list, not applied yet
	pending  []store.PeerMember      // of an incomplete list
	size     int                     // of pending, in bytes
	frames   *rate.Limiter           // messages read
	bytes    *rate.Limiter
	sequence uint64
	identity atomic.Bool   // the other side understands identityFrame
	tells    chan struct{} // wakes speak when identity becomes true
}

// run carries the stream until it ends and returns why. When ctx ends, its cause decides what the other side is told.
func (s *stream) run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	s.frames, s.bytes = rate.NewLimiter(framesPerSec, frameBurst), rate.NewLimiter(streamPerSec, streamBurst)
	s.pings, s.imports = make(chan struct{}, 1), make(chan []store.PeerMember, 1)
	now := time.Now()
	s.heard.Store(&now)
	s.beat.Store(&now)
	failed := make(chan error, 1)
	// A write in progress must not delay the end of the stream.
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetWriteDeadline(time.Now().Add(lastWords)) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { failed <- s.listen(ctx) })
	wg.Go(func() { s.importAll(ctx) })
	err := s.speak(ctx, failed)
	end(err)
	s.conn.Close()
	wg.Wait()
	return err
}

// speak is the writing half. It sends one message at a time, so that a heartbeat never waits behind a long list.
func (s *stream) speak(ctx context.Context, failed <-chan error) error {
	var queue []frame
	var sent exported
	var asked time.Time // when the unanswered ping was sent
	nextBeat := time.Now()
	x, changed := s.export.now()
	queue = s.news(&sent, x, queue)
	for {
		now := time.Now()
		heard := *s.heard.Load()
		if heard.After(asked) {
			asked = time.Time{}
		}
		var err error
		switch {
		case !now.Before(nextBeat):
			nextBeat = now.Add(heartbeatEvery)
			err = s.conn.write(frame{Heartbeat: &struct{}{}}, frameTimeout)
		case now.Sub(*s.beat.Load()) > heartbeatTimeout:
			return errors.New("heartbeat timeout")
		case asked.IsZero() && now.Sub(heard) >= s.ping:
			asked = now
			err = s.conn.write(frame{Ping: &struct{}{}}, frameTimeout)
		case !asked.IsZero() && now.Sub(asked) >= s.ping/3:
			return fmt.Errorf("the other side has been silent for %v", now.Sub(heard).Round(100*time.Millisecond))
		case len(queue) > 0:
			err = s.conn.write(queue[0], frameTimeout)
			queue = queue[1:]
			s.status.sent()
		}
		if err != nil {
			return err
		}
		wait := time.Until(s.nextTurn(nextBeat, heard, asked))
		if len(queue) > 0 {
			wait = 0
		}
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			s.sayWhy(context.Cause(ctx))
			err = context.Cause(ctx)
		case err = <-failed:
		case <-s.pings:
			err = s.conn.write(frame{Pong: &struct{}{}}, frameTimeout)
		case <-changed:
			x, changed = s.export.now()
			queue = s.news(&sent, x, queue)
		case <-s.tells:
			queue = s.news(&sent, x, queue)
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// nextTurn returns when the next heartbeat, ping or timeout is due.
func (s *stream) nextTurn(beat, heard, asked time.Time) time.Time {
	if asked.IsZero() {
		return timing.Earlier(beat, heard.Add(s.ping))
	}
	return timing.Earlier(beat, asked.Add(s.ping/3))
}

func (s *stream) sayWhy(cause error) {
	last := frame{Moved: &struct{}{}}
	switch cause {
	case errReplaced:
		return
	case errDeleted:
		last = frame{Terminated: &struct{}{}}
	}
	_ = s.conn.write(last, lastWords)
}

// news appends the messages that the other side lacks.
func (s *stream) news(sent *exported, x exported, queue []frame) []frame {
	if x.sequence == 0 {
		return queue // nothing is exported yet
	}
	if !slices.Equal(sent.roots, x.roots) && len(x.roots) > 0 {
		queue = append(queue, frame{Trust: &trustFrame{Sequence: x.sequence, PEMs: x.roots}})
	}
	if s.identity.Load() && x.bundle != "" && sent.bundle != x.bundle {
		queue = append(queue, frame{Identity: &identityFrame{x.domain, x.bundle}})
	}
	if !s.dialer && !slices.Equal(sent.addresses, x.addresses) && len(x.addresses) > 0 {
		queue = append(queue, frame{Addresses: &addressesFrame{x.addresses}})
	}
	list := x.membersFor(s.name, s.meta)
	if sent.sequence == 0 || !slices.Equal(sent.list, list) {
		queue = slices.DeleteFunc(queue, func(f frame) bool { return f.Members != nil })
		for first := true; first || len(list) > 0; first = false {
			n := min(len(list), membersPerFrame)
			queue = append(queue, frame{Members: &membersFrame{First: first, Last: n == len(list), List: list[:n]}})
			list = list[n:]
		}
	}
	*sent = x
	if !s.identity.Load() {
		sent.bundle = ""
	}
	sent.list = x.membersFor(s.name, s.meta)
	s.status.exports(sent.list)
	return queue
}

// listen is the reading half.
func (s *stream) listen(ctx context.Context) error {
	for {
		f, n, err := s.conn.readSized()
		if err != nil {
			return err
		}
		// A peer that sends too much is read slowly: decoding costs more than sending.
		if err := errors.Join(s.frames.WaitN(ctx, 1), s.bytes.WaitN(ctx, n)); err != nil {
			return err
		}
		now := time.Now()
		s.heard.Store(&now)
		if ctx.Err() != nil { // another stream has replaced it
			return context.Cause(ctx)
		}
		if err := s.take(ctx, f); err != nil {
			return err
		}
	}
}

func (s *stream) take(ctx context.Context, f *frame) error {
	switch {
	case f.Heartbeat != nil:
		now := time.Now()
		s.beat.Store(&now)
		s.status.heartbeat()
		return nil
	case f.Ping != nil:
		select {
		case s.pings <- struct{}{}:
		default:
		}
		return nil
	case f.Pong != nil:
		return nil
	case f.Moved != nil:
		return errMoved
	case f.Terminated != nil:
		if err := s.store.Peerings.Terminate(ctx, actor, s.id); err != nil {
			return err
		}
		return errTerminated
	case f.Trust != nil:
		if err := checkRoots(f.Trust.PEMs); err != nil {
			return err
		}
		if f.Trust.Sequence <= s.sequence {
			return nil // older than the present one
		}
		s.sequence = f.Trust.Sequence
		s.status.received()
		s.note(s.id, func(n *store.PeerNews) { n.Roots = f.Trust.PEMs })
		return nil
	case f.Addresses != nil && s.dialer:
		if err := checkAddresses(f.Addresses.List); err != nil {
			return err
		}
		s.status.received()
		s.note(s.id, func(n *store.PeerNews) { n.Addresses = f.Addresses.List })
		return nil
	case f.Identity != nil:
		return s.takeIdentity(f.Identity)
	case f.Members != nil:
		s.status.received()
		return s.gather(f.Members)
	}
	return errors.New("the peer sends a message that is not allowed on a stream")
}

// takeIdentity records the trust bundle of the other cluster's software. Its trust domain is its cluster id, which a
// dialer knows from the server name that the acceptor has proven.
func (s *stream) takeIdentity(f *identityFrame) error {
	if _, err := certs.ParseBundle(f.TrustDomain, []byte(f.Bundle)); err != nil {
		return fmt.Errorf("the peer announces identities that cannot be used: %w", err)
	}
	s.status.received()
	if !s.identity.Swap(true) {
		select {
		case s.tells <- struct{}{}:
		default:
		}
	}
	if f.TrustDomain == s.net.ClusterID() ||
		s.dialer && !strings.HasSuffix(s.serverName, ".peering."+f.TrustDomain+".consul") {
		s.log.Warn("the trust bundle of a peer is left out: the trust domain is not its own", "peering", s.name,
			"trustDomain", f.TrustDomain)
		return nil
	}
	s.note(s.id, func(n *store.PeerNews) { n.Bundle = &store.PeerBundle{TrustDomain: f.TrustDomain, Bundle: f.Bundle} })
	return nil
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}
