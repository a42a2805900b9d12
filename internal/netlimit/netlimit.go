// Package netlimit limits the connections that the listeners of this process accept: in total, and per address those
// that have not presented a valid credential yet (strangers). It knows nothing of the protocol.
//
// A connection that has presented a valid credential (Proven) no longer counts against its address, because many
// machines may share one. At the limit the oldest stranger is closed in favour of the new connection, so strangers that
// hold connections open cannot lock out a caller with a credential, not even one at the same address.
package netlimit

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits are the maximum numbers of concurrent connections, and their maximum cost; 0 means no limit.
type Limits struct {
	All        int
	PerAddress int // strangers of one address (of one /64 with IPv6)
	Strangers  int // strangers of all addresses
	Bytes      int // cost of the strangers of one address in a second; see Charge
}

// spare is the number of connections accepted beyond All, only to be answered that there is no room.
const spare = 16

// Limiter counts the connections of one or more listeners.
type Limiter struct {
	limits Limits

	mu        sync.Mutex
	open      int
	strangers int
	addresses map[netip.Addr]*address

	refused atomic.Uint64
	evicted atomic.Uint64
	paced   atomic.Uint64
	paces   paces
	starved starvation
}

// address counts the open connections of one address.
type address struct {
	open           int
	strangers      int
	oldest, newest *Conn // of the strangers, linked by their next
}

// New returns a limiter.
func New(limits Limits) *Limiter {
	return &Limiter{limits: limits, addresses: map[netip.Addr]*address{},
		paces: newPaces(limits.Bytes)}
}

// Open returns how many connections are open.
func (l *Limiter) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Refused returns how many connections were rejected since the start.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// Evicted returns how many connections were closed to make room for others since the start.
func (l *Limiter) Evicted() uint64 { return l.evicted.Load() }

// Listener wraps a listener so that its connections count. Its Accept returns a *Conn.
func (l *Limiter) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, limiter: l}
}

type listener struct {
	net.Listener
	limiter *Limiter
}

// Accept waits for the next connection for which there is room, and closes the others.
func (l *listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		l.limiter.starved.note(time.Now(), err)
		if err != nil {
			return nil, err
		}
		if c := l.limiter.Admit(inner); c != nil {
			return c, nil
		}
		_ = inner.Close()
	}
}

// Conn is a connection that counts until it is closed.
type Conn struct {
	net.Conn
	limiter    *Limiter
	from       netip.Addr
	overfull   bool
	proven     atomic.Pointer[string] // identity; nil for a stranger
	closed     atomic.Bool
	prev, next *Conn // strangers of the same address, the oldest first

	pace  *pace         // of its address; nil without a limit
	begun atomic.Bool   // the first bytes were read
	cost  atomic.Int64  // bytes
	due   atomic.Int64  // when the cost is paid, by paces.clock; 0 without cost
	wake  chan struct{} // ends that wait
	over  atomic.Bool   // its read deadline has passed
}

// Admit counts a connection that was accepted elsewhere. It returns nil when there is no room.
func (l *Limiter) Admit(inner net.Conn) *Conn {
	c := &Conn{Conn: inner, limiter: l, from: Group(inner.RemoteAddr())}
	var victims []*Conn
	l.mu.Lock()
	a := l.addresses[c.from]
	if l.limits.PerAddress > 0 && a != nil && a.strangers >= l.limits.PerAddress {
		victims = append(victims, l.forget(a))
	}
	if l.limits.All > 0 && l.open >= l.limits.All || l.limits.Strangers > 0 && l.strangers >= l.limits.Strangers {
		if a := l.crowded(); a != nil {
			victims = append(victims, l.forget(a))
		}
	}
	taken := l.limits.All == 0 || l.open < l.limits.All+spare
	if taken {
		c.overfull = l.limits.All > 0 && l.open >= l.limits.All
		l.count(c)
	}
	l.mu.Unlock()
	for _, v := range victims {
		l.evicted.Add(1)
		_ = v.Conn.Close()
		v.rouse()
	}
	if !taken {
		l.refused.Add(1)
		return nil
	}
	if c.overfull {
		l.refused.Add(1)
	}
	if l.limits.Bytes > 0 {
		c.pace, c.wake = l.paces.of(c.from), make(chan struct{}, 1)
		c.Charge(costOfConnection)
	}
	return c
}

