package netlimit

import (
	"net"
	"testing"
	"time"
)

// Who says nothing is accepted after who came later and has said something.
func TestListen(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var last string
	for _, says := range []string{"", "", "hello"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(says)); err != nil {
			t.Fatal(err)
		}
		last = c.LocalAddr().String()
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if from := c.RemoteAddr().String(); from != last {
		t.Errorf("%s is accepted first, and %s has spoken", from, last)
	}
}
