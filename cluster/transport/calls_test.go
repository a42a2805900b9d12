package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// leading is a replica that leads, or not.
type leading struct {
	agedReplica
	epoch atomic.Uint64
}

func (l *leading) Epoch() uint64 { return l.epoch.Load() }

// callsPair is a member that passes requests on and one that answers them.
type callsPair struct {
	*testing.T
	from, to *Transport
	replica  *leading
	dials    atomic.Int32
}

func newCallsPair(t *testing.T, handler http.HandlerFunc) *callsPair {
	t.Helper()
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour)
	one, two := newAgedNode(t, 1, ca, ends, ca), newAgedNode(t, 2, ca, ends, ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &callsPair{T: t, replica: &leading{}}
	p.replica.epoch.Store(7)
	p.to = New(two.creds, Table(func(uint64) (string, bool) { return "", false }), func(uint64) error { return nil },
		discard)
	p.to.Serve(l, Service{Replica: p.replica, Handler: handler})
	at := l.Addr().String()
	p.from = New(one.creds, Table(func(uint64) (string, bool) { return at, true }), func(uint64) error { return nil },
		discard)
	dial := p.from.lines.dial
	p.from.lines.dial = func(ctx context.Context, id uint64) (net.Conn, error) { p.dials.Add(1); return dial(ctx, id) }
	t.Cleanup(func() { p.from.Close(); p.to.Close() })
	return p
}

// pass passes a request on and returns the answer's body.
func (p *callsPair) pass(ctx context.Context, a *store.Attempt, method, target, body string) (*http.Response, string,
	error) {
	p.Helper()
	ctx, cancel := context.WithTimeout(store.WithAttempt(ctx, a), 30*time.Second)
	defer cancel()
	var in io.Reader = http.NoBody
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, in)
	if err != nil {
		p.Fatal(err)
	}
	r.Header["X-Twice"] = []string{"a", "b"}
	resp, err := p.from.Forward(r, 2)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	return resp, string(data), nil
}

// Headers of a client's connection are no business of the member that answers: one of them must not make a request look
// as if that member could not be reached.
func TestHeadersOfConnections(t *testing.T) {
	p := newCallsPair(t, func(w http.ResponseWriter, r *http.Request) {
		for name := range hopByHop {
			if v := r.Header.Get(name); v != "" && name != "Content-Length" {
				t.Errorf("%s: %s has come", name, v)
			}
		}
		_, _ = io.WriteString(w, r.Header.Get("X-Mine"))
	})
	for name, value := range map[string]string{"Connection": "Upgrade, X-Mine", "Upgrade": "websocket", "Te": "gzip",
		"Transfer-Encoding": "gzip", "Keep-Alive": "5", "Proxy-Connection": "x", "Trailer": "Content-Length"} {
		for _, framed := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if framed {
				ctx = store.WithAttempt(ctx, &store.Attempt{})
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(name, value)
			r.Header.Set("X-Mine", "here")
			r.Trailer = http.Header{"X-After": nil}
			resp, err := p.from.Forward(r, 2)
			if err != nil {
				t.Errorf("%s, frames %t: %v", name, framed, err)
				cancel()
				continue
			}
			data, err := io.ReadAll(resp.Body)
			if resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK || string(data) != "here" {
				t.Errorf("%s, frames %t: %d %s, %v", name, framed, resp.StatusCode, data, err)
			}
			cancel()
		}
	}
}

// Requests share one connection and come to the right answers, whatever their size.
func TestCallsShareAConnection(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 3<<16)
	p := newCallsPair(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			for part := range bytes.SplitAfterSeq([]byte(large), []byte("f0")) {
				_, _ = w.Write(part)
			}
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-From", fmt.Sprint(MemberID(r.Context())))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, r.Method, " ", r.URL.Query().Get("q"), " ", r.Header["X-Twice"], " ", r.ContentLength, " ",
			string(body))
	})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			target, method, body, want := fmt.Sprintf("/echo%%2F?q=%d", i), "POST", strings.Repeat("x", i), ""
			want = fmt.Sprintf("POST %d [a b] %d %s", i, i, body)
			status := http.StatusCreated
			if i%20 == 0 {
				target, method, body, want, status = "/large", "GET", "", large, http.StatusOK
			}
			resp, got, err := p.pass(t.Context(), &store.Attempt{}, method, target, body)
			if err != nil || resp.StatusCode != status || got != want {
				t.Errorf("%d: %v, %d bytes, want %d: %.80s", i, err, len(got), len(want), got)
			} else if status == http.StatusCreated && resp.Header.Get("X-From") != "1" {
				t.Errorf("%d: %v", i, resp.Header)
			}
		})
	}
	all.Wait()
	if n := p.dials.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// An attempt is for the leadership that its member has heard of, and for no other.
