package handlers_test

import (
	"net/http"
	"testing"

	"muster/handlers/internal/sole"
)

// No browser guesses the type of an answer: not of any route, refused or served, nor of a path or method without one.
func TestNoAnswerIsSniffed(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	check := func(method, path, token string, headers ...string) {
		t.Helper()
		w := s.Call(method, path, token, "", headers...)
		if got := w.Header().Values("X-Content-Type-Options"); len(got) != 1 || got[0] != "nosniff" {
			t.Errorf("%s %s: %d with %q", method, path, w.Code, got)
		}
	}
	reader := s.Token()
	for _, rt := range s.Routes() {
		if rt.Stream {
			check(rt.Method, somePath(rt), "")
			continue
		}
		for _, token := range []string{"", reader, s.Admin} {
			if rt.Changes() && token == s.Admin {
				continue
			}
			check(rt.Method, somePath(rt), token)
		}
		check("TRACE", somePath(rt), "")
		check(http.MethodPost, somePath(rt), "", "Sec-Fetch-Site", "cross-site")
	}
	for _, path := range []string{"/", "/nothing", "/_nothing", "/v1/nothing", "/v1/peering/nothing/more", "/ui/nothing"} {
		check(http.MethodGet, path, "")
	}
	check(http.MethodGet, "/", "", "Accept", "text/html")
}
