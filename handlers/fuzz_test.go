package handlers

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"muster/store"
)

// The fuzz targets of this package are the decoders that meet the bytes of callers. None panics, each is done in a
// moment, and what is refused is refused with a text and a status of its own.

// refusedWell fails unless an error is one that a caller may see.
func refusedWell(t *testing.T, err error) {
	t.Helper()
	var known *Error
	if !errors.As(err, &known) || known.Status < 400 || known.Status > 499 || known.Text == "" {
		t.Fatalf("no refusal: %v", err)
	}
}

func FuzzEventQuery(f *testing.F) {
	f.Add("type=member.joined&revision=1", "1.2")
	f.Add("type=,&type=", "")
	f.Add("revision=-1", "18446744073709551615.1")
	f.Fuzz(func(t *testing.T, query, last string) {
		r := httptest.NewRequest("GET", "/api/v1/events", http.NoBody)
		r.URL.RawQuery = query
		r.Header.Set("Last-Event-ID", last)
		e, err := parseEventQuery(r)
		if err != nil {
			refusedWell(t, err)
		} else if len(e.types) > len(store.EventTypes) {
			t.Fatalf("%d types", len(e.types))
		}
	})
}

func FuzzCredential(f *testing.F) {
	for _, seed := range []string{"Bearer x", "Basic YTpi", "ApiKey YTpi", "bearer", "Basic ====", "apikey " +
		strings.Repeat("A", 100), " \t"} {
		f.Add("/api/v1/status", "", seed, "", "")
		f.Add("/v1/peerings", "token="+seed, seed, seed, "")
	}
	f.Fuzz(func(t *testing.T, path, query, authorization, nomadToken, consulToken string) {
		r := httptest.NewRequest("GET", "/", http.NoBody)
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Nomad-Token", nomadToken)
		r.Header.Set("X-Consul-Token", consulToken)
		if c, ok := Enveloped("muster").credential(r); ok && c.Secret == "" {
			t.Fatalf("a credential without a secret: %+v", c)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add("192.0.2.1:1", "1s", "1", "10", "1s")
	f.Add("[fe80::1%25eth0]:1", "-1s", "x", "-1", "x")
	f.Add("", "999999h", "18446744073709551616", "18446744073709551615", "999999h")
	f.Fuzz(func(t *testing.T, remote, left, asked, index, wait string) {
		r := httptest.NewRequest("GET", "/v1/peerings", http.NoBody)
		r.URL.RawQuery = url.Values{"index": {index}, "wait": {wait}}.Encode()
		r.Header.Set(headerRemote, remote)
		r.Header.Set(headerWait, left)
		r.Header.Set(headerAsked, asked)
		for _, o := range []origin{{}, {forwarded: true}} {
			if ip := addressOf(r, o); ip.IsValid() && ip.Zone() != "" {
				t.Fatalf("%q is counted as %v", remote, ip)
			}
			b := parseBlocking(&Route{Blocks: true}, o, r)
			if waits := b.remaining(); waits < 0 || waits > maxWait+maxWait/8 {
				t.Fatalf("it waits for %v", waits)
			}
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"A":"x","n":1,"l":{"a":"b"},"t":["x"]}`))
	f.Add([]byte(`{"n":1e400,"a":null}`))
	f.Add([]byte(`{"a":"\ud800","A":"y"}`))
	f.Add([]byte("[] x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		x, err := ParseFields(body)
		if err != nil {
			refusedWell(t, err)
			return
		}
		text, n, labels := x.Text("a", false, 1, 8), x.Integer("n", false, 1, 10), x.Labels("l")
		x.Texts("t", false)
		if x.Err != nil {
			refusedWell(t, x.Err)
		} else if len(text) > 8 || !utf8.ValidString(text) || n > 10 || len(labels) > maxLabels {
			t.Fatalf("accepted %q %d %v", text, n, labels)
		}
	})
}
