package netlimit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// fakeConn is a connection from an address; it remembers whether it was closed.
type fakeConn struct {
	net.Conn
	from   netip.AddrPort
	mu     sync.Mutex
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *fakeConn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func from(ip string) *fakeConn {
	return &fakeConn{from: netip.AddrPortFrom(netip.MustParseAddr(ip), 4000)}
}

// A new connection of an address that has its share takes the place of that address's oldest stranger; who has shown a
// credential keeps its own, and other addresses are not touched.
func TestOldestStrangerGivesWay(t *testing.T) {
	l := New(Limits{PerAddress: 3})
	other := from("192.0.2.9")
	l.Admit(other)
	var inner []*fakeConn
	var conns []*Conn
	for i := range 6 {
		c := from("192.0.2.1")
		inner, conns = append(inner, c), append(conns, l.Admit(c))
		if i == 0 {
			conns[0].Proven("x")
			conns[0].Proven("x")
		}
	}
	for i, want := range []bool{false, true, true, false, false, false} {
		if inner[i].ended() != want {
			t.Errorf("connection %d: closed %v", i, !want)
		}
	}
	if other.ended() || l.Open() != 5 || l.Evicted() != 2 || l.Refused() != 0 {
		t.Errorf("%d open, %d evicted, %d refused", l.Open(), l.Evicted(), l.Refused())
	}
	for _, c := range conns { // also those that were closed already
		_ = c.Close()
		_ = c.Close()
		c.Proven("x")
	}
	if l.Open() != 1 || len(l.addresses) != 1 {
		t.Errorf("%d open of %d addresses at the end", l.Open(), len(l.addresses))
	}
}

// When there are as many connections as there may be, the address with the most strangers gives one up. When there are
// no strangers, a few are taken to be told so, and the rest is closed.
func TestAllConnections(t *testing.T) {
	l := New(Limits{All: 8, PerAddress: 100})
	var crowd []*fakeConn
	for range 5 {
		c := from("192.0.2.1")
		crowd = append(crowd, c)
		l.Admit(c)
	}
	for i := range 4 {
		l.Admit(from(fmt.Sprintf("198.51.100.%d", i)))
	}
	if !crowd[0].ended() || crowd[1].ended() || l.Open() != 8 {
		t.Errorf("the crowd's oldest is closed: %v, the next: %v, %d open", crowd[0].ended(), crowd[1].ended(), l.Open())
	}
	l = New(Limits{All: 8})
	taken, overfull := 0, 0
	for range 100 {
		if c := l.Admit(from("192.0.2.1")); c != nil {
			c.Proven("x")
			taken++
			if c.Overfull() {
				overfull++
			}
		}
	}
	if taken != 8+spare || overfull != spare || l.Refused() != 100-8 {
		t.Errorf("%d taken, %d of them beyond the limit, %d refused", taken, overfull, l.Refused())
	}
}

// Strangers are few, however many addresses they have; who has shown a credential does not count among them.
func TestAllStrangers(t *testing.T) {
	l := New(Limits{All: 1000, PerAddress: 100, Strangers: 8})
	var member []*fakeConn
	for i := range 50 {
		c := from(fmt.Sprintf("192.0.2.%d", i))
		member = append(member, c)
		l.Admit(c).Proven("x")
	}
	for i := range 500 {
		l.Admit(from(fmt.Sprintf("198.51.100.%d", i%200)))
	}
	if l.strangers != 8 || l.Open() != 58 || l.Refused() != 0 {
		t.Errorf("%d strangers, %d open, %d refused", l.strangers, l.Open(), l.Refused())
	}
	for i, c := range member {
		if c.ended() {
			t.Errorf("member %d was closed", i)
		}
	}
}

// A /64 is one address, whatever its hosts are called.
func TestGroup(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::",
		"2001:db8:1:2:ffff::": "2001:db8:1:2::",
		"fe80::1%eth0":        "fe80::",
	} {
		if got := GroupOf(netip.MustParseAddr(text)); got.String() != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if got := Group(from(text).RemoteAddr()); got.String() != want {
			t.Errorf("%s as an address of a connection: %s", text, got)
		}
	}
}

// A listener gives out connections that can be found below TLS, and frees the place of one that is closed.
func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(Limits{All: 2, PerAddress: 2})
	listening := l.Listener(inner)
	defer listening.Close()
	for i := range 5 {
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := listening.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := Of(tls.Server(conn, &tls.Config{}))
		if c == nil || c != conn {
			t.Fatal("the counted connection is not found")
		}
		if _, err := c.SyscallConn(); err != nil {
			t.Error(err)
		}
		if i%2 == 1 {
			conn.Close()
		}
	}
	if l.Open() != 2 { // 0 gave way, 1 and 3 were closed, 2 and 4 are open
		t.Errorf("%d are open", l.Open())
	}
	listening.Close()
	if _, err := listening.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Closing, proving and admitting at the same time leaves nothing behind.
func TestConcurrent(t *testing.T) {
	l := New(Limits{All: 20, PerAddress: 7})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 300 {
				c := l.Admit(from(fmt.Sprintf("192.0.2.%d", (w+i)%3)))
				if c == nil {
					continue
				}
				if i%3 == 0 {
					go c.Proven("x")
				}
				if i%4 == 0 {
					go c.Disproven()
				}
				if i%5 == 0 {
					time.Sleep(time.Microsecond)
				}
				_ = c.Close()
			}
		})
	}
	all.Wait()
	if l.Open() != 0 || len(l.addresses) != 0 {
		t.Errorf("%d open of %d addresses", l.Open(), len(l.addresses))
	}
}

func TestDescriptors(t *testing.T) {
	if n, err := Descriptors(); err != nil || n < 256 {
		t.Errorf("%d, %v", n, err)
	}
}

// A connection whose credential is good no more counts as a stranger's again, the newest of its address.
func TestDisproven(t *testing.T) {
	l := New(Limits{PerAddress: 2})
	first, second := from("192.0.2.1"), from("192.0.2.1")
	c := l.Admit(first)
	c.Disproven() // of nothing
	c.Proven("x")
	l.Admit(second)
	c.Disproven()
	c.Disproven()
	if c.ProvenBy() != "" || l.strangers != 2 {
		t.Errorf("proven by %q, %d strangers", c.ProvenBy(), l.strangers)
	}
	l.Admit(from("192.0.2.1"))
	if first.ended() || !second.ended() {
		t.Errorf("the one that was known gave way: %v, the older stranger: %v", first.ended(), second.ended())
	}
	c.Proven("x")
	_ = c.Close()
	c.Disproven()
	if l.Open() != 1 || l.strangers != 1 {
		t.Errorf("%d open, %d strangers", l.Open(), l.strangers)
	}
}
