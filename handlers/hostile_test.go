package handlers_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// Who is known has its share of the memory for bodies, also with many API keys of its own and without any scope, and
// does not use up that of others.
func TestBodiesOfOneCredential(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	addr := s.Serving()
	owner := s.Token(store.ScopeEnroll)
	const size, more = 990_000, 8
	part := strings.Repeat("x", size)
	answers := make(chan int, 100)
	var open []net.Conn
	for i := range handlers.KnownBytes/size + more {
		key := "Bearer " + owner
		if i%2 == 0 {
			key = emptyKey(s, owner)
		}
		c := half(t, addr, "POST /v1/peering/token HTTP/1.1\r\nHost: x\r\nAuthorization: "+key+
			"\r\nContent-Length: 1000000\r\n\r\n"+part)
		open = append(open, c)
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				resp.Body.Close()
				answers <- resp.StatusCode
			}
		}()
	}
	for range more {
		select {
		case status := <-answers:
			if status != http.StatusServiceUnavailable {
				t.Errorf("beyond the share: %d", status)
			}
		case <-time.After(sole.Generous):
			t.Fatal("one credential may have any number of bodies in memory")
		}
	}
	if w := s.Call("PUT", "/api/v1/cluster/secrets/x", s.Admin, `{"value":"`+strings.Repeat("x", 60_000)+
		`"}`); w.Code != 201 {
		t.Errorf("somebody else: %d %s", w.Code, w.Body)
	}
	for _, c := range open {
		c.Close()
	}
	sole.Until(t, "what the requests held is given back", func() bool { return s.BodyBytes() == 0 })
}

// emptyKey makes an API key that may do nothing, and returns how it is shown.
func emptyKey(s *sole.Member, owner string) string {
	s.T.Helper()
	w := s.Call("PUT", "/_security/api_key", owner, `{"name":"nothing","role_descriptors":{"x":{"cluster":[]}}}`,
		"Content-Type", "application/json")
	var made struct{ Encoded string }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || made.Encoded == "" {
		s.T.Fatalf("%d %s", w.Code, w.Body)
	}
	return "ApiKey " + made.Encoded
}

// counting is a handler of a log that counts the lines.
type counting struct{ lines, bytes atomic.Int64 }

func (*counting) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler             { return c }
func (c *counting) WithGroup(string) slog.Handler                  { return c }

func (c *counting) Handle(_ context.Context, r slog.Record) error {
	c.lines.Add(1)
	r.Attrs(func(a slog.Attr) bool { c.bytes.Add(int64(len(a.Value.String()))); return true })
	return nil
}

