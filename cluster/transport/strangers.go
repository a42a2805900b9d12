package transport

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"muster/internal/netlimit"
)

const (
	failuresPerMinute = 120 // of one address on the cluster listener
	failingAddresses  = 10_000
	knownAddresses    = 10_000
	knownFor          = time.Hour
	probation         = rate.Limit(10) // connections a second of an address that fails too often
	probationBurst    = 20
	logLinesPerSec    = 1 // about strangers
	logLinesBurst     = 20
)

// Strangers counts failures of connections to the cluster listener by address: failed handshakes and wrong secrets of
// peerings. An address that fails too often gets few connections, unless a member or a peer has authenticated from
// there: many machines may share an address, and a stranger must not lock them out.
type Strangers struct {
	mu      sync.Mutex
	failing map[netip.Addr]*failing
	members map[netip.Addr]time.Time // when they last came from there
	peers   map[netip.Addr]time.Time

	failures atomic.Uint64 // since the start
	refused  atomic.Uint64 // connections closed unread
	quiet    *netlimit.QuietLog
}

type failing struct {
	failures *rate.Limiter
	door     *rate.Limiter // connections on probation
	peers    *rate.Limiter // those of other clusters
	last     time.Time
}

func newStrangers(log *slog.Logger) *Strangers {
	return &Strangers{failing: map[netip.Addr]*failing{}, members: map[netip.Addr]time.Time{},
		peers: map[netip.Addr]time.Time{},
		quiet: netlimit.NewQuietLog(log, logLinesPerSec, logLinesBurst)}
}

// Failed counts a failure of an address.
func (s *Strangers) Failed(from net.Addr, now time.Time) {
	s.failures.Add(1)
	addr := netlimit.Group(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failing[addr]
	if f == nil {
		if len(s.failing) >= failingAddresses {
			s.forget(now)
		}
		f = &failing{failures: rate.NewLimiter(rate.Every(time.Minute/failuresPerMinute), failuresPerMinute),
			door: rate.NewLimiter(probation, probationBurst), peers: rate.NewLimiter(probation, probationBurst)}
		s.failing[addr] = f
	}
	f.last = now
	f.failures.AllowN(now, 1)
}

// forget removes failing addresses that have been quiet for a minute, and more if necessary. It removes many at once,
// because it scans all of them.
func (s *Strangers) forget(now time.Time) {
	for a, f := range s.failing {
		if now.Sub(f.last) > time.Minute {
			delete(s.failing, a)
		}
	}
	for a := range s.failing {
		if len(s.failing) < failingAddresses*9/10 {
			return
		}
		delete(s.failing, a)
	}
}

// Member and Peer record that a member, or another cluster, has authenticated from an address.
func (s *Strangers) Member(from net.Addr, now time.Time) { s.know(s.members, from, now) }
func (s *Strangers) Peer(from net.Addr, now time.Time)   { s.know(s.peers, from, now) }

func (s *Strangers) know(list map[netip.Addr]time.Time, from net.Addr, now time.Time) {
	addr := netlimit.Group(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := list[addr]; !known && len(list) >= knownAddresses {
		for a, at := range list {
			if now.Sub(at) > knownFor {
				delete(list, a)
			}
		}
		for a := range list {
			if len(list) < knownAddresses*9/10 {
				break
			}
			delete(list, a)
		}
	}
	list[addr] = now
}

// hangUp reports whether a connection is to be closed at once.
func (s *Strangers) hangUp(from net.Addr, now time.Time) bool {
	addr := netlimit.Group(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tooMany(addr, now) || now.Sub(s.members[addr]) < knownFor || now.Sub(s.peers[addr]) < knownFor ||
		s.failing[addr].door.AllowN(now, 1) {
		return false
	}
	s.refused.Add(1)
	return true
}

// refusePeer reports whether a connection of another cluster is rejected before the handshake.
func (s *Strangers) refusePeer(from net.Addr, now time.Time) bool {
	addr := netlimit.Group(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tooMany(addr, now) || now.Sub(s.peers[addr]) < knownFor && s.failing[addr].peers.AllowN(now, 1) {
		return false
	}
	s.refused.Add(1)
	return true
}

func (s *Strangers) tooMany(addr netip.Addr, now time.Time) bool {
	f := s.failing[addr]
	return f != nil && f.failures.TokensAt(now) < 1
}

// Log writes a line about strangers, rate-limited.
func (s *Strangers) Log(level slog.Level, text string, args ...any) {
	s.quiet.Log(level, text, args...)
}
