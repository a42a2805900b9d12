package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestParametersAreBounded walks the parameters of every query that the description has: one that is too long, and too
// many of them, are refused before anything happens, on every route.
func TestParametersAreBounded(t *testing.T) {
	s := newTestServer(t)
	pattern := regexp.MustCompile(`\{(\w+):[^}]*\}`)
	doc := description(t)
	n := 0
	for _, rt := range s.Routes() {
		if rt.Family.Name == "ui" {
			continue
		}
		op := doc.Paths.Map()[pattern.ReplaceAllString(rt.Path, "{$1}")].GetOperation(rt.Method)
		ask := func(query string) *httptest.ResponseRecorder {
			n++
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // a stream would not end by itself
			defer cancel()
			r := httptest.NewRequest(rt.Method, strings.ReplaceAll(somePath(rt), "1", "b")+"?"+query, http.NoBody).WithContext(ctx)
			r.Header.Set("Authorization", "Bearer "+s.admin)
			w := httptest.NewRecorder()
			s.API().ServeHTTP(w, r)
			return w
		}
		for _, p := range op.Parameters {
			if p.Value.In != "query" || p.Value.Name == "token" { // that one is a credential
				continue
			}
			for _, query := range []string{p.Value.Name + "=" + strings.Repeat("a", 5000), strings.Repeat("&"+p.Value.Name+"=", 100), strings.Repeat("&"+p.Value.Name+"="+strings.Repeat("*", 300), 100)} {
				if w := ask(query); w.Code < 400 || w.Code > 499 && !strings.HasPrefix(w.Body.String(), "No path to region") {
					t.Errorf("%s %s?%.60s…: %d %.200s", rt.Method, rt.Path, query, w.Code, w.Body)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d requests were tried", n)
	}
}

// TestKeyLists: the lists and patterns that name API keys are bounded.
func TestKeyLists(t *testing.T) {
	s := newTestServer(t)
	ids := func(n int, id string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%s%d", id, i)
		}
		data, err := json.Marshal(map[string]any{"ids": list})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	long := strings.Repeat("a*", MaxParameterBytes/2) + "a"
	for body, want := range map[string]string{
		ids(MaxListed, "x"): "", ids(MaxListed+1, "x"): "ids must be at most 1000", ids(1, long): "an id must be at most 1024 bytes long",
		`{"id":"` + long + `"}`: "an id must be at most 1024 bytes long", `{"name":"` + long + `"}`: "name must be at most 1024 bytes long",
		`{"username":"` + long + `"}`: "username must be at most", `{"realm_name":"` + long + `"}`: "realm_name must be at most", `{"name":"` + long[:1000] + `"}`: "",
	} {
		w := s.call("DELETE", "/_security/api_key", s.admin, body, "Content-Type", "application/json")
		if status := map[bool]int{true: 200, false: 400}[want == ""]; w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.60s: %d %.200s, want %d %s", body, w.Code, w.Body, status, want)
		}
	}
}
