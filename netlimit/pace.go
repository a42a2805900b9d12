package netlimit

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// What the connections of one address that have shown no valid credential make this process do is paced: they are read
// no faster than what they have cost allows. Costs are counted in bytes, since those can be counted of all that comes,
// whatever it means: one that is received stands for about 150 ns of work.
const (
	costOfConnection = 200  // to accept it
	costOfHandshake  = 2200 // besides what it sends; comes with the first bytes
	costOfRead       = 64   // a record and a call of the kernel
	sentPerByte      = 8    // bytes that are sent cost an eighth
	// freshBytes are what a connection may cost before it counts with those of its address that have cost more: a
	// newcomer waits for newcomers only, and they have more.
	freshBytes = 16 << 10
	forFresh   = 3           // times as much
	paceBurst  = time.Second // of work that an address may ask for at once
	pacedMost  = 10_000      // addresses that are remembered; the others share one pace
)

// paces are those of all addresses.
type paces struct {
	perSecond int       // bytes; 0 is no limit
	began     time.Time // what pace counts from, with a monotonic reading: the machine's clock may be set
	mu        sync.Mutex
	m         map[netip.Addr]*pace
	others    pace
}

// pace says how far the work that was asked for has come: when what was taken last is paid (see paces.clock).
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

// forget drops the addresses that owe nothing. The caller holds the lock.
func (x *paces) forget() {
	past := x.clock() - int64(paceBurst)
	for from, p := range x.m {
		if p.fresh.Load() < past && p.spent.Load() < past {
			delete(x.m, from)
		}
	}
}

// take adds to what is owed and returns when it is paid.
func take(at *atomic.Int64, now, cost int64) int64 {
	for {
		was := at.Load()
		then := max(was, now-int64(paceBurst)) + cost
		if at.CompareAndSwap(was, then) {
			return then
		}
	}
}

// Charge adds to what a connection has cost, in bytes. It counts for nothing once a valid credential was shown, and
// delays what is read next.
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

// await blocks until what the connection has cost is paid, its deadline for reading is over or it is closed.
func (c *Conn) await() {
	due := c.due.Load()
	if due == 0 || c.proven.Load() != nil {
		return
	}
	wait := time.Duration(due - c.limiter.paces.clock())
	if wait <= 0 {
		return
	}
	select { // what has ended an earlier wait does not end this one
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

// Read reads, and then waits for what the connection has cost: one that ends without a word keeps no other waiting.
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

// Write writes, and never waits for what the connection has cost.
func (c *Conn) Write(p []byte) (int, error) {
	c.Charge(len(p) / sentPerByte)
	return c.Conn.Write(p)
}

// SetDeadline ends a Read that waits when the deadline is over already, as its callers expect.
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

// Paced returns how often a connection has waited since the start.
func (l *Limiter) Paced() uint64 { return l.paced.Load() }
