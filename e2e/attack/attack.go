// Package attack attacks a listener of a member as strangers at one address can, for the tests of real processes and
// for the benchmark. It is made of the standard library alone and judges nothing.
package attack

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// Attacker opens connections to an address and holds them; it never takes what it has asked for.
type Attacker struct {
	Addr string // HOST:PORT
	From net.IP // its own address; nil: the kernel chooses

	mu   sync.Mutex
	open []net.Conn
}

// Dial opens a connection for a protocol of ALPN; nil when there is no room for it, as it should be. It blocks for 20 s
// at most.
func (a *Attacker) Dial(proto string) net.Conn {
	d := net.Dialer{Timeout: 20 * time.Second}
	if a.From != nil {
		d.LocalAddr = &net.TCPAddr{IP: a.From}
	}
	c, err := tls.DialWithDialer(&d, "tcp", a.Addr,
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = append(a.open, c)
	return c
}

// End closes everything that is open.
func (a *Attacker) End() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.Close()
	}
	a.open = nil
}

// Say sends a text, such as a request, over a new connection.
func (a *Attacker) Say(text string) {
	if c := a.Dial("http/1.1"); c != nil {
		_, _ = io.WriteString(c, text)
	}
}

// Crowd does something n times, 16 at once, and blocks until all are done.
func Crowd(n int, f func(i int)) {
	work := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
}

// preface begins an HTTP/2 connection (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Kinds, flags and settings of HTTP/2 frames.
const (
	headers      = 1
	reset        = 3
	settings     = 4
	ping         = 6
	windowUpdate = 8

	endOfAll      = 5 // END_STREAM and END_HEADERS
	initialWindow = 4
)

// frame is one frame of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags,
		byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
	return append(head, payload...)
}

// Windowless asks for a path on many streams of an HTTP/2 connection whose window is 0: it takes no byte of a body.
func (a *Attacker) Windowless(path string, streams int) {
	c := a.Dial("h2")
	if c == nil {
		return
	}
	out := append([]byte(preface), frame(settings, 0, 0, []byte{0, initialWindow, 0, 0, 0, 0})...)
	var block []byte // literals without indexing (RFC 7541, section 6.2.2)
	for _, h := range []string{":method", "GET", ":scheme", "https", ":authority", "x", ":path", path} {
		if h[0] == ':' {
			block = append(block, 0)
		}
		block = append(append(block, byte(len(h))), h...)
	}
	for i := range streams {
		out = append(out, frame(headers, endOfAll, uint32(2*i+1), block)...)
	}
	_, _ = c.Write(out)
}

// Frames floods an HTTP/2 connection with frames that are no requests, or with requests that it gives up. It blocks
// until the connection is ended, 20 s at most.
func (a *Attacker) Frames(kind int) {
	c := a.Dial("h2")
	if c == nil {
		return
	}
	out := append([]byte(preface), frame(settings, 0, 0, nil)...)
	for i := range 20_000 {
		id := uint32(2*i + 1)
		switch kind % 4 {
		case 0:
			out = append(out, frame(settings, 0, 0, nil)...)
		case 1:
			out = append(out, frame(ping, 0, 0, make([]byte, 8))...)
		case 2:
			out = append(out, frame(windowUpdate, 0, 0, []byte{0, 0, 0, 1})...)
		default: // :method GET, :scheme https, :path /, all indexed (RFC 7541, appendix A)
			out = append(out, frame(headers, endOfAll, id, []byte{0x82, 0x87, 0x84, 0x41, 1, 'x'})...)
			out = append(out, frame(reset, 0, id, []byte{0, 0, 0, 8})...)
		}
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write(out)
	_, _ = io.Copy(io.Discard, c)
}
