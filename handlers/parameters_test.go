package handlers_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/handlers/internal/sole"
)

// TestParametersAreBounded walks the parameters of every query that the description has: one that is too long, and too
// many of them, are refused before anything happens, on every route.
func TestParametersAreBounded(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
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
			r := httptest.NewRequest(rt.Method, strings.ReplaceAll(somePath(rt), "1", "b")+"?"+query,
				http.NoBody).WithContext(ctx)
			r.Header.Set("Authorization", "Bearer "+s.Admin)
			w := httptest.NewRecorder()
			s.API().ServeHTTP(w, r)
			return w
		}
		for _, p := range op.Parameters {
			if p.Value.In != "query" || p.Value.Name == "token" { // that one is a credential
				continue
			}
			for _, query := range []string{p.Value.Name + "=" + strings.Repeat("a", 5000),
				strings.Repeat("&"+p.Value.Name+"=", 100), strings.Repeat("&"+p.Value.Name+"="+strings.Repeat("*", 300), 100)} {
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
