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
	probation         = rate.Limit(10) // a second: what an address that fails too often may still try
	probationBurst    = 20
	logLinesPerSec    = 1 // about strangers
	logLinesBurst     = 20
)

// Strangers remembers from where connections to the cluster listener have failed: handshakes that came to nothing,
// wrong secrets of peerings. An address that fails too often is let in at a trickle only, unless a member or a peer has
// shown its credential from there: many machines may share an address, and a stranger among them must not keep them
// out.
type Strangers struct {
	mu      sync.Mutex
	failing map[netip.Addr]*failing
	members map[netip.Addr]time.Time // from where they have last come
	peers   map[netip.Addr]time.Time

	failures atomic.Uint64 // since the start
	refused  atomic.Uint64 // connections that were hung up on
	quiet    *netlimit.QuietLog
}

type failing struct {
	failures *rate.Limiter
	door     *rate.Limiter // connections on probation
	peers    *rate.Limiter // and those of other clusters
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

// forget makes room for other failing addresses: those that have been quiet for a minute go, and some more if they
// must. It makes room for many, as it looks at all.
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

// Member and Peer note that a member, or another cluster, has shown its credential from an address.
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

// hangUp reports whether a connection is to be closed as soon as it is there.
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

// refusePeer reports whether a connection of another cluster is to be refused before the handshake.
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

// Log writes a line about strangers: so many, and counts the others.
func (s *Strangers) Log(level slog.Level, text string, args ...any) {
	s.quiet.Log(level, text, args...)
}
