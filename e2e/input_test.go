package e2e

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestInput: every request gets an answer of its family, however wrong it is.
func TestInput(t *testing.T) {
	t.Parallel()
	onThree(t,
		part{"too large", testTooLarge},
		part{"raw requests", testRawRequests},
	)
}

// state is what a refused request must leave as it is: the members and the join tokens with their uses.
func (u *user) state(t *testing.T, m *member) string {
	t.Helper()
	tokens, err := json.Marshal(u.tokens(t, m))
	if err != nil {
		t.Fatal(err)
	}
	list := u.members(t, m)
	for i := range list {
		list[i] = steady(list[i])
	}
	members, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	apiTokens := u.do(m, "GET", "/api/v1/api-tokens", "")
	return string(members) + "\n" + string(tokens) + "\n" + apiTokens.body
}

// steady is a member without what changes by itself.
func steady(m client.Member) client.Member {
	m.Status, m.Role, m.Suffrage, m.IsLeader, m.DownSince, m.ZoneCost = "", "", "", false, time.Time{}, ""
	return m
}

// unchanged runs requests that must change nothing.
func unchanged(t *testing.T, c *cluster, run func(u *user)) {
	t.Helper()
	u := c.admin(t)
	m := c.leader(t)
	before := u.state(t, m)
	run(u)
	if after := u.state(t, m); after != before {
		t.Errorf("requests that were refused have changed something; before:\n%s\nafter:\n%s", before, after)
	}
}

// envelope checks that an error is in the shape of its family and gives nothing away.
func (a answer) envelope(t *testing.T, what, family string) string {
	t.Helper()
	var e struct{ Error, Message string }
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); a.err != nil || err != nil || e.Error == "" ||
		(e.Message != "") != (family == "zlayer") {
		t.Errorf("%s: %v is not an error of the %s family", what, a, family)
	}
	for _, bad := range []string{"/tmp", "SELECT", "sqlite", "goroutine", "json:", "unmarshal", "strconv", ".go:"} {
		if strings.Contains(a.body, bad) {
			t.Errorf("%s: the text says too much: %s", what, a.body)
		}
	}
	if family == "zlayer" {
		return e.Message
	}
	return e.Error
}

// testTooLarge: a body over 1 MiB is refused without being read to its end, over either protocol.
func testTooLarge(t *testing.T, c *cluster) {
	endless := func() io.Reader { return io.MultiReader(strings.NewReader(`{"query":"`), &zeros{left: 64 << 20}) }
	unchanged(t, c, func(u *user) {
		old := c.admin(t)
		old.http.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
		old.http.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		for _, u := range []*user{u, old} {
			begin := time.Now()
			req, _ := http.NewRequest("POST", "https://"+c.members[0].api+"/api/v1/sql", endless())
			req.Header.Set("Authorization", "Bearer "+c.token)
			resp, err := u.http.Do(req)
			if err != nil {
				t.Errorf("64 MiB: %v", err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != 413 && resp.StatusCode != 400 || late(begin, time.Since(begin), 5*time.Second) {
				t.Errorf("64 MiB over %s: %s after %v", resp.Proto, resp.Status, time.Since(begin))
			}
		}
	})
}

// zeros is a body that takes its time.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	for i := range p[:n] {
		p[i] = '0'
	}
	z.left -= n
	return n, nil
}

// testRawRequests: what no HTTP client would send.
func testRawRequests(t *testing.T, c *cluster) {
	m := c.members[1]
	for _, x := range []struct {
		name, request string
		status        string // "": closed without an answer, or any 4xx
	}{
		{"no HTTP", "hello\r\n\r\n", "400"},
		{"a bad request line", "GET\r\n\r\n", "400"},
		{"no host", "GET /api/v1/status HTTP/1.1\r\n\r\n", "400"},
		{"two hosts", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		{"a header without a colon", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", "400"},
		{"a blank before the colon", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Nomad-Token : a\r\n\r\n", "400"},
		{"a NUL in a header", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Nomad-Token: a\x00b\r\n\r\n", "400"},
		{"a negative length", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"},
		{"two lengths", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400"},
		{"a bad chunk",
			"POST /api/v1/cluster/join HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: " +
				"chunked\r\n\r\nzz\r\n", "400"},
		{"an unknown transfer encoding", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"},
		{"huge headers", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Large: " + strings.Repeat("a", 200_000) + "\r\n\r\n",
			"431"},
		{"a path that does not decode", "GET /api/v1/%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"HTTP/0.9", "GET /api/v1/status\r\n\r\n", "400"},
		{"HTTP/1.0", "GET /api/v1/status HTTP/1.0\r\n\r\n", "200"},
		{"an absolute path", "GET https://elsewhere/api/v1/status HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n",
			"200"},
		{"a body that ends early",
			"POST /api/v1/cluster/join HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: " +
				"10\r\nConnection: close\r\n\r\n{}", ""},
	} {
		conn, err := tls.Dial("tcp", m.api,
			&tls.Config{RootCAs: pool(t, m.read(t, "ca.crt")), NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
		_, _ = io.WriteString(conn, x.request)
		if x.status == "" {
			_ = conn.CloseWrite()
		}
		line := make([]byte, 12)
		_, err = io.ReadFull(conn, line)
		conn.Close()
		switch {
		case x.status == "" && err == nil && !strings.HasPrefix(string(line), "HTTP/1.1 4"),
			x.status != "" && (err != nil || string(line[9:]) != x.status):
			t.Errorf("%s: %q (%v), want %s", x.name, line, err, x.status)
		}
	}
	if !m.status(t).Ready {
		t.Error("the member is not ready any more")
	}
}