func TestCallsAreForOneLeadership(t *testing.T) {
	var epochs []uint64
	p := newCallsPair(t, func(_ http.ResponseWriter, r *http.Request) {
		epochs = append(epochs, store.AttemptOf(r.Context()).Epoch)
	})
	for _, x := range []struct {
		epoch uint64
		leads bool
	}{{7, true}, {7, true}, {9, true}, {0, false}, {11, true}} {
		p.replica.epoch.Store(x.epoch)
		a := &store.Attempt{}
		resp, _, err := p.pass(t.Context(), a, "POST", "/", "")
		if err != nil || (resp.Header.Get(headerNotLeader) == "") != x.leads {
			t.Fatalf("epoch %d: %v, %v", x.epoch, resp, err)
		}
		if x.leads && (epochs[len(epochs)-1] != x.epoch || a.Since != 70) {
			t.Errorf("epoch %d: %v, %+v", x.epoch, epochs, a)
		}
	}
	if len(epochs) != 4 {
		t.Errorf("carried out in %v", epochs)
	}
}

// What is told ahead is there when the connection breaks before the answer, and goes with the next attempt.
func TestToldAhead(t *testing.T) {
	var p *callsPair
	made := make(chan string, 1)
	p = newCallsPair(t, func(_ http.ResponseWriter, r *http.Request) {
		a := store.AttemptOf(r.Context())
		if a.Again {
			made <- string(a.Made)
			return
		}
		a.Tell([]byte(`{"a":1}`))
		for range 2 { // of which the first goes behind what was told
			if _, _, err := p.pass(t.Context(), &store.Attempt{Again: true}, "GET", "/", ""); err != nil {
				t.Error(err)
			}
			<-made
		}
		p.to.Cut(1)
	})
	a := &store.Attempt{}
	_, _, err := p.pass(t.Context(), a, "POST", "/", "")
	var unsent interface{ NotSent() bool }
	if !errors.As(err, &unsent) || unsent.NotSent() || string(a.Made) != `{"a":1}` {
		t.Fatalf("%v, %q", err, a.Made)
	}
	a.Again = true
	if _, _, err := p.pass(t.Context(), a, "POST", "/", ""); err != nil {
		t.Fatal(err)
	}
	if got := <-made; got != `{"a":1}` {
		t.Errorf("the next attempt brings %q", got)
	}
}

// Who no longer waits is not worked for, and a member that has gone silent is given up.
func TestCallsEnd(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	p := newCallsPair(t, func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, _, err := p.pass(ctx, &store.Attempt{}, "GET", "/", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	<-ended
	go func() { <-begun; p.to.Cut(1) }()
	if _, _, err := p.pass(t.Context(), &store.Attempt{}, "GET", "/", ""); err == nil {
		t.Error("answered over a connection that was cut")
	}
	<-ended
}

// A member that takes requests and then says nothing, not even that it is there, is given up.
func TestSilentMembersAreGivenUp(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	defer theirs.Close()
	tr := New(&Credentials{}, Table(func(uint64) (string, bool) { return "", false }), nil, discard)
	tr.lines.dial = func(context.Context, uint64) (net.Conn, error) { return ours, nil }
	defer tr.Close()
	r, err := http.NewRequestWithContext(store.WithAttempt(t.Context(), &store.Attempt{}), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Forward(r, 2); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
}

// A member of an older version gets requests by HTTP/2, but none that an attempt of the new kind may have carried out.
func TestCallsOfOlderMembers(t *testing.T) {
	p := newCallsPair(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, store.AttemptOf(r.Context()) == nil)
	})
	dials := 0
	p.from.lines.dial = func(context.Context, uint64) (net.Conn, error) {
		dials++
		return nil, errors.New("remote error: tls: no application protocol")
	}
	for range 3 {
		if _, got, err := p.pass(t.Context(), &store.Attempt{}, "GET", "/", ""); err != nil || got != "true" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, _, err := p.pass(t.Context(), &store.Attempt{Again: true, Epoch: 7}, "POST", "/", ""); !errors.Is(err,
		errAlone) {
		t.Errorf("once more: %v", err)
	}
	if dials != 1 {
		t.Errorf("it was asked %d times", dials)
	}
}

// FuzzFrames: what another member sends is refused or read, and nothing else happens.
func FuzzFrames(f *testing.F) {
	r, err := http.NewRequest("POST", "/a?b=c", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendRequest(nil, 1, r, []byte("body"), &store.Attempt{Since: 5, Made: []byte("{}")}))
	w := &framed{
		out:     newOutbox(nil),
		id:      3,
		header:  http.Header{"A": {"b", "c"}},
		replica: agedReplica{},
		body:    []byte("x"),
	}
	_ = w.send(true)
	f.Add(w.out.wait)
	tr := New(&Credentials{}, Table(func(uint64) (string, bool) { return "", false }), func(uint64) error { return nil },
		discard)
	tr.service = Service{Replica: agedReplica{}, Handler: http.NotFoundHandler()}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		defer theirs.Close()
		c := newLine(newOutbox(ours))
		defer c.end(errGone)
		c.calls[3] = &asked{attempt: &store.Attempt{}, done: make(chan struct{})}
		for buffered := bufio.NewReader(bytes.NewReader(data)); ; {
			frame, err := readFrame(buffered)
			if err != nil || c.take(&frame) != nil {
				break
			}
		}
		in := &called{t: tr, out: newOutbox(ours), ctx: t.Context(), calls: map[uint64]context.CancelFunc{}}
		_ = in.read(bufio.NewReader(bytes.NewReader(data)))
		tr.done.Wait()
	})
}
