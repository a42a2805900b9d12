package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// member is a TLS server that answers each request with the next step; the last step stays.
type member struct {
	*httptest.Server
	mu       sync.Mutex
	steps    []http.HandlerFunc
	requests []*http.Request
	bodies   []string
}

func newMember(t *testing.T, steps ...http.HandlerFunc) *member {
	t.Helper()
	m := &member{steps: steps}
	m.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m.mu.Lock()
		m.requests = append(m.requests, r)
		m.bodies = append(m.bodies, string(body))
		step := m.steps[0]
		if len(m.steps) > 1 {
			m.steps = m.steps[1:]
		}
		m.mu.Unlock()
		step(w, r)
	}))
	m.Config.ErrorLog = quiet
	m.StartTLS()
	t.Cleanup(m.Close)
	return m
}

func (m *member) seen() (requests []*http.Request, bodies []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*http.Request(nil), m.requests...), append([]string(nil), m.bodies...)
}

func (m *member) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw})
}

// clientOf makes a client that trusts every httptest server (they share one certificate).
func clientOf(t *testing.T, trust *member, addrs ...string) *Client {
	t.Helper()
	cfg := Config{Addrs: addrs, Token: "s3cret", Timeout: 3 * time.Second}
	if trust != nil {
		cfg.CACert = trust.ca()
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func says(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// dies breaks the connection after the request was read.
func dies(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// closedAddr is an address at which nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String()
}

const minted = `{"result":{"id":"t1","token":"SECRET","mode":"full","maxUses":1,"expiresAt":"2026-05-06T10:00:00Z"}}`

func TestRepeats(t *testing.T) {
	noLeader := says(503, `{"error":"no leader"}`, "Retry-After", "0")
	create := func(c *Client) error {
		_, err := c.CreateJoinToken(context.Background(), JoinTokenRequest{})
		return err
	}
	read := func(c *Client) error { _, err := c.Members(context.Background()); return err }
	remove := func(c *Client) error { _, err := c.RemoveMember(context.Background(), 2, false); return err }
	promote := func(c *Client) error { return c.PromoteMember(context.Background(), 2) }
	drain := func(c *Client) error { _, err := c.DrainMember(context.Background(), 2, time.Minute); return err }
	query := func(c *Client) error { _, err := c.SQL(context.Background(), "SELECT 1"); return err }

	for _, test := range []struct {
		name     string
		call     func(*Client) error
		steps    []http.HandlerFunc
		requests int
		err      string // in the error; empty for success
	}{
		{"read after a broken connection", read, []http.HandlerFunc{dies, says(200, `{"result":[]}`)}, 2, ""},
		{"read after 503", read, []http.HandlerFunc{noLeader, noLeader, says(200, `{"result":[]}`)}, 3, ""},
		{"read not after 500", read, []http.HandlerFunc{says(500, `{"error":"broken"}`)}, 1, "broken (500)"},
		{"read after 500 with Retry-After", read,
			[]http.HandlerFunc{says(500, `No cluster leader`, "Retry-After", "0"), says(200, `{"result":[]}`)}, 2, ""},
		{"read on a server that always breaks", read, []http.HandlerFunc{dies}, 2, "the connection broke"},
		{"query after a broken connection", query,
			[]http.HandlerFunc{dies, says(200, `{"result":{"columns":["1"],"rows":[[1]]}}`)}, 2, ""},
		{"create after a broken connection", create, []http.HandlerFunc{dies, says(201, minted)}, 2, ""},
		{"create after 503", create, []http.HandlerFunc{noLeader, says(201, minted)}, 2, ""},
		{"create not after an answer", create, []http.HandlerFunc{says(409, `{"error":"already a member"}`)}, 1,
			"already a member (409)"},
		{"create not after 500", create, []http.HandlerFunc{says(500, ``)}, 1, "Internal Server Error (500)"},
		{"deletion not after a broken connection", remove, []http.HandlerFunc{dies}, 1,
			"may or may not have been carried out"},
		{"deletion after 503 with Retry-After", remove, []http.HandlerFunc{noLeader, says(200, `{"result":{}}`)}, 2, ""},
		{"deletion not after 503 without", remove, []http.HandlerFunc{says(503, `{"error":"no"}`)}, 1, "no (503)"},
		{"drain after 503 with Retry-After", drain,
			[]http.HandlerFunc{noLeader, says(200, `{"result":{"drainState":"draining"}}`)}, 2, ""},
		{"drain not after a broken connection", drain, []http.HandlerFunc{dies}, 1, "may or may not"},
		{"promote not after 503", promote, []http.HandlerFunc{noLeader}, 1, "no leader (503)"},
		{"no wait beyond the timeout", read, []http.HandlerFunc{says(503, `{"error":"later"}`, "Retry-After", "60")}, 1,
			"later (503)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMember(t, test.steps...)
			err := test.call(clientOf(t, m, m.URL))
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			requests, bodies := m.seen()
			if len(requests) != test.requests {
				t.Fatalf("%d requests, want %d", len(requests), test.requests)
			}
			for i, r := range requests {
				if got := r.Header.Get("Authorization"); got != "Bearer s3cret" {
					t.Errorf("request %d: Authorization %q", i, got)
				}
				if r.Header.Get("Idempotency-Key") != requests[0].Header.Get("Idempotency-Key") || bodies[i] != bodies[0] {
					t.Errorf("request %d is not the same as the first", i)
				}
			}
			creates := strings.HasPrefix(test.name, "create")
			if key := requests[0].Header.Get("Idempotency-Key"); creates != (len(key) == 36) {
				t.Errorf("Idempotency-Key %q", key)
			}
		})
	}
}

func TestSeveralAddresses(t *testing.T) {
	ok := says(200, `{"result":{"version":"v1"}}`)
	t.Run("the first that answers, which is then asked first", func(t *testing.T) {
		m := newMember(t, ok)
		c := clientOf(t, m, closedAddr(t), m.URL)
		for range 2 {
			if _, err := c.Status(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if c.last.Load() != 1 {
			t.Errorf("begins with address %d, want 1", c.last.Load())
		}
	})
	t.Run("a change goes on from an address that took no connection", func(t *testing.T) {
		m := newMember(t, says(200, `{"result":{}}`))
		if err := clientOf(t, m, closedAddr(t), m.URL).PromoteMember(context.Background(), 2); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("503 at one, an answer at the other", func(t *testing.T) {
		a, b := newMember(t, says(503, `{"error":"starting"}`, "Retry-After", "2")), newMember(t, ok)
		start := time.Now()
		if _, err := clientOf(t, a, a.URL, b.URL).Status(context.Background()); err != nil {
			t.Fatal(err)
		}
		if passed := time.Since(start); passed > time.Second {
			t.Errorf("waited %s although another member could answer", passed)
		}
	})
	t.Run("one that hangs leaves time for the next", func(t *testing.T) {
		a := newMember(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		b := newMember(t, ok)
		if _, err := clientOf(t, a, a.URL, b.URL).Status(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		x, y := closedAddr(t), closedAddr(t)
		_, err := clientOf(t, nil, x, y).RemoveMember(context.Background(), 1, true)
		want := fmt.Sprintf("no server answered:\n  %s: connection refused\n  %s: connection refused", x, y)
		var none *NoServerError
		if !errors.Is(err, ErrNoServer) || !errors.As(err, &none) || len(none.Tried) != 2 || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}

func TestTLSErrors(t *testing.T) {
	m := newMember(t, says(200, `{"result":{}}`))
	_, err := clientOf(t, nil, m.URL).Status(context.Background())
	if !errors.Is(err, ErrNoServer) || !strings.Contains(err.Error(), "--cacert") {
		t.Errorf("unknown authority: %v", err)
	}
	if requests, _ := m.seen(); len(requests) != 0 {
		t.Error("a request, and its token, reached a server that is not trusted")
	}
	plainServer := httptest.NewServer(says(200, `{"result":{"version":"v9"}}`))
	defer plainServer.Close()
	if s, err := clientOf(t, nil, plainServer.URL).Status(context.Background()); err != nil || s.Version != "v9" {
		t.Errorf("plain HTTP: %v %v", s, err)
	}
}

// TestPlainToTLS: whoever forgets the s of https is told so.
func TestPlainToTLS(t *testing.T) {
	m := newMember(t, says(200, `{"result":{}}`))
	_, err := clientOf(t, nil, strings.Replace(m.URL, "https://", "http://", 1)).Status(context.Background())
	if err == nil || !strings.Contains(err.Error(), "write it with https://") {
		t.Error(err)
	}
}

func TestErrorShapes(t *testing.T) {
	for _, test := range []struct {
		contentType, body string
		want              Error
	}{
		{"application/json", `{"error":"Forbidden"}`, Error{Status: 403, Message: "Forbidden"}},
		{"application/json", `{"error":"invalid_token","message":"The token has expired"}`,
			Error{Status: 403, Code: "invalid_token", Message: "The token has expired"}},
		{"text/plain; charset=utf-8", "Permission denied\n", Error{Status: 403, Message: "Permission denied"}},
		{"text/html", "<html>", Error{Status: 403, Message: "Forbidden"}},
	} {
		m := newMember(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", test.contentType)
			w.WriteHeader(403)
			io.WriteString(w, test.body)
		})
		test.want.RetryAfter = -1
		_, err := clientOf(t, m, m.URL).JoinTokens(context.Background())
		var got *Error
		if !errors.As(err, &got) || *got != test.want {
			t.Errorf("%s: got %#v, want %#v", test.body, got, test.want)
		}
	}
	m := newMember(t, says(200, "<html>"))
	if _, err := clientOf(t, m, m.URL).Members(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "not what a muster server says") {
		t.Errorf("HTML with 200: %v", err)
	}
}

func TestContext(t *testing.T) {
	held := make(chan struct{})
	m := newMember(t, func(http.ResponseWriter, *http.Request) { <-held })
	t.Cleanup(func() { close(held) }) // before the server waits for its handlers
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := clientOf(t, m, m.URL).Members(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := clientOf(t, m, m.URL).Members(ctx); !errors.Is(err, ErrNoServer) ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := clientOf(t, m, m.URL).PromoteMember(ctx, 1); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("deadline of a change: %v", err)
	}
}

// A call that fails says with errors.Is(err, ErrUnknownOutcome), and only with it, that something may have happened.
func TestOutcomeIsTold(t *testing.T) {
	create := func(ctx context.Context, c *Client) error {
		_, err := c.CreateJoinToken(ctx, JoinTokenRequest{})
		return err
	}
	remove := func(ctx context.Context, c *Client) error { _, err := c.RemoveMember(ctx, 2, false); return err }
	read := func(ctx context.Context, c *Client) error { _, err := c.Members(ctx); return err }
	unknown := says(503, `{"error":"raft commit timeout: the request may or may not have been carried out"}`,
		"X-Muster-Outcome", "unknown")
	unknownKeyed := says(503, `{"error":"raft commit timeout: the request may or may not have been carried out"}`,
		"X-Muster-Outcome", "unknown", "Retry-After", "0")
	noLeader := says(503, `{"error":"no leader"}`, "Retry-After", "0")
	for _, x := range []struct {
		name  string
		call  func(context.Context, *Client) error
		steps []http.HandlerFunc
		want  bool
	}{
		{"a creation, and nobody leads", create, []http.HandlerFunc{noLeader}, false},
		{"a creation of unknown outcome, and nobody leads then", create, []http.HandlerFunc{unknownKeyed, noLeader}, true},
		{"a creation whose answer breaks off, and nobody leads then", create, []http.HandlerFunc{dies, noLeader}, true},
		{"a creation whose answers all break off", create, []http.HandlerFunc{dies}, true},
		{"a creation of unknown outcome that is refused then", create,
			[]http.HandlerFunc{unknownKeyed, says(409, `{"error":"no"}`)}, false},
		{"a deletion of unknown outcome", remove, []http.HandlerFunc{unknown}, true},
		{"a deletion whose answer breaks off", remove, []http.HandlerFunc{dies}, true},
		{"a deletion, and nobody leads", remove, []http.HandlerFunc{noLeader}, false},
		{"a deletion that is refused", remove, []http.HandlerFunc{says(409, `{"error":"no"}`)}, false},
		{"a read whose answers break off", read, []http.HandlerFunc{dies}, false},
		{"a read, and nobody leads", read, []http.HandlerFunc{noLeader}, false},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		m := newMember(t, x.steps...)
		err := x.call(ctx, clientOf(t, m, m.URL))
		cancel()
		if err == nil || errors.Is(err, ErrUnknownOutcome) != x.want {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	held := make(chan struct{})
	m := newMember(t, func(http.ResponseWriter, *http.Request) { <-held })
	t.Cleanup(func() { close(held) }) // before the server waits for its handlers
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(300*time.Millisecond, cancel)
	if err := remove(ctx, clientOf(t, m, m.URL)); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("a deletion that was interrupted: %v", err)
	}
	if err := remove(context.Background(), clientOf(t, m, closedAddr(t))); errors.Is(err, ErrUnknownOutcome) ||
		!errors.Is(err, ErrNoServer) {
		t.Errorf("a deletion that reached nobody: %v", err)
	}
}