// The log has few lines of what callers can cause as often as they like, and no long ones.
func TestLogIsNotFilled(t *testing.T) {
	t.Parallel()
	lines := &counting{}
	s := sole.New(t, func(c *sole.Config) { c.Limits.StrangersPerAddress, c.Logger = 1, slog.New(lines) })
	half(t, s.Serving(), "POST /api/v1/cluster/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	sole.Until(t, "a stranger is there", func() bool { return s.Strangers() == 1 })
	long := strings.Repeat("x", 4_000)
	refused := 0
	for range 300 {
		if w := from(s, "127.0.0.1:1", "GET", "/api/v1/"+long, ""); w.Code == 503 {
			refused++
		}
	}
	if n := lines.lines.Load(); n > 0 || refused == 0 {
		t.Errorf("%d lines about %d requests that a limit has refused", n, refused)
	}
	s.AddVoter(func() bool { return false })           // nothing can be confirmed
	ctx, cancel := context.WithTimeout(t.Context(), 0) // their time is up
	defer cancel()
	for range 300 {
		r, _ := http.NewRequestWithContext(ctx, "GET", "/v1/peerings?x="+long, nil)
		r.RemoteAddr = "192.0.2.1:1"
		s.API().ServeHTTP(discard{http.Header{}}, r)
	}
	if n, b := lines.lines.Load(), lines.bytes.Load(); n == 0 || n > 250 || b > 100_000 {
		t.Errorf("%d lines of %d bytes", n, b)
	}
}

// discard is an answer that nobody reads.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// Nothing costly is made of a stranger's body before its join token is known, nor of anybody's before it may.
func TestBodiesOfManyValues(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	many := strings.TrimSuffix(strings.Repeat("{},", 300_000), ",")
	for _, x := range []struct{ method, path string }{{"POST", "/api/v1/cluster/join"}, {"POST", "/v1/peering/token"},
		{"PUT", "/_security/api_key"}, {"POST", "/api/v1/sql"}, {"PUT", "/api/v1/cluster/settings"}} {
		token := s.Admin
		if x.path == "/api/v1/cluster/join" {
			token = ""
		}
		w := s.Call(x.method, x.path, token, fmt.Sprintf(`{"gpus":[%s]}`, many), "Content-Type", "application/json")
		if w.Code != 413 || !strings.Contains(w.Body.String(), "the body must have at most 10000 values") {
			t.Errorf("%s %s: %d %.200s", x.method, x.path, w.Code, w.Body)
		}
	}
}

// A request with very many header fields is refused before anybody has asked who calls, whatever it is for.
func TestManyFields(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, path := range []string{"/", "/api/v1/status", "/api/v1/cluster/members", "/v1/peerings", "/_nodes",
		"/v1/status/leader", "/ui/", "/nothing"} {
		for _, token := range []string{"", s.Admin} {
			distinct, same, few := []string{}, http.Header{}, []string{}
			for i := range 200 {
				distinct = append(distinct, fmt.Sprintf("X-%d", i), "")
				same.Add("X", "")
			}
			for i := range 100 {
				few = append(few, fmt.Sprintf("X-%d", i), "")
			}
			r := httptest.NewRequest("GET", path, nil)
			r.Header = same
			w := httptest.NewRecorder()
			s.API().ServeHTTP(w, r)
			for what, w := range map[string]*httptest.ResponseRecorder{"distinct": s.Call("GET", path, token, "", distinct...),
				"the same": w} {
				if w.Code != http.StatusRequestHeaderFieldsTooLarge ||
					!strings.Contains(w.Body.String(), "a request must have at most 128 header fields") {
					t.Errorf("%s, %s: %d %.200s", path, what, w.Code, w.Body)
				}
			}
			if w := s.Call("GET", path, token, "", few...); w.Code == http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s with 100: %d", path, w.Code)
			}
		}
	}
}