// count adds a stranger. The caller holds the lock.
func (l *Limiter) count(c *Conn) {
	a := l.addresses[c.from]
	if a == nil {
		a = &address{}
		l.addresses[c.from] = a
	}
	l.open++
	a.open++
	l.link(a, c)
}

// link adds a connection to the strangers of its address, as the newest. The caller holds the lock.
func (l *Limiter) link(a *address, c *Conn) {
	l.strangers++
	a.strangers++
	if c.prev = a.newest; c.prev != nil {
		c.prev.next = c
	} else {
		a.oldest = c
	}
	a.newest = c
}

// crowded returns the address with the most strangers, or nil without strangers.
func (l *Limiter) crowded() (most *address) {
	for _, a := range l.addresses {
		if a.strangers > 0 && (most == nil || a.strangers > most.strangers) {
			most = a
		}
	}
	return most
}

// forget removes the oldest stranger of an address from the count and returns it. The caller closes it.
func (l *Limiter) forget(a *address) *Conn {
	c := a.oldest
	c.closed.Store(true)
	l.discount(c)
	return c
}

func (l *Limiter) discount(c *Conn) {
	a := l.addresses[c.from]
	l.unlink(a, c)
	l.open--
	if a.open--; a.open == 0 {
		delete(l.addresses, c.from)
	}
}

// unlink removes a connection from the strangers of its address, if it is among them.
func (l *Limiter) unlink(a *address, c *Conn) {
	if c.prev == nil && a.oldest != c {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		a.oldest = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		a.newest = c.prev
	}
	c.prev, c.next = nil, nil
	a.strangers--
	l.strangers--
}

// Overfull reports that there is no room for this connection: answer it with an error and close it.
func (c *Conn) Overfull() bool { return c.overfull }

// ProvenBy returns the identity of the first valid credential presented, or "".
func (c *Conn) ProvenBy() string {
	if by := c.proven.Load(); by != nil {
		return *by
	}
	return ""
}

// Proven records that a valid credential of the given identity was presented on this connection. Only the first call
// counts.
func (c *Conn) Proven(by string) {
	if c.proven.Load() != nil {
		return
	}
	l := c.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.proven.CompareAndSwap(nil, &by) {
		return
	}
	if !c.closed.Load() {
		l.unlink(l.addresses[c.from], c)
	}
	c.rouse()
}

// Disproven records that the credential is no longer valid: the connection is a stranger's again.
func (c *Conn) Disproven() {
	l := c.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.proven.Swap(nil) != nil && !c.closed.Load() {
		l.link(l.addresses[c.from], c)
	}
}

// Close closes the connection, which then no longer counts.
func (c *Conn) Close() error {
	l := c.limiter
	l.mu.Lock()
	if !c.closed.Swap(true) {
		l.discount(c)
	}
	l.mu.Unlock()
	err := c.Conn.Close()
	c.rouse()
	return err
}

// SyscallConn gives access to the socket, for its options.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, syscall.EINVAL
}

// Of returns the counted connection below a connection that may be wrapped, such as one of TLS, or nil.
func Of(conn net.Conn) *Conn {
	for conn != nil {
		if c, ok := conn.(*Conn); ok {
			return c
		}
		w, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = w.NetConn()
	}
	return nil
}

// Group returns what counts as one address: the IPv4 address, or the /64 of an IPv6 address.
func Group(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return GroupOf(t.AddrPort().Addr())
	}
	if a != nil {
		if p, err := netip.ParseAddrPort(a.String()); err == nil {
			return GroupOf(p.Addr())
		}
	}
	return netip.Addr{}
}

// GroupOf is Group for an address.
func GroupOf(ip netip.Addr) netip.Addr {
	if ip = ip.Unmap().WithZone(""); ip.Is4() || !ip.IsValid() {
		return ip
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ip
	}
	return p.Addr()
}
