package conformance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestCrossOrigin: a page of somebody else, in a browser that has signed in with a password, changes nothing here.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>elsewhere</title>")
	}))
	t.Cleanup(page.Close)
	b := openBrowser(t, c.ca)

	// The browser keeps the password for this origin and sends it along.
	b.open(strings.Replace(c.addrs[0], "https://", "https://admin:"+c.token+"@", 1) + "/_security/_authenticate")
	if said := eval[string](b, `document.body.innerText`); !strings.Contains(said, `"username"`) {
		t.Fatalf("the browser is not signed in: %s", said)
	}
	b.open(page.URL)
	for i, path := range []string{"/api/v1/cluster/join-tokens", "/api/v1/api-tokens", "/_security/api_key"} {
		done := eval[bool](b, fmt.Sprintf(`(window.sent = window.sent || [], fetch(%q, {method: "POST", mode: "no-cors",
			credentials: "include", headers: {"Content-Type": "text/plain"}, body: '{"name":"stolen","scopes":["management"]}'})
			.finally(() => window.sent.push(1)), true)`, c.addrs[0]+path))
		if !done {
			t.Fatal("nothing was sent")
		}
		b.await(fmt.Sprintf("window.sent.length === %d", i+1))
	}
	c.eventually("the member has refused them", func() error {
		resp, err := c.http.Get(c.addrs[0] + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if want := "muster_http_sent_away_total{limit=\"cross_origin\"} 3\n"; err == nil &&
			!strings.Contains(string(text), want) {
			err = fmt.Errorf("the metrics have no %s", want)
		}
		return err
	})
	var tokens, keys []any
	c.result("GET", "/api/v1/cluster/join-tokens", "", &tokens)
	c.result("GET", "/api/v1/api-tokens", "", &keys)
	if len(tokens) != 0 || len(keys) != 1 {
		t.Errorf("there are %d join tokens and %d API tokens", len(tokens), len(keys))
	}
}