// What is kept with an API key has few levels, and few bytes together with those of the same owner.
func TestDocumentsOfAPIKeys(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	owner := s.Token(store.ScopeEnroll)
	create := func(metadata string) *httptest.ResponseRecorder {
		return s.Call("PUT", "/_security/api_key", owner, `{"name":"x","metadata":`+metadata+`}`, "Content-Type",
			"application/json")
	}
	for _, levels := range []int{21, 900, 5000} {
		w := create(`{"a":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + "}")
		if w.Code != 400 || !strings.Contains(w.Body.String(), "[metadata] must have at most 20 levels") {
			t.Errorf("%d levels: %d %.200s", levels, w.Code, w.Body)
		}
	}
	if w := create(`{"a":"` + strings.Repeat("[", 900) + `\"["}`); w.Code != 200 {
		t.Errorf("brackets in a text: %d %s", w.Code, w.Body)
	}
	large := `{"a":"` + strings.Repeat("x", 16_000) + `"}`
	var made atomic.Int64
	refusals := make(chan *httptest.ResponseRecorder)
	var fill sync.WaitGroup
	for range 16 { // together they share what a write waits for
		fill.Go(func() {
			for {
				w := create(large)
				if w.Code == http.StatusServiceUnavailable { // the process has stood still for a moment
					continue
				}
				if w.Code != 200 || made.Add(1) > 2000 {
					refusals <- w
					return
				}
			}
		})
	}
	for range 16 {
		if w := <-refusals; w.Code != 400 || !strings.Contains(w.Body.String(), "no more than 16777216 are kept") {
			t.Errorf("after %d: %d %.300s", made.Load(), w.Code, w.Body)
		}
	}
	fill.Wait()
	if n := made.Load(); n < 1000 {
		t.Errorf("%d large documents are all that is kept", n)
	}
	if w := create(`{"a":"small"}`); w.Code != 200 {
		t.Errorf("a small one: %d %s", w.Code, w.Body)
	}
}

// Lists of what callers have named show no control characters: they are refused where they would be kept.
func TestControlCharacters(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	var token struct{ Result struct{ Token string } }
	w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{"maxUses":100}`)
	if err := json.Unmarshal(w.Body.Bytes(), &token); err != nil {
		t.Fatal(err)
	}
	join := func(field string) string {
		return `{"token":"` + token.Result.Token + `","advertise_addr":"192.0.2.1","overlay_port":1,"raft_port":1,` + field +
			`}`
	}
	for _, x := range []struct{ method, path, body string }{
		{"POST", "/api/v1/cluster/join", join(`"wg_public_key":"","name":"\u001b[2J"`)},
		{"POST", "/api/v1/cluster/join", join(`"wg_public_key":"","name":"a\nb"`)},
		{"POST", "/api/v1/cluster/join", join(`"wg_public_key":"\u0000"`)},
		{"POST", "/api/v1/cluster/join", join(`"wg_public_key":"","binary_version":"\r"`)},
		{"POST", "/api/v1/cluster/join", join(`"wg_public_key":"","labels":{"a":"\u009b"}`)},
		{"POST", "/api/v1/cluster/join-tokens", `{"labels":{"\u0007":"x"}}`},
		{"POST", "/api/v1/cluster/join-tokens", `{"bindName":"\u0007"}`},
		{"POST", "/api/v1/cluster/enrollment-tokens", `{"name":"\u0007"}`},
		{"POST", "/api/v1/api-tokens", `{"name":"\u0007","scopes":["enroll"]}`},
		{"PUT", "/_security/api_key", `{"name":"\u0007"}`},
		{"PUT", "/api/v1/cluster/leases/a%1bb", `{"nodeId":1,"ttlSeconds":60}`},
		{"PUT", "/api/v1/cluster/leases/a%ff", `{"nodeId":1,"ttlSeconds":60}`},
		{"PUT", "/api/v1/cluster/leases/a", `{"nodeId":1,"ttlSeconds":60,"kind":"\u0007"}`},
	} {
		w := s.Call(x.method, x.path, s.Admin, x.body, "Content-Type", "application/json")
		if w.Code != 400 && w.Code != 422 || !strings.Contains(w.Body.String(), "control characters") {
			t.Errorf("%s %s %s: %d %s", x.method, x.path, x.body, w.Code, w.Body)
		}
	}
}

// A revocation list is signed when something has changed, not for everybody who asks.
func TestRevocationListIsKept(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	list := func() string {
		w := s.Call("GET", "/.well-known/transport.crl", "", "")
		if w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	first := list()
	if list() != first {
		t.Error("the list is signed for each request")
	}
	if w := s.Call("GET", "/_security/enroll/node", "", "", "Authorization", s.EnrollKey(`{}`)); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var enrolled struct{ Result []struct{ ID string } }
	if err := json.Unmarshal(s.Call("GET", "/api/v1/cluster/enrollments", s.Admin, "").Body.Bytes(),
		&enrolled); err != nil || len(enrolled.Result) != 1 {
		t.Fatal(err, enrolled)
	}
	if w := s.Call("DELETE", "/api/v1/cluster/enrollments/"+enrolled.Result[0].ID, s.Admin, ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	der := list()
	parsed, err := x509.ParseRevocationList([]byte(der))
	if err != nil || len(parsed.RevokedCertificateEntries) == 0 {
		t.Errorf("what was revoked is not in the list: %v", err)
	}
}
