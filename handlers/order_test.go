package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/internal/await"
	"muster/store"
)

// half opens a connection to the API and sends what is given, which is not all of a request.
func half(t testing.TB, addr, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// answerOf reads one answer from a connection.
func answerOf(t testing.TB, c net.Conn) (status int, body string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(sole.Generous))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// A request whose body is not complete holds no slot, whoever sent it.
func TestHalfSentBodiesHoldNoSlot(t *testing.T) {
	s := sole.New(t, func(c *sole.Config) { c.Limits.Requests = 1 })
	addr := s.Serving()
	for _, rt := range s.Routes() {
		if !rt.Changes() || rt.Whole { // an archive is read while it comes
			continue
		}
		target := rt.Method + " " + strings.NewReplacer("{name:.*}", "x", "{id}", "1", "{name}", "x").Replace(rt.Path)
		for _, token := range []string{"", s.Admin} {
			if token != "" && rt.Method == "DELETE" && !rt.HasBody { // it would be carried out without its body
				continue
			}
			half(t, addr, target+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+
				"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		}
	}
	sole.Until(t, "the strangers are in their room", func() bool { return s.Strangers() >= 1 })
	// Those that are refused have the slot for a moment.
	sole.Until(t, "a read has the slot", func() bool {
		return s.Call("GET", "/api/v1/cluster/members", s.Admin, "").Code == 200
	})
	sole.Until(t, "no slot is taken", func() bool { return s.Working() == 0 })
}

// Nobody waits for the body of a request that needs none, or of one that is refused whatever its body says.
func TestBodiesThatAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	addr := s.Serving()
	for _, x := range []struct {
		target, token string
		status        int
	}{
		{"GET /api/v1/status", "", 200},
		{"GET /v1/peerings", s.Admin, 200},
		{"DELETE /v1/peering/x", s.Admin, 200},
		{"GET /_nodes", s.Admin, 400}, // the family refuses bodies there
		{"POST /api/v1/sql", "", 401},
		{"PUT /v1/operator/snapshot", "", 403},
		{"PUT /v1/operator/snapshot", "wrong", 403},
		{"POST /nothing", "", 404},
		{"POST /v1/peerings", "", 405},
		{"GET /api/v1/events", "", 401},
		{"POST /v1/peering/establish", "", 403},
	} {
		await.NoError(t, x.target, func() error { // a process that has stood still is not sure that it leads, and waits
			c := half(t, addr, x.target+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+x.token+"\r\n"+
				"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n")
			defer c.Close()
			if status, body := answerOf(t, c); status != x.status {
				return fmt.Errorf("%d %s, want %d", status, body, x.status)
			}
			return nil
		})
	}
}

// A blocking query has a place only when it has said all, and an identity has no more than its share.
func TestBlockingPlaces(t *testing.T) {
	t.Parallel()
	s := sole.New(t, func(c *sole.Config) { c.Limits.Blocking, c.Limits.BlockingPerIdentity = 3, 2 })
	addr := s.Serving()
	reader := s.Token(store.ScopePeeringRead)
	query := func(token, extra string) net.Conn {
		return half(t, addr, "GET /v1/peerings?index=1000000&wait=5m HTTP/1.1\r\nHost: x\r\nX-Consul-Token: "+token+"\r\n"+
			extra+"\r\n")
	}
	for range 5 {
		query(reader, "Content-Length: 5\r\n")
		query("wrong", "")
	}
	query(reader, "")
	query(reader, "")
	sole.Until(t, "two wait", func() bool { return s.Waiting() == 2 })
	sole.Until(t, "who waits holds no slot", func() bool { return s.Working() == 0 })
	if status, body := answerOf(t, query(reader, "")); status != 429 ||
		body != "too many blocking queries at once; try again" {
		t.Errorf("beyond the share: %d %s", status, body)
	}
	gone := query(s.Admin, "")
	sole.Until(t, "another identity waits", func() bool { return s.Waiting() == 3 })
	gone.Close()
	sole.Until(t, "its place is free", func() bool { return s.Waiting() == 2 })
}

// The strangers of one address have a room of their own: when it is full, others and callers with a credential are
// answered as ever, also at the same address.
func TestStrangersOfOneAddress(t *testing.T) {
	t.Parallel()
	s := sole.New(t, func(c *sole.Config) { c.Limits.StrangersPerAddress = 4 })
	addr := s.Serving()
	for range 4 {
		half(t, addr,
			"POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	}
	sole.Until(t, "the room is full", func() bool { return s.Strangers() == 4 })
	if w := from(s, "127.0.0.1:1", "GET", "/api/v1/status", ""); !strings.HasPrefix(w.Body.String(),
		`{"error":"too many concurrent requests from this address`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/", "/v1/peerings", "/v1/status/leader", "/nothing", "/ui/"} {
		if w := from(s, "127.0.0.1:1", "GET", path, ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := from(s, "127.0.0.1:1", "GET", "/api/v1/cluster/members", s.Admin); w.Code != 200 {
		t.Errorf("a known caller at that address: %d %s", w.Code, w.Body)
	}
	if w := from(s, "127.0.0.2:1", "GET", "/api/v1/status", ""); w.Code != 200 {
		t.Errorf("another address: %d %s", w.Code, w.Body)
	}
}

// Whose credential allows nothing takes places of its address, so that no number of its requests holds more.
func TestCredentialsThatAllowNothing(t *testing.T) {
	t.Parallel()
	s := sole.New(t, func(c *sole.Config) { c.Limits.StrangersPerAddress = 2 })
	addr, key := s.Serving(), emptyKey(s, s.Token(store.ScopeEnroll))
	for range 2 {
		half(t, addr, "POST /v1/peering/token HTTP/1.1\r\nHost: x\r\nAuthorization: "+key+"\r\nContent-Length: 100\r\n\r\n{")
	}
	sole.Until(t, "the room is full", func() bool { return s.Strangers() == 2 })
	r := httptest.NewRequest("GET", "/_security/_authenticate", nil)
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("Authorization", key)
	w := httptest.NewRecorder()
	if s.API().ServeHTTP(w, r); w.Code != 503 {
		t.Errorf("a third request: %d %s", w.Code, w.Body)
	}
	if w := from(s, "127.0.0.1:1", "GET", "/api/v1/cluster/members", s.Admin); w.Code != 200 {
		t.Errorf("a caller with rights at that address: %d %s", w.Code, w.Body)
	}
}

// from is call from an address.
func from(s *sole.Member, remote, method, target, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = remote
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	return w
}

// A slot is free as soon as the answer is being written: a client that takes nothing holds none.
func TestWritingHoldsNoSlot(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	w := &stuckWriter{ResponseRecorder: httptest.NewRecorder(), writing: make(chan struct{}), stuck: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.API().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.yaml", nil))
	}()
	<-w.writing
	if s.Working() != 0 {
		t.Error("the slot is still taken")
	}
	close(w.stuck)
	<-done
}

// TestAbandonedRequestsAreNoFailures: a caller that disconnects, at whatever step of its request, leaves no error in
// the log and no 5xx in the metrics.
func TestAbandonedRequestsAreNoFailures(t *testing.T) {
	t.Parallel()
	var log logLines
	s := sole.New(t, func(c *sole.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	call := func(ctx context.Context, rt *handlers.Route) int {
		r := httptest.NewRequestWithContext(ctx, rt.Method, somePath(rt), strings.NewReader("{}"))
		r.Header.Set("Authorization", "Bearer "+s.Admin)
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		return w.Code
	}
	for _, rt := range s.Routes() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		status := call(ctx, rt)
		cancel()
		if status >= 500 {
			continue // as is right for this body, or in a cluster of one
		}
		log.forget()
		for after := time.Duration(0); after < 2*time.Millisecond; after += 300 * time.Microsecond {
			ctx, cancel := context.WithCancel(t.Context())
			if after == 0 {
				cancel()
			} else {
				time.AfterFunc(after, cancel)
			}
			call(ctx, rt)
			cancel()
		}
		for _, line := range log.all() {
			t.Errorf("the log says: %s", line)
		}
	}
}

// TestTimeIsUp: a request that takes longer than it may, at whatever step, can be tried again and is no failure of the
// member.
func TestTimeIsUp(t *testing.T) {
	t.Parallel()
	var log logLines
	s := sole.New(t, func(c *sole.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	for _, rt := range s.Routes() {
		for after := time.Duration(0); after < 2*time.Millisecond; after += 300 * time.Microsecond {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			r := httptest.NewRequestWithContext(ctx, rt.Method, somePath(rt), strings.NewReader("{}"))
			r.Header.Set("Authorization", "Bearer "+s.Admin)
			w := httptest.NewRecorder()
			s.API().ServeHTTP(w, r)
			cancel()
			if w.Code == http.StatusInternalServerError && strings.Contains(w.Body.String(), "internal error") {
				t.Errorf("%s %s after %v: %d %s", rt.Method, rt.Path, after, w.Code, w.Body)
			}
		}
	}
	for _, line := range log.all() {
		t.Errorf("the log says: %s", line)
	}
}

// logLines collects what is logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *logLines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// stuckWriter is a client that does not read.
type stuckWriter struct {
	*httptest.ResponseRecorder
	writing, stuck chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	close(w.writing)
	<-w.stuck
	return len(p), nil
}

// Hostile arguments of strangers count as failures of their address, and soon nobody looks at them any more.
func TestStrangersArgumentsAreLimited(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	counts := map[int]int{}
	for range 3 * handlers.FailuresPerMinute {
		w := from(s, "192.0.2.7:1", "GET", "/v1/peerings?index=x", "")
		counts[w.Code]++
	}
	// Another attempt is allowed every half a second. One that comes just then is refused with 403: nobody looked at its
	// arguments.
	if unseen := counts[403] + counts[429]; counts[400] == 0 || unseen < handlers.FailuresPerMinute || counts[429] == 0 ||
		counts[400]+unseen != 3*handlers.FailuresPerMinute {
		t.Errorf("answers by status: %v", counts)
	}
	if w := from(s, "192.0.2.7:1", "GET", "/v1/peerings", s.Admin); w.Code != 200 {
		t.Errorf("a valid credential waits for the failures of others: %d", w.Code)
	}
	if w := from(s, "192.0.2.7:1", "GET", "/v1/peerings?index=x", s.Admin); w.Code != 400 ||
		w.Body.String() != "Invalid index" {
		t.Errorf("a valid credential with a wrong argument: %d %s", w.Code, w.Body)
	}
	if w := from(s, "192.0.2.8:1", "GET", "/v1/peerings?filter="+strings.Repeat("(", 12), ""); w.Code != 403 {
		t.Errorf("a stranger's filter was looked at: %d %s", w.Code, w.Body)
	}
}

// An identity has a share of the readers, not all places.
func TestReadersPerIdentity(t *testing.T) {
	t.Parallel()
	s := sole.New(t, func(c *sole.Config) { c.Limits.Readers, c.Limits.ReadersPerIdentity = 3, 1 })
	t.Cleanup(s.EndStreams)
	addr := s.Serving()
	read := func(token string) net.Conn {
		return half(t, addr, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	}
	reader := s.Token(store.ScopeClusterRead)
	read(reader)
	sole.Until(t, "one reads", func() bool { return s.EventReaders() == 1 })
	if status, body := answerOf(t, read(reader)); status != 503 || !strings.Contains(body, "the limit of readers") {
		t.Errorf("%d %s", status, body)
	}
	read(s.Admin)
	sole.Until(t, "another identity reads", func() bool { return s.EventReaders() == 2 })
	if status, _ := answerOf(t, read("wrong")); status != 401 {
		t.Errorf("a stranger: %d", status)
	}
}
