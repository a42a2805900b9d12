package handlers_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// A page of another origin cannot make a browser change anything, nor read what makes something new, in whatever way it
// asks; programs, which say nothing of a page, and muster's own page can.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	foreign := [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"}, {"Origin", "null"}}
	own := [][]string{{}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"}, {"Origin", "https://example.com"}}
	for _, rt := range s.Routes() {
		target := strings.NewReplacer("{name:.*}", "x", "{id}", "1", "{name}", "x", "{file}", "x").Replace(rt.Path)
		for _, h := range foreign {
			w := s.Call(rt.Method, target, "", "", h...)
			said := strings.Contains(w.Body.String(), "web page of another origin")
			if want := rt.Changes() || rt.Keyed; said != want || want && w.Code != 403 {
				t.Errorf("%s %s %v: %d %s", rt.Method, target, h, w.Code, w.Body)
			}
		}
	}
	for _, h := range own {
		w := s.Call("POST", "/api/v1/api-tokens", s.Admin, `{"name":"x","scopes":["enroll"]}`, h...)
		if w.Code != 201 {
			t.Errorf("%v: %d %s", h, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest("POST", "/api/v1/api-tokens", strings.NewReader(`{"name":"x","scopes":["management"]}`))
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.SetBasicAuth("any", s.Admin)
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("a form with Basic credentials: %d %s", w.Code, w.Body)
	}
}

// No browser lets a page of another origin read an answer or send what needs a preflight: no route allows an origin,
// whatever a page asks for, and every type that a form can send is refused like any other.
func TestPagesOfOtherOriginsReadNothing(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	asks := []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "PUT",
		"Access-Control-Request-Headers",
		"authorization, x-consul-token, content-type", "Access-Control-Request-Private-Network", "true"}
	closed := func(method, target string, headers ...string) *httptest.ResponseRecorder {
		w := s.Call(method, target, "", "", headers...)
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s %v: %s: %s", method, target, headers, name, w.Header().Get(name))
			}
		}
		return w
	}
	forms := []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
		"application/json"}
	modes := [][]string{{"Sec-Fetch-Mode", "navigate"}, {"Sec-Fetch-Mode", "no-cors"}, {"Sec-Fetch-Mode", "cors"},
		{"Sec-Fetch-Dest", "iframe"}, {"Sec-Fetch-User", "?1"}}
	for _, rt := range s.Routes() {
		target := strings.NewReplacer("{name:.*}", "x", "{id}", "1", "{name}", "x", "{file}", "x").Replace(rt.Path)
		// some originals answer 200; without Access-Control-Allow-Origin it permits nothing
		closed("OPTIONS", target, asks...)
		closed(rt.Method, target, "Origin", "https://evil.example")
		if !rt.Changes() && !rt.Keyed {
			continue
		}
		for i, form := range forms {
			w := closed(rt.Method, target, append(modes[i], "Sec-Fetch-Site", "cross-site", "Content-Type", form)...)
			if w.Code != 403 {
				t.Errorf("%s %s as %q, %v: %d %s", rt.Method, target, form, modes[i], w.Code, w.Body)
			}
		}
	}
}
