package netlimit

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The work that strangers of one address cause is paced: their connections are read no faster than their cost allows.
// Cost is counted in bytes, because those can be counted whatever they mean: a received byte stands for about 150 ns of
// work.
const (
	costOfConnection = 200  // to accept a connection
	costOfHandshake  = 2200 // besides its bytes; charged with the first bytes
	costOfRead       = 64   // a TLS record and a system call
	sentPerByte      = 8    // a sent byte costs an eighth
	// freshBytes is what a connection may cost before it shares the pace of the older connections of its address.
	// Newcomers share a faster pace of their own.
	freshBytes = 16 << 10
	forFresh   = 3           // factor of that pace
	paceBurst  = time.Second // of work that an address may cause at once
	pacedMost  = 10_000      // known addresses; all others share one pace
)

// paces are the paces of all addresses.
type paces struct {
	perSecond int       // bytes; 0 is no limit
	began     time.Time // origin of clock, with a monotonic reading, because clocks are set
	mu        sync.Mutex
	m         map[netip.Addr]*pace
	others    pace
}

// pace is when the work caused so far is paid (see paces.clock).
type pace struct{ fresh, spent atomic.Int64 }

func newPaces(perSecond int) paces {
	return paces{perSecond: perSecond, began: time.Now().Add(-paceBurst), m: map[netip.Addr]*pace{}}
}

// clock returns the nanoseconds since the beginning.
func (x *paces) clock() int64 { return int64(time.Since(x.began)) }

func (x *paces) of(from netip.Addr) *pace {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.m[from]
	if p == nil {
		if len(x.m) >= pacedMost {
			x.forget()
		}
		if len(x.m) >= pacedMost {
			return &x.others
		}
		p = &pace{}
		x.m[from] = p
	}
	return p
}

// forget removes the addresses without unpaid cost. The caller holds the lock.
func (x *paces) forget() {
	past := x.clock() - int64(paceBurst)
	for from, p := range x.m {
		if p.fresh.Load() < past && p.spent.Load() < past {
			delete(x.m, from)
		}
	}
}

// take adds a cost and returns when it is paid.
func take(at *atomic.Int64, now, cost int64) int64 {
	for {
		was := at.Load()
		then := max(was, now-int64(paceBurst)) + cost
		if at.CompareAndSwap(was, then) {
			return then
		}
	}
}

// Charge adds to the cost of a connection, in bytes, and so delays its next read. It does nothing after a valid
// credential.
func (c *Conn) Charge(bytes int) {
	if c.pace == nil || c.proven.Load() != nil {
		return
	}
	at, cost := &c.pace.spent, int64(bytes)*int64(time.Second)/int64(c.limiter.paces.perSecond)
	if c.cost.Add(int64(bytes)) <= freshBytes {
		at, cost = &c.pace.fresh, cost/forFresh
	}
	c.due.Store(take(at, c.limiter.paces.clock(), cost))
}

// await blocks until the cost of the connection is paid, its read deadline passes or it is closed.
func (c *Conn) await() {
	due := c.due.Load()
	if due == 0 || c.proven.Load() != nil {
		return
	}
	wait := time.Duration(due - c.limiter.paces.clock())
	if wait <= 0 {
		return
	}
	select { // a wake-up of an earlier wait must not end this one
	case <-c.wake:
	default:
	}
	if c.over.Load() || c.closed.Load() {
		return
	}
	c.limiter.paced.Add(1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.wake:
	}
}

// Read reads, and then waits until the cost is paid: a connection that ends without sending delays no other.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		cost := costOfRead + n
		if !c.begun.Swap(true) {
			cost += costOfHandshake
		}
		c.Charge(cost)
		c.await()
	}
	return n, err
}

// Write writes. It never waits for the cost.
func (c *Conn) Write(p []byte) (int, error) {
	c.Charge(len(p) / sentPerByte)
	return c.Conn.Write(p)
}

// SetDeadline ends a waiting Read if the deadline has passed, as its callers expect.
func (c *Conn) SetDeadline(t time.Time) error {
	err := c.Conn.SetDeadline(t)
	c.wakeAfter(t)
	return err
}

// SetReadDeadline is SetDeadline for reading.
func (c *Conn) SetReadDeadline(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	c.wakeAfter(t)
	return err
}

func (c *Conn) wakeAfter(t time.Time) {
	if c.pace == nil {
		return
	}
	over := !t.IsZero() && !t.After(time.Now())
	if c.over.Store(over); over {
		c.rouse()
	}
}

// rouse ends the wait of a Read, or of the next one.
func (c *Conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Paced returns how many times connections have waited since the start.
func (l *Limiter) Paced() uint64 { return l.paced.Load() }
