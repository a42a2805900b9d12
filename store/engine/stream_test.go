package engine

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

func streamPair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	if network == "pair" {
		a, b, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return Direct(a), b
}

// A direct socket does what the socket does: it carries everything in order, however slow the other side is, ends with
// it, keeps to deadlines, and lets go when it is closed.
func TestDirect(t *testing.T) {
	for _, network := range []string{"pair", "tcp"} {
		t.Run(network, func(t *testing.T) {
			a, b := streamPair(t, network)
			defer a.Close()
			defer b.Close()
			if _, ok := a.(*direct); !ok && !watched {
				t.Fatalf("%T is not direct", a)
			}
			sent := make([]byte, 8<<20) // more than any buffer in between
			for i := range sent {
				sent[i] = byte(rand.N(256))
			}
			written := make(chan error, 1)
			go func() {
				n, err := a.Write(sent)
				if err == nil && n != len(sent) {
					err = io.ErrShortWrite
				}
				written <- err
			}()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("what was written is not what was read: %v", err)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			go func() { _, err := b.Write(sent); written <- err }()
			if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("what was written is not what was read: %v", err)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}

			_ = a.SetReadDeadline(time.Now().Add(time.Millisecond))
			var timeout net.Error
			if _, err := a.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) ||
				!timeout.Timeout() {
				t.Errorf("a read behind its deadline: %v", err)
			}
			_ = a.SetReadDeadline(time.Time{})
			if n, err := a.Read(nil); n != 0 || err != nil {
				t.Errorf("a read of nothing: %d, %v", n, err)
			}

			b.Close()
			if _, err := a.Read(got); err != io.EOF {
				t.Errorf("a read when the other side has ended: %v", err)
			}
			var err error
			for range 100 { // the other side's refusal takes a moment
				if _, err = a.Write(sent[:1]); err != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Errorf("a write when the other side has ended: %v", err)
			}
		})
		t.Run(network+", closed", func(t *testing.T) { directClosed(t, network) })
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	if Direct(client) != client {
		t.Error("what is no socket is not left as it is")
	}
}

// directClosed: a read ends when its connection is closed, and a write is refused.
func directClosed(t *testing.T, network string) {
	a, b := streamPair(t, network)
	defer b.Close()
	read := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); read <- err }()
	a.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of what is closed meanwhile: %v", err)
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to what is closed: %v", err)
	}
}
