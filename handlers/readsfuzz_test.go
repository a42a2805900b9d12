package handlers_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"muster/handlers"
	"muster/handlers/internal/sole"
)

// FuzzReads feeds parameters, paths and headers of every route that reads, with a credential for everything: none fails
// but with a status of its own.
func FuzzReads(f *testing.F) {
	s := sole.New(f)
	var reads []*handlers.Route
	for _, rt := range s.Routes() {
		if !rt.Changes() && !rt.Stream && !rt.Whole && !rt.Keyed {
			reads = append(reads, rt)
		}
	}
	for i := range reads {
		f.Add(uint16(i), "x", "stale=&pretty&index=1&wait=1ms&filter_path=a,*&format=json")
		f.Add(uint16(i), "1", "stale=x&filter=Name+==+\"x\"&types=,&limit=-1&after=1.1")
	}
	fill := func(path, text string) string {
		var parts []string
		for part := range strings.SplitSeq(path, "/") {
			if strings.HasPrefix(part, "{") {
				part = url.PathEscape(text)
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, "/")
	}
	f.Fuzz(func(t *testing.T, n uint16, text, query string) {
		rt := reads[int(n)%len(reads)]
		u, err := url.Parse(fill(rt.Path, text))
		if err != nil {
			t.Skip()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // blocking queries
		defer cancel()
		u.RawQuery = query
		r := (&http.Request{
			Method:     http.MethodGet,
			URL:        u,
			Host:       "x",
			Header:     http.Header{"Authorization": {"Bearer " + s.Admin}},
			Body:       http.NoBody,
			RemoteAddr: "192.0.2.1:1",
		}).WithContext(ctx)
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError && !strings.HasPrefix(rt.Path, "/v1/") || w.Code < 200 {
			t.Fatalf("%s?%s: %d %.300s", rt.Path, query, w.Code, w.Body)
		}
	})
}
