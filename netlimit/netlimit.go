// Package netlimit bounds the connections that the listeners of this process take: all together, and those of one
// address that have not shown a valid credential yet. It knows nothing of what is spoken on them.
//
// A connection that has shown who it is (Proven) no longer counts against its address: many machines may share one.
// When there is no room, the oldest connection that has shown nothing gives way to the new one, so that a stranger
// who holds connections never keeps a caller with a credential out, also not one at the same address.
package netlimit

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits are the most connections at once, and what they may cost; 0 is no limit.
type Limits struct {
	All        int
	PerAddress int // of one address (of one /64 with IPv6) that have shown no valid credential
	Strangers  int // of all addresses, that have shown no valid credential
	Bytes      int // a second, that those of one address that have shown none may cost; see Charge
}

// spare is how many connections beyond All are taken, to be told that there is no room.
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

// address is what one address has open.
type address struct {
	open           int
	strangers      int
	oldest, newest *Conn // of the strangers, linked by their next
}

// New makes a limiter.
func New(limits Limits) *Limiter {
	return &Limiter{limits: limits, addresses: map[netip.Addr]*address{},
		paces: paces{perSecond: limits.Bytes, m: map[netip.Addr]*pace{}}}
}

// Open returns how many connections are open.
func (l *Limiter) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Refused returns how many connections were not taken since the start.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// Evicted returns how many connections were closed since the start to make room for others.
func (l *Limiter) Evicted() uint64 { return l.evicted.Load() }

// Listener returns a listener whose connections count. Each one that Accept returns is a *Conn.
func (l *Limiter) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, limiter: l}
}

type listener struct {
	net.Listener
	limiter *Limiter
}

// Accept waits for the next connection for which there is room, and closes those for which there is none.
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
	proven     atomic.Pointer[string] // by whom
	closed     atomic.Bool
	prev, next *Conn // strangers of the same address, the oldest first

	pace *pace         // of its address; nil: there is no limit
	cost atomic.Int64  // bytes
	due  atomic.Int64  // when it is paid, unix time in ns; 0: it has cost nothing
	wake chan struct{} // ends the wait for that
	over atomic.Bool   // its deadline for reading is
}

// Admit counts a connection that was accepted elsewhere; nil when there is no room for it.
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
		c.pace, c.wake = l.paces.of(c.from, time.Now()), make(chan struct{}, 1)
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

// crowded returns the address with the most strangers; nil when there is none at all.
func (l *Limiter) crowded() (most *address) {
	for _, a := range l.addresses {
		if a.strangers > 0 && (most == nil || a.strangers > most.strangers) {
			most = a
		}
	}
	return most
}

// forget removes the oldest stranger of an address and returns it; the caller closes it.
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

// unlink removes a connection from the strangers of its address, if it is one.
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

// Overfull reports that there is no room for this connection: it is to be told so and closed.
func (c *Conn) Overfull() bool { return c.overfull }

// ProvenBy returns who has shown a valid credential first; "" while nobody has.
func (c *Conn) ProvenBy() string {
	if by := c.proven.Load(); by != nil {
		return *by
	}
	return ""
}

// Proven says whose valid credential was shown on this connection. The first counts; it may be called any number of
// times.
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

// Disproven says that the credential is good no more: the connection is a stranger's again.
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
