package signin

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"muster/handlers/signin/signintest"
	"muster/internal/addr"
)

// Wherever the issuer is said to be, or sends to, an address that must not be dialled is not.
func TestDials(t *testing.T) {
	var asked atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "{}", http.StatusNotFound)
	}))
	defer provider.Close()
	for _, loopback := range []bool{false, true} {
		c := New(time.Now, slog.New(slog.DiscardHandler), addr.DialPolicy{Any: true, Loopback: loopback})
		_, err := c.discover(t.Context(), Provider{Issuer: provider.URL})
		if !errors.Is(err, ErrAway) || asked.Load() > 0 != loopback {
			t.Errorf("loopback %t: %v, asked %d times", loopback, err, asked.Load())
		}
	}
	c := New(time.Now, slog.New(slog.DiscardHandler), anywhere)
	if _, err := c.discover(t.Context(), Provider{Issuer: "http://169.254.169.254/"}); !errors.Is(err, ErrAway) {
		t.Error(err)
	}
}

// A proxy is asked for no address that nobody may dial.
func TestDialsBehindAProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Host)
		http.Error(w, "", http.StatusBadGateway)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	by := http.ProxyURL(at)
	b := bounded{rate.NewLimiter(rate.Inf, 0), nil, transport(anywhere, by), by}
	for _, address := range []string{"https://169.254.169.254/", "https://[fd00:ec2::254]/x",
		"https://[::ffff:169.254.0.1]:8443/",
		"https://login.example/"} {
		r := httptest.NewRequest(http.MethodGet, address, nil)
		r.RequestURI = ""
		if resp, err := b.RoundTrip(r); err == nil {
			resp.Body.Close()
			t.Errorf("%s answers", address)
		}
	}
	if !slices.Equal(asked, []string{"login.example:443"}) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// TestHTTPSIssuer: a provider whose certificate the machine trusts can be used, also one of an authority that
// SSL_CERT_FILE names. One that shows a certificate for another name, or speaks no TLS, cannot.
func TestHTTPSIssuer(t *testing.T) {
	p := signintest.NewTLS(t, map[string]any{"groups": []string{"ops"}})
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file) // read when the first certificate is checked, once in a process
	ask := func(issuer string) (Person, error) {
		c := New(time.Now, slog.New(slog.DiscardHandler), anywhere)
		return c.Verify(t.Context(), Provider{Issuer: issuer, ClientID: p.ClientID}, p.IDToken(nil), "")
	}
	if who, err := ask(p.URL); err != nil || who.Subject != "person-1" {
		t.Errorf("over HTTPS: %+v, %v", who, err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(p.URL, "https://"), ":")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, issuer := range []string{"https://localhost:" + port, strings.Replace(plain.URL, "http:", "https:", 1)} {
		if _, err := ask(issuer); !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", issuer, err)
		}
	}
}
