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

// Limits bound the resources of callers on one member. A zero field means its default.
type Limits struct {
	Requests            int // concurrent requests at work
	StrangersPerAddress int // concurrent requests of one address (or /64) on connections without a valid credential
	Streams             int // concurrent requests on one HTTP/2 connection
	Blocking            int // concurrent blocking queries
	BlockingPerIdentity int
	Readers             int // streams of events at once
	ReadersPerIdentity  int
}

// DefaultLimits are far above the use of a cluster of thousands of members behind a few addresses.
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

// The reasons of a refusal, as labels of the metric.
const (
	refusedConnections = "connections"
	refusedRequests    = "requests"
	refusedStrangers   = "strangers"
	refusedBodies      = "bodies"
	refusedAnswers     = "answers"
	refusedBlocking    = "blocking"
	refusedReaders     = "readers"
	refusedCrossOrigin = "cross_origin"
	refusedFrames      = "frames" // HTTP/2 frames without requests
)

// awayPerAddress is how many answers that send requests of one address away may wait to be read at once.
const awayPerAddress = 64

// costOfRequest is the cost of a stranger's request in addition to its bytes, in netlimit's unit.
const costOfRequest = 512

// The memory for bodies, in bytes: of the strangers of one address, of one credential, and of all.
const (
	strangerBytes    = 8 << 20
	allStrangerBytes = 64 << 20
	knownBytes       = 16 << 20
	allKnownBytes    = 128 << 20
)

// rations bound the bytes held by each caller and by all together.
type rations struct {
	each, all int
	mu        sync.Mutex
	taken     int
	m         map[string]int
}

func newRations(each, all int) *rations { return &rations{each: each, all: all, m: map[string]int{}} }

// of returns the ration of one request of a caller.
func (x *rations) of(caller string) *ration { return &ration{rations: x, caller: caller} }

// ration is the share held by one request. Its methods accept nil, for a request that is not counted.
type ration struct {
	*rations
	caller string
	bytes  int
}

// take counts n more bytes of a body and reports whether they fit.
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

// rooms hold the requests of strangers, callers without a valid credential. Each address has one room.
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

// enter takes a place; it returns nil when the room of the address is full.
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

// open returns the number of requests of strangers.
func (x *rooms) open() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.m {
		n += r.open
	}
	return n
}

// stay is the place of one stranger's request. Its methods accept nil, for a known caller.
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

// shares counts the places of identities in a limited resource.
type shares struct {
	all, each int
	mu        sync.Mutex
	open      int
	m         map[string]int
}

func newShares(all, each int) *shares { return &shares{all: all, each: each, m: map[string]int{}} }

// take takes one place for an identity and returns the function that frees it; nil when the identity has its share or
// all places are taken.
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

// withConnection adds the counted connection of a request to its context.
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

// addressOf returns the address that a caller is counted by: the IPv4 address or the /64.
func addressOf(r *http.Request, o origin) netip.Addr {
	ip, err := netip.ParseAddr(remoteOf(r, o))
	if err != nil {
		return netip.Addr{}
	}
	return netlimit.GroupOf(ip)
}

// tooMany refuses a request because of a limit, in its family's envelope.
func (s *Server) tooMany(w http.ResponseWriter, f *Family, why, text string, after time.Duration) {
	s.sentAway.WithLabelValues(why).Inc()
	recorderOf(w).sentAway = true
	w.Header().Set("Retry-After", retryAfter(after))
	f.Fail(w, http.StatusServiceUnavailable, 0, text)
}

// The memory for answers of authenticated callers, in bytes, from the start of a request until its answer was read: of
// one credential, of one address (or /64), and of all. A request counts with answerCost and the largest piece of its
// answer.
const (
	knownAnswers   = 128 << 20
	addressAnswers = 192 << 20
	allAnswers     = 256 << 20
	answerCost     = 8 << 10
)

// unread counts what a request of an authenticated caller holds until its answer was read. Its methods accept nil, for
// a request that is not counted.
type unread struct {
	who, from ration
	largest   int
}

// unreadOf returns the count of a request of a caller.
func (s *Server) unreadOf(who, from string) *unread {
	return &unread{who: ration{rations: s.answersOf, caller: who}, from: ration{rations: s.answersTo, caller: from}}
}

// take counts n more bytes and reports whether there is room for them.
func (u *unread) take(n int) bool {
	if u == nil || n <= 0 {
		return true
	}
	return u.who.take(n) && u.from.take(n) // after a refusal giveBack returns what was taken
}

// hold counts a piece of an answer that is about to be sent.
func (u *unread) hold(n int) bool {
	if u == nil || n <= u.largest {
		return true
	}
	more := n - u.largest
	u.largest = n
	return u.take(more)
}

func (u *unread) giveBack() {
	if u != nil {
		u.who.giveBack()
		u.from.giveBack()
	}
}

const tooMuchUnread = "too much of what this caller, or its address, has asked for waits to be read; try again"

// replace sends a refusal instead of the answer to a read for which there is no room. What the handler still writes is
// dropped.
func (r *recorder) replace() {
	h := r.Header()
	for k := range h {
		h.Del(k)
	}
	r.family.headers(r)
	u := r.unread
	r.wrote, r.replaceable, r.unread = false, false, nil
	r.server.tooMany(r, r.family, refusedAnswers, tooMuchUnread, time.Second)
	r.unread, r.noRoom = u, true
}
