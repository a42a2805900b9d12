package handlers_test

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/internal/netlimit"
)

// A connection beyond the limit is told so, in the words of the family that it asks.
func TestOverfullConnections(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, x := range []struct{ path, body string }{
		{"/api/v1/status", `{"error":"this member has reached its limit of connections; try another one"}`},
		{"/v1/status/leader", "this member has reached its limit of connections; try another one"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", x.path, nil)
		conn := overfullConn(t)
		s.API().ServeHTTP(w, r.WithContext(handlers.WithConnection(context.Background(), conn)))
		if w.Code != 503 || w.Body.String() != x.body || w.Header().Get("Retry-After") == "" ||
			w.Header().Get("Connection") != "close" {
			t.Errorf("%s: %d %s %v", x.path, w.Code, w.Body, w.Header())
		}
	}
	if text := s.Call("GET", "/metrics", "", "").Body.String(); !strings.Contains(text,
		fmt.Sprintf(`muster_http_sent_away_total{limit=%q} 2`, handlers.RefusedConnections)) {
		t.Error("the metric does not tell of it")
	}
}

// overfullConn is a connection beyond the limit.
func overfullConn(t *testing.T) net.Conn {
	t.Helper()
	l := netlimit.New(netlimit.Limits{All: 1})
	for {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		c := l.Admit(a)
		if c == nil {
			t.Fatal("no connection is beyond the limit")
		}
		if c.Overfull() {
			return c
		}
		c.Proven("somebody")
	}
}
