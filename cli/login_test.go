package cli

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	signedInAs = `201 {"result":{"id":"k9","name":"ada@example.org","scopes":["cluster:read"],"token":"HER-SECRET",` +
		`"createdBy":"sign-in 1","createdAt":"2026-05-06T10:00:00Z","expiresAt":"2026-05-06T11:00:00Z"}}`
	methods = `{"result":{"issuer":"https://id.example.org","clientId":"muster","authorizationEndpoint":` +
		`"https://id.example.org/authorize","device":true,"scopes":["openid","email"]}}`
)

// TestLogin: the token alone is printed on stdout, after the person has said yes somewhere else.
func TestLogin(t *testing.T) {
	device := `{"result":{"deviceCode":"d-1","userCode":"WDJB-MJHT","verificationUri":"https://id.example.org/go",` +
		`"interval":1}}`
	for _, c := range []struct {
		name    string
		answers map[string][]string
		code    int
		stdout  string
		stderr  []string
	}{
		{"device", map[string][]string{"GET /api/v1/login": {methods}, "POST /api/v1/login/device": {device},
			"POST /api/v1/login": {`202 {"result":{"message":"not yet"}}`, signedInAs}}, 0, "HER-SECRET\n",
			[]string{"open https://id.example.org/go and enter WDJB-MJHT", "signed in as ada@example.org for cluster:read"}},
		{"refused", map[string][]string{"GET /api/v1/login": {methods}, "POST /api/v1/login/device": {device},
			"POST /api/v1/login": {`403 {"error":"eve is known to the identity provider, and no rule gives her a scope"}`}}, 1,
			"",
			[]string{"eve is known"}},
		{"nobody signs in", map[string][]string{"GET /api/v1/login": {`{"result":{"issuer":"","device":false}}`}}, 1, "",
			[]string{"sign-in is off in this cluster"}},
		{"away",
			map[string][]string{"GET /api/v1/login": {`{"result":{"issuer":"https://x","device":false,"problem":"the identity ` +
				`provider does not answer"}}`}},
			1, "", []string{"does not answer; API tokens work as before"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			outside(t)
			s := newServer(t, c.answers)
			t.Setenv("MUSTER_ADDR", s.URL)
			t.Setenv("MUSTER_CACERT", s.caFile(t))
			code, stdout, stderr := run(t, "login")
			if code != c.code || stdout != c.stdout {
				t.Errorf("exit status %d, stdout %q: %s", code, stdout, stderr)
			}
			contains(t, "stderr", stderr, c.stderr)
		})
	}
}

// TestLoginBrowser: a browser on this machine brings the code, with the state that was sent along and no other.
func TestLoginBrowser(t *testing.T) {
	outside(t)
	s := newServer(t, map[string][]string{"GET /api/v1/login": {methods}, "POST /api/v1/login": {signedInAs}})
	t.Setenv("MUSTER_ADDR", s.URL)
	t.Setenv("MUSTER_CACERT", s.caFile(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	said, errs := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, []string{"login", "--browser"}, strings.NewReader(""), &out, errs)
		errs.Close()
	}()
	lines := bufio.NewScanner(said)
	var to *url.URL
	for to == nil && lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "open "); ok {
			to, _ = url.Parse(text)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	if to == nil {
		t.Fatal("no address is shown")
	}
	q := to.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("client_id") != "muster" || q.Get("nonce") == "" {
		t.Errorf("the address is %s", to)
	}
	visit := func(state string) int {
		resp, err := http.Get(q.Get("redirect_uri") + "?" + url.Values{"code": {"c-1"}, "state": {state}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := visit("another"); code != http.StatusBadRequest {
		t.Errorf("another state: %d", code)
	}
	if code := visit(q.Get("state")); code != http.StatusOK {
		t.Errorf("the browser comes back: %d", code)
	}
	if code := <-done; code != 0 || out.String() != "HER-SECRET\n" {
		t.Errorf("exit status %d, %q", code, out.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.requests[len(s.requests)-1]
	for _, part := range []string{`"code":"c-1"`, `"codeVerifier":"`, `"redirectUri":"` + q.Get("redirect_uri"),
		`"nonce":"` + q.Get("nonce")} {
		if !strings.Contains(last, part) {
			t.Errorf("%s lacks %s", last, part)
		}
	}
}
