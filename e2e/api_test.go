package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/internal/await"
)

// user calls the API of a cluster as somebody, from an address of its own.
type user struct {
	cluster *cluster
	token   string
	from    net.IP
	http    *http.Client
}

// answer is what came back; err when nothing did.
type answer struct {
	status int
	header http.Header
	body   string
	begin  time.Time
	took   time.Duration
	err    error
}

func (a answer) late(limit time.Duration) bool { return late(a.begin, a.took, limit) }

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.status, a.body)
}

// admin calls with the administrator's token.
func (c *cluster) admin(t *testing.T) *user { return c.as(t, c.token) }

// nobody calls without a token.
func (c *cluster) nobody(t *testing.T) *user { return c.as(t, "") }

func (c *cluster) as(t *testing.T, token string) *user {
	u := &user{cluster: c, token: token, from: source()}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(c.members[0].file("ca.crt"))
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("no CA certificate: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: 3 * time.Second, LocalAddr: &net.TCPAddr{IP: u.from}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	u.http = &http.Client{Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return u
}

// do sends one request; headers are "Name: value", one without a value takes the header out.
func (u *user) do(m *member, method, path, body string, headers ...string) (a answer) {
	begin := time.Now()
	defer func() { a.begin, a.took = begin, time.Since(begin) }()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "https://"+m.api+path, reader)
	if err != nil {
		return answer{err: err}
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Del(name)
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	a = answer{status: resp.StatusCode, header: resp.Header, body: string(data), err: err}
	record(req, body, a)
	return a
}

// patiently repeats a request that is safe to repeat while the cluster says that it cannot answer now.
func (u *user) patiently(m *member, method, path, body string) (a answer) {
	_ = await.Slowly(formed, func() error {
		if a = u.do(m, method, path, body); a.status == http.StatusServiceUnavailable {
			return errNotYet
		}
		return nil
	})
	return a
}

// get decodes the result of a call that must succeed.
func get[T any](t *testing.T, u *user, m *member, method, path, body string, headers ...string) T {
	t.Helper()
	v, err := try[T](u, m, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func try[T any](u *user, m *member, method, path, body string, headers ...string) (T, error) {
	var v struct{ Result T }
	a := u.do(m, method, path, body, headers...)
	if a.err != nil {
		return v.Result, a.err
	}
	if a.status < 200 || a.status > 299 {
		return v.Result, fmt.Errorf("%s %s: %v", method, path, a)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		return v.Result, fmt.Errorf("%s %s: %w: %s", method, path, err, a.body)
	}
	return v.Result, nil
}

func (m *member) tryStatus() (st client.Status, err error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(m.file("ca.crt"))
	if err != nil {
		return st, err
	}
	pool.AppendCertsFromPEM(pem)
	hc := &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	resp, err := hc.Get("https://" + m.api + "/api/v1/status")
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	var v struct{ Result client.Status }
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return st, err
	}
	if v.Result.Cluster == nil {
		return st, errors.New("the status names no cluster")
	}
	return v.Result, nil
}

func (m *member) status(t *testing.T) client.Status {
	t.Helper()
	st, err := m.tryStatus()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (u *user) tryMembers(m *member) ([]client.Member, error) {
	return try[[]client.Member](u, m, "GET", "/api/v1/cluster/members", "")
}

func (u *user) members(t *testing.T, m *member) []client.Member {
	t.Helper()
	return get[[]client.Member](t, u, m, "GET", "/api/v1/cluster/members", "")
}

func (u *user) tokens(t *testing.T, m *member) []client.JoinToken {
	t.Helper()
	return get[[]client.JoinToken](t, u, m, "GET", "/api/v1/cluster/join-tokens", "")
}

// joinToken finds one token in the list.
func (u *user) joinToken(t *testing.T, m *member, id string) client.JoinToken {
	t.Helper()
	for _, x := range u.tokens(t, m) {
		if x.ID == id {
			return x
		}
	}
	t.Fatalf("join token %s is not in the list", id)
	return client.JoinToken{}
}

type minted struct {
	Token, ID string
	ExpiresAt int64
}

// mint makes a token through the documented endpoint.
func (u *user) mint(t *testing.T, m *member, node uint64) minted {
	t.Helper()
	x := get[minted](t, u, m, "POST", "/api/v1/cluster/pki/join-tokens", fmt.Sprintf(`{"nodeID":%d}`, node))
	u.cluster.secret("a join token", x.Token)
	return x
}

// create makes a token through muster's own endpoint.
func (u *user) create(t *testing.T, m *member, body string) client.NewJoinToken {
	t.Helper()
	x := get[client.NewJoinToken](t, u, m, "POST", "/api/v1/cluster/join-tokens", body)
	u.cluster.secret("a join token", x.Token)
	return x
}

// apiToken makes an API token with these scopes.
func (u *user) apiToken(t *testing.T, m *member, name string, scopes ...string) client.NewAPIToken {
	t.Helper()
	list, _ := json.Marshal(scopes)
	x := get[client.NewAPIToken](t, u, m, "POST", "/api/v1/api-tokens", fmt.Sprintf(`{"name":%q,"scopes":%s}`, name, list))
	u.cluster.secret("an API token", x.Token)
	return x
}

// expect compares an answer with the one that is documented, byte for byte.
func (a answer) expect(t *testing.T, what string, status int, body string) {
	t.Helper()
	if a.err != nil || a.status != status || a.body != body {
		t.Errorf("%s: got %v\nwant %d %s", what, a, status, body)
	}
}
