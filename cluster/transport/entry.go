package transport

import (
	"net"

	"muster/internal/netlimit"
	"muster/store"
)

// entry is an accepted connection below TLS. It reads at the pace of strangers until the credential is known, and past
// Go's scheduler from then on (store.Direct).
type entry struct {
	net.Conn
	counted *netlimit.Conn
}

// enter wraps an accepted connection for reading.
func enter(raw net.Conn) net.Conn {
	if counted := netlimit.Of(raw); counted != nil {
		return &entry{store.Direct(raw), counted}
	}
	return store.Direct(raw)
}

// NetConn returns the counted connection.
func (e *entry) NetConn() net.Conn { return e.counted }

// Read reads. A stranger's read waits, see package netlimit.
func (e *entry) Read(p []byte) (int, error) {
	if e.counted.ProvenBy() == "" {
		return e.counted.Read(p)
	}
	return e.Conn.Read(p)
}
