package handlers_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// A stream of events that is open ends with the credential that opened it, before anything that came after.
func TestStreamEndsWithCredential(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	t.Cleanup(s.EndStreams)
	addr := s.Serving()
	revoke := func(path string) func() {
		return func() {
			if w := s.Call("DELETE", path, s.Admin, ""); w.Code != 200 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
	}
	made := func(path, body string) (id, secret string) {
		w := s.Call("POST", path, s.Admin, body, "Content-Type", "application/json")
		var out struct {
			ID, Encoded string
			Result      struct{ ID, Token string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err, w.Body)
		}
		if out.Encoded != "" {
			return out.ID, "ApiKey " + out.Encoded
		}
		return out.Result.ID, "Bearer " + out.Result.Token
	}
	tokenID, token := made("/api/v1/api-tokens", `{"name":"x","scopes":["cluster:read"]}`)
	keyID, key := made("/_security/api_key", `{"name":"x","role_descriptors":{"x":{"cluster":["monitor"]}}}`)
	expiring, _ := s.Expiring(3*time.Second, store.ScopeClusterRead)
	for _, x := range []struct {
		what, credential string
		end              func()
	}{
		{"a revoked token", token, revoke("/api/v1/api-tokens/" + tokenID)},
		{"a revoked API key", key, func() {
			w := s.Call("DELETE", "/_security/api_key", s.Admin, `{"ids":["`+keyID+`"]}`, "Content-Type", "application/json")
			if w.Code != 200 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}},
		{"a token that expires", "Bearer " + expiring, func() {}},
	} {
		c := half(t, addr, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: "+x.credential+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(x.what, err, resp)
		}
		sole.Until(t, x.what+" reads", func() bool { return s.EventReaders() == 1 })
		x.end()
		_ = c.SetReadDeadline(time.Now().Add(sole.Generous))
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || strings.Contains(string(text), "revoke") || strings.Contains(string(text), "api_token.delete") {
			t.Errorf("%s: %v %s", x.what, err, text)
		}
		sole.Until(t, x.what+" reads no more", func() bool { return s.EventReaders() == 0 })
	}
}

// A mirror that is behind what a reader has been told of does not say that the reader's credential is good: what it
// lacks may be the end of that credential.
func TestMirrorBehindItsReader(t *testing.T) {
	t.Parallel()
	var deposed atomic.Bool
	s := sole.New(t)
	s.AddVoter(func() bool { return !deposed.Load() })
	unknown := httptest.NewRequest("GET", "/api/v1/events", nil)
	unknown.Header.Set("Authorization", "Bearer "+certs.NewSecret())
	sole.Until(t, "the mirror has all", func() bool { return s.Store.Mirror.Revision() >= s.Store.Revision() })
	deposed.Store(true) // from here on only the mirror answers who nobody knows
	var refusal *handlers.Error
	if err := s.MayRead(unknown, 0); !errors.As(err, &refusal) || refusal.Status != 401 {
		t.Errorf("a mirror that has all: %v", err)
	}
	if err := s.MayRead(unknown, s.Store.Revision()+1); !errors.Is(err, store.ErrNoLeader) {
		t.Errorf("a mirror that is behind: %v", err)
	}
	deposed.Store(false)
}

// A blocking query that waits answers nothing to a credential that has been revoked meanwhile.
func TestBlockingEndsWithCredential(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	addr := s.Serving()
	for _, path := range []string{"/v1/peerings", "/v1/peering/there"} {
		if w := s.Call("POST", "/v1/peering/token", s.Admin, `{"PeerName":"there"}`); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		w := s.Call("POST", "/api/v1/api-tokens", s.Admin, `{"name":"x","scopes":["peering:read"]}`)
		var made struct{ Result struct{ ID, Token string } }
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
			t.Fatal(err)
		}
		index := s.Call("GET", path, made.Result.Token, "").Header().Get("X-Consul-Index")
		c := half(t, addr, "GET "+path+"?wait=5m&index="+index+" HTTP/1.1\r\nHost: x\r\nX-Consul-Token: "+made.Result.Token+
			"\r\n\r\n")
		sole.Until(t, "a query waits", func() bool { return s.Waiting() == 1 })
		if w := s.Call("DELETE", "/api/v1/api-tokens/"+made.Result.ID, s.Admin, ""); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w := s.Call("POST", "/v1/peering/token", s.Admin, `{"PeerName":"there","Meta":{"a":"`+made.Result.ID+
			`"}}`); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if status, body := answerOf(t, c); status != 403 || body != "ACL not found" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
