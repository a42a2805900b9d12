package transport

import (
	"net"
	"net/http"
	"sync"

	"muster/netlimit"
)

// openConns are the connections that the listener has accepted, each with the member that it has proven to be from, 0 for
// none. They can be cut from outside, at any moment between accept and their end.
type openConns struct {
	mu     sync.Mutex
	closed bool
	member map[net.Conn]uint64
}

// add notes whom a connection is from. After close it closes the connection.
func (o *openConns) add(c net.Conn, id uint64) {
	o.mu.Lock()
	if o.member == nil {
		o.member = map[net.Conn]uint64{}
	}
	o.member[c] = id
	closed := o.closed
	o.mu.Unlock()
	if closed {
		c.Close()
	}
}

func (o *openConns) remove(c net.Conn) {
	o.mu.Lock()
	delete(o.member, c)
	o.mu.Unlock()
}

// cut closes the connections of a member.
func (o *openConns) cut(id uint64) { o.closeIf(func(of uint64) bool { return of == id }) }

// close closes all connections, and those that are added later.
func (o *openConns) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.closeIf(func(uint64) bool { return true })
}

func (o *openConns) closeIf(holds func(id uint64) bool) {
	var list []net.Conn
	o.mu.Lock()
	for c, id := range o.member {
		if holds(id) {
			list = append(list, c)
		}
	}
	o.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

// state is an http.Server's ConnState: its connections are removed when they have ended.
func (o *openConns) state(c net.Conn, s http.ConnState) {
	if counted := netlimit.Of(c); counted != nil && (s == http.StateClosed || s == http.StateHijacked) {
		o.remove(counted)
	}
}
