package netlimit

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// endless is a connection that always has something to read.
type endless struct{ fakeConn }

func (c *endless) Read(p []byte) (int, error) {
	if c.ended() {
		return 0, fmt.Errorf("closed")
	}
	return len(p), nil
}

func (c *endless) Write(p []byte) (int, error)     { return len(p), nil }
func (c *endless) SetReadDeadline(time.Time) error { return nil }
func (c *endless) SetDeadline(time.Time) error     { return nil }

func talking(ip string) *endless {
	return &endless{fakeConn{from: netip.AddrPortFrom(netip.MustParseAddr(ip), 4000)}}
}

// However many connections an address has, and however small or large what they send, what is read of it is bounded. A
// newcomer at the same address gets its first request through in the meantime, one at another at once, and who has
// shown a credential waits for nobody.
func TestPace(t *testing.T) {
	const perSecond = 100_000
	for _, size := range []int{1, 17, 300, 16 << 10} {
		for _, many := range []int{1, 20, 100} {
			t.Run(fmt.Sprintf("%d of %d bytes", many, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := New(Limits{Bytes: perSecond, PerAddress: 1000})
					var read, done atomic.Int64
					var conns []*Conn
					flood := func(c *Conn) {
						for done.Load() == 0 {
							n, _ := c.Read(make([]byte, size))
							read.Add(int64(n))
						}
					}
					for range many {
						c := l.Admit(talking("192.0.2.1"))
						conns = append(conns, c)
						go flood(c)
					}
					begin := time.Now()
					const within = 20 * time.Second
					time.Sleep(within / 2)
					request := func(from string) time.Duration {
						at, c := time.Now(), l.Admit(talking(from))
						for range 4 {
							_, _ = c.Read(make([]byte, 1000))
						}
						return time.Since(at)
					}
					if took := request("192.0.2.1"); took > time.Second {
						t.Errorf("a newcomer has waited for %v", took)
					}
					if took := request("192.0.2.2"); took > 0 {
						t.Errorf("one at another address has waited for %v", took)
					}
					known := l.Admit(talking("192.0.2.1"))
					known.Proven("x")
					at := time.Now()
					for range 1000 {
						_, _ = known.Read(make([]byte, size))
					}
					if took := time.Since(at); took > 0 {
						t.Errorf("who is known has waited for %v", took)
					}
					time.Sleep(within - time.Since(begin))
					done.Store(1)
					most := int64((1+forFresh)*perSecond*(within+paceBurst).Seconds()) + int64(many*(size+costOfRead))
					if n := read.Load(); n > most || size > 1 && n < most/100 {
						t.Errorf("%d bytes were read, %d at most", n, most)
					}
					for _, c := range conns {
						_ = c.Close()
					}
				})
			})
		}
	}
}

// Connections that end without a word cost their address little: a newcomer there waits for none of them.
func TestPaceOfTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Limits{Bytes: 100_000, PerAddress: 100})
		for range 1000 {
			_ = l.Admit(talking("192.0.2.1")).Close()
		}
		at, c := time.Now(), l.Admit(talking("192.0.2.1"))
		_, _ = c.Read(make([]byte, 1000))
		if took := time.Since(at); took > 0 {
			t.Errorf("a newcomer has waited for %v", took)
		}
	})
}

// What ends a wait: the connection's end, its deadline, and a credential.
func TestPaceEnds(t *testing.T) {
	for name, end := range map[string]func(*Conn){
		"closed":   func(c *Conn) { _ = c.Close() },
		"evicted":  func(c *Conn) { c.limiter.Admit(talking("192.0.2.1")) },
		"deadline": func(c *Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) },
		"both":     func(c *Conn) { _ = c.SetDeadline(time.Unix(1, 0)) },
		"proven":   func(c *Conn) { c.Proven("x") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Limits{Bytes: 10, PerAddress: 1})
				c := l.Admit(talking("192.0.2.1"))
				for range 2 { // an end that came before counts for nothing
					_ = c.SetReadDeadline(time.Unix(1, 0))
					_ = c.SetReadDeadline(time.Time{})
				}
				begin := time.Now()
				go func() {
					time.Sleep(time.Second)
					end(c)
				}()
				_, _ = c.Read(make([]byte, 1))
				if took := time.Since(begin); took != time.Second {
					t.Errorf("waited for %v", took)
				}
			})
		})
	}
}

// Addresses that owe nothing are forgotten, and those beyond the number that is remembered share one pace.
func TestPacedAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Limits{Bytes: 1_000_000})
		from := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		for i := range pacedMost + 5 {
			p := l.paces.of(from(i))
			take(&p.spent, l.paces.clock(), 1)
			if (p == &l.paces.others) != (i >= pacedMost) {
				t.Fatalf("address %d: %v", i, p == &l.paces.others)
			}
		}
		time.Sleep(2 * paceBurst)
		if p := l.paces.of(from(pacedMost + 5)); p == &l.paces.others || len(l.paces.m) != 1 {
			t.Errorf("%d addresses are remembered", len(l.paces.m))
		}
	})
}
