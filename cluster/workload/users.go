package workload

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"muster/store"
)

// Limits of the users of a machine on the socket.
const (
	maxConnections  = 1024
	userConnections = 128
	userStreams     = 256
	userPerSecond   = 1000 // requests and connections
	userBurst       = 2000
	idleFor         = time.Minute
	manyUsers       = 1024 // known at once before idle ones are removed
	maxUsers        = 4096
	sweepEvery      = time.Second

	refusedEvery = time.Minute // between two audit rows of one user
	maxRefused   = 32          // users with a row in a minute
)

// users limits what each user uses.
type users struct {
	mu     sync.Mutex
	all    map[uint32]*userUse
	swept  time.Time // when idle ones were last removed
	open   int
	refuse refusals

	turnedAway atomic.Uint64 // connections and requests beyond the limits
}

// userUse is the present use of one user.
type userUse struct {
	connections, streams int
	limit                *rate.Limiter
	last                 time.Time
}

func newUsers() *users {
	return &users{all: map[uint32]*userUse{}, refuse: refusals{known: map[uint32]*refused{}, wake: make(chan struct{}, 1)}}
}

func (us *users) of(uid uint32, now time.Time) *userUse {
	u := us.all[uid]
	if u == nil {
		if len(us.all) >= manyUsers && now.Sub(us.swept) > sweepEvery {
			us.swept = now
			for id, other := range us.all {
				if other.connections == 0 && other.streams == 0 && now.Sub(other.last) > idleFor {
					delete(us.all, id)
				}
			}
		}
		u = &userUse{limit: rate.NewLimiter(userPerSecond, userBurst)}
		us.all[uid] = u
	}
	u.last = now
	return u
}

// connect counts a connection and reports whether it is within the limits.
func (us *users) connect(uid uint32) bool {
	us.mu.Lock()
	defer us.mu.Unlock()
	now := time.Now()
	if us.all[uid] == nil && len(us.all) >= maxUsers {
		us.turnedAway.Add(1)
		return false
	}
	u := us.of(uid, now)
	if us.open >= maxConnections || u.connections >= userConnections || !u.limit.AllowN(now, 1) {
		us.turnedAway.Add(1)
		return false
	}
	us.open++
	u.connections++
	return true
}

func (us *users) disconnect(uid uint32) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.open--
	us.of(uid, time.Now()).connections--
}

// request counts a request until free is called; ok is false when the user has too many.
func (us *users) request(uid uint32) (free func(), ok bool) {
	us.mu.Lock()
	defer us.mu.Unlock()
	now := time.Now()
	u := us.of(uid, now)
	if u.streams >= userStreams || !u.limit.AllowN(now, 1) {
		us.turnedAway.Add(1)
		return nil, false
	}
	u.streams++
	return func() {
		us.mu.Lock()
		defer us.mu.Unlock()
		us.of(uid, time.Now()).streams--
	}, true
}

// figures returns the present numbers of connections and requests.
func (us *users) figures() (connections, streams int) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.all {
		streams += u.streams
	}
	return us.open, streams
}

// refusals counts callers without an identity for the audit, with at most one row a minute for each user.
type refusals struct {
	mu    sync.Mutex
	known map[uint32]*refused
	wake  chan struct{}
	total atomic.Uint64
}

type refused struct {
	store.RefusedCaller
	noted time.Time // when its last row was written
}

// note counts a rejected caller.
func (r *refusals) note(c *caller, now time.Time) {
	r.total.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.known[c.uid]
	if x == nil {
		for uid, old := range r.known {
			if old.Count == 0 && now.Sub(old.noted) > refusedEvery {
				delete(r.known, uid)
			}
		}
		if len(r.known) >= maxRefused {
			return // only the metric counts it
		}
		x = &refused{RefusedCaller: store.RefusedCaller{UID: c.uid}}
		r.known[c.uid] = x
	}
	x.GID, x.Unit = c.gid, c.unit()
	x.Count++
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// due returns the rows to write now, and when the next one is due; zero for never.
func (r *refusals) due(now time.Time) (list []store.RefusedCaller, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.known {
		switch at := x.noted.Add(refusedEvery); {
		case x.Count == 0:
		case !now.Before(at):
			list = append(list, x.RefusedCaller)
			x.Count, x.noted = 0, now
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return list, next
}
