// Package silent makes addresses, for tests, from which no answer comes.
package silent

import (
	"net"
	"testing"
)

// Deaf returns an address that takes connections and says nothing.
func Deaf(t testing.TB) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// Gone returns an address at which nobody listens.
func Gone(t testing.TB) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
