package handlers

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"muster/internal/netlimit"
)

// Limits bound what callers can hold on one member. A zero field stands for its default.
type Limits struct {
	Requests            int // requests in work at once
	StrangersPerAddress int // requests at once of one address (or /64) whose connections have shown no valid credential
	Streams             int // concurrent requests on one HTTP/2 connection
	Blocking            int // blocking queries at once
	BlockingPerIdentity int
	Readers             int // streams of events at once
	ReadersPerIdentity  int
}

// DefaultLimits are far above what a cluster of thousands of members behind a few addresses uses.
var DefaultLimits = Limits{
	Requests:            4096,
	StrangersPerAddress: 1024,
	Streams:             64,
	Blocking:            4096,
	BlockingPerIdentity: 3072,
	Readers:             4000,
	ReadersPerIdentity:  3000,
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits
	for _, x := range []struct{ have, otherwise *int }{{&l.Requests, &d.Requests},
		{&l.StrangersPerAddress, &d.StrangersPerAddress},
		{&l.Streams, &d.Streams}, {&l.Blocking, &d.Blocking}, {&l.BlockingPerIdentity, &d.BlockingPerIdentity},
		{&l.Readers, &d.Readers}, {&l.ReadersPerIdentity, &d.ReadersPerIdentity}} {
		if *x.have <= 0 {
			*x.have = *x.otherwise
		}
	}
	return l
}

// Why a request is sent away, as the metric has it.
const (
	refusedConnections = "connections"
	refusedRequests    = "requests"
	refusedStrangers   = "strangers"
	refusedBodies      = "bodies"
	refusedBlocking    = "blocking"
	refusedReaders     = "readers"
	refusedCrossOrigin = "cross_origin"
	refusedFrames      = "frames" // of HTTP/2 that are no requests
)

// costOfRequest is what a request of a stranger costs besides its bytes, as netlimit counts it.
const costOfRequest = 512

// How much of the bodies of their requests callers may have in memory together: the strangers of one address, and who
// shows one credential.
const (
	strangerBytes    = 8 << 20
	allStrangerBytes = 64 << 20
	knownBytes       = 16 << 20
	allKnownBytes    = 128 << 20
)

// rations bound the bytes that callers hold, each of them and all together.
type rations struct {
	each, all int
	mu        sync.Mutex
	taken     int
	m         map[string]int
}

func newRations(each, all int) *rations { return &rations{each: each, all: all, m: map[string]int{}} }

// of returns what a request of a caller takes from.
func (x *rations) of(caller string) *ration { return &ration{rations: x, caller: caller} }

// ration is what one request holds. Its methods take nil for a request that nothing is counted for.
type ration struct {
	*rations
	caller string
	bytes  int
}

// take counts n more bytes of a body and reports whether there is room for them.
func (r *ration) take(n int) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[r.caller]+n > r.each || r.taken+n > r.all {
		return false
	}
	r.m[r.caller] += n
	r.taken += n
	r.bytes += n
	return true
}

func (r *ration) giveBack() {
	if r == nil || r.bytes == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= r.bytes
	if r.m[r.caller] -= r.bytes; r.m[r.caller] == 0 {
		delete(r.m, r.caller)
	}
	r.bytes = 0
}

// rooms hold the requests of strangers: those whose caller has not shown who it is. Each address has one room.
type rooms struct {
	limit int
	mu    sync.Mutex
	m     map[netip.Addr]*room
}

type room struct {
	rooms *rooms
	from  netip.Addr
	open  int
}

func newRooms(limit int) *rooms { return &rooms{limit: limit, m: map[netip.Addr]*room{}} }

// enter takes a place; nil when the room of the address is full.
func (x *rooms) enter(from netip.Addr) *stay {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.m[from]
	if r == nil {
		r = &room{rooms: x, from: from}
		x.m[from] = r
	}
	if r.open >= x.limit {
		return nil
	}
	r.open++
	return &stay{room: r}
}

// open returns how many requests of strangers there are.
func (x *rooms) open() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.m {
		n += r.open
	}
	return n
}

// stay is what one request of a stranger holds. Its methods take nil for a caller that is known.
type stay struct{ room *room }

func (p *stay) leave() {
	if p == nil {
		return
	}
	x := p.room.rooms
	x.mu.Lock()
	defer x.mu.Unlock()
	if p.room.open--; p.room.open == 0 {
		delete(x.m, p.room.from)
	}
}

// shares counts what identities hold of something that there is a limited number of.
type shares struct {
	all, each int
	mu        sync.Mutex
	open      int
	m         map[string]int
}

func newShares(all, each int) *shares { return &shares{all: all, each: each, m: map[string]int{}} }

// take takes one for an identity and returns how to give it back; nil when it has its share or all are taken.
func (x *shares) take(identity string) (giveBack func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.open >= x.all || x.m[identity] >= x.each {
		return nil
	}
	x.open++
	x.m[identity]++
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.open--
		if x.m[identity]--; x.m[identity] == 0 {
			delete(x.m, identity)
		}
	}
}

func (x *shares) taken() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.open
}

type connKey struct{}

// withConnection lets handlers find the counted connection that a request came over.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if counted := netlimit.Of(c); counted != nil {
		return context.WithValue(ctx, connKey{}, counted)
	}
	return ctx
}

func connectionOf(ctx context.Context) *netlimit.Conn {
	c, _ := ctx.Value(connKey{}).(*netlimit.Conn)
	return c
}

// addressOf is what counts as the address of a caller: the IPv4 address or the /64.
func addressOf(r *http.Request, o origin) netip.Addr {
	ip, err := netip.ParseAddr(remoteOf(r, o))
	if err != nil {
		return netip.Addr{}
	}
	return netlimit.GroupOf(ip)
}

// tooMany is the refusal of a request for which there is no room, in its family's envelope.
func (s *Server) tooMany(w http.ResponseWriter, f *Family, why, text string, after time.Duration) {
	s.sentAway.WithLabelValues(why).Inc()
	recorderOf(w).sentAway = true
	w.Header().Set("Retry-After", retryAfter(after))
	f.Fail(w, http.StatusServiceUnavailable, 0, text)
}
