package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"muster/certs"
	"muster/internal/await"
	"muster/internal/netlimit"
)

// fromTo is two transports: dials reaches what listens, whose fence is as given.
func fromTo(t *testing.T, fence func(listens *Transport, id uint64) error) (dials, listens *Transport) {
	t.Helper()
	return fromToLimited(t, netlimit.Limits{}, fence)
}

func fromToLimited(t *testing.T, limits netlimit.Limits,
	fence func(listens *Transport, id uint64) error) (dials, listens *Transport) {
	t.Helper()
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book := Table(func(uint64) (string, bool) { return l.Addr().String(), true })
	one, two := newAgedNode(t, 1, ca, time.Now().Add(time.Hour), ca), newAgedNode(t, 2, ca, time.Now().Add(time.Hour), ca)
	listens = New(two.creds, book, func(id uint64) error { return fence(listens, id) }, discard)
	dials = New(one.creds, book, func(uint64) error { return nil }, discard)
	listens.Limits = limits
	listens.Serve(l, Service{Replica: agedReplica{}, Handler: http.NotFoundHandler()})
	t.Cleanup(func() { dials.Close(); listens.Close() })
	return dials, listens
}

// ends reads until the other side closes a connection.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}

// A member that is removed while the fence looks at its connection is cut all the same, and a transport that closes in
// that moment does not wait for the connection.
func TestCutAtTheFence(t *testing.T) {
	during := map[string]func(*Transport){
		"removed": func(tr *Transport) { tr.Cut(1) },
		"closed": func(tr *Transport) {
			go tr.Close()
			for closed := false; !closed; {
				tr.open.mu.Lock()
				closed = tr.open.closed
				tr.open.mu.Unlock()
			}
		},
	}
	for name, act := range during {
		t.Run(name, func(t *testing.T) {
			var first = true
			dials, listens := fromTo(t, func(listens *Transport, id uint64) error {
				if first && id == 1 {
					first = false
					act(listens)
				}
				return nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := dials.dial(ctx, 2, protoAsk, false)
			if err != nil {
				return // it was cut before the dialer had looked
			}
			defer c.Close()
			ends(t, c)
			closed := make(chan struct{})
			go func() { listens.Close(); close(closed) }()
			select {
			case <-closed:
			case <-time.After(30 * time.Second):
				t.Fatal("the transport does not close")
			}
		})
	}
}

// Connections that have not said anything yet, and those that come while the transport closes, are closed with it.
func TestOpenConnsClose(t *testing.T) {
	_, listens := fromTo(t, func(*Transport, uint64) error { return nil })
	silent, err := net.Dial("tcp", listens.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	listens.Close()
	ends(t, silent)

	here, there := net.Pipe()
	defer there.Close()
	listens.open.add(here, 0)
	ends(t, there)
}

// A connection over which a member has sent requests is forgotten when it ends.
func TestOpenConnsForget(t *testing.T) {
	dials, listens := fromTo(t, func(*Transport, uint64) error { return nil })
	if err := dials.Call(t.Context(), "GET", 2, "/", nil, nil); err == nil {
		t.Fatal("nothing is served there")
	}
	open := func() int {
		listens.open.mu.Lock()
		defer listens.open.mu.Unlock()
		return len(listens.open.member)
	}
	if open() == 0 {
		t.Fatal("the connection is not known")
	}
	dials.Close()
	await.True(t, "the connection is forgotten", func() bool { return open() == 0 })
}

// A connection that is being made to a member while that is cut off is not kept.
func TestAskerForgottenWhileItDials(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	var a askers
	a.dial = func(context.Context, uint64) (net.Conn, error) {
		a.forget(2)
		return here, nil
	}
	answered := make(chan error, 1)
	go func() { // member 2 follows member 1, and says so where it is asked
		_, err := io.ReadFull(there, make([]byte, 1))
		if err == nil {
			_, err = there.Write([]byte{0, 0, 0, 0, 0, 0, 0, 1})
		}
		answered <- err
	}()
	if a.of(2).follows(t.Context(), a.dial, 2, 1) {
		t.Error("who was forgotten has answered")
	}
	if err := <-answered; err == nil {
		t.Error("who was forgotten was asked")
	}
}
