package sole

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"muster/api"
	"muster/internal/await"
	"muster/internal/described"
)

// User calls the API as somebody, over HTTP, from an address of their own. Every answer is compared with the
// description of the API.
type User struct {
	Token  string // empty: nobody
	Remote string // address without a port

	client  *http.Client
	members []*Member
	turn    atomic.Int64
}

// users numbers the addresses: failed attempts are counted by address.
var users atomic.Int64

// As returns a user with a token. Of a pair, each member in turn gets one of the user's requests.
func (s *Member) As(token string) *User { return s.user(token, s.Members()) }

// Here returns a user who asks this member only.
func (s *Member) Here(token string) *User { return s.user(token, []*Member{s}) }

func (s *Member) user(token string, members []*Member) *User {
	s.T.Helper()
	n := users.Add(1)
	u := &User{Token: token, Remote: fmt.Sprintf("127.2.%d.%d", byte(n>>8), byte(n)), members: members}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(u.Remote)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	s.T.Cleanup(transport.CloseIdleConnections)
	u.client = &http.Client{
		Transport:     transport,
		Timeout:       await.Limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return u
}

// Members returns the member, and the other one of a pair.
func (s *Member) Members() []*Member {
	if s.follower == nil {
		return []*Member{s}
	}
	return []*Member{s, s.follower}
}

// Root returns a user with the administrator's token, Nobody one without a token.
func (s *Member) Root() *User { return s.As(s.Admin) }

// Nobody returns a user without a token.
func (s *Member) Nobody() *User { return s.As("") }

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

func (a Answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Body) }

// Expect compares an answer with the one that is documented, byte for byte.
func (a Answer) Expect(t testing.TB, what string, status int, body string) {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Errorf("%s: got %v\nwant %d %s", what, a, status, body)
	}
}

// Envelope fails the test unless the answer is an error in the shape of its family, "zlayer" or another one of ours,
// that gives nothing away. It returns the sentence.
func (a Answer) Envelope(t testing.TB, what, family string) string {
	t.Helper()
	var e struct{ Error, Message string }
	decoder := json.NewDecoder(strings.NewReader(a.Body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil || e.Error == "" || (e.Message != "") != (family == "zlayer") {
		t.Errorf("%s: %v is not an error of the %s family", what, a, family)
	}
	for _, bad := range []string{"/tmp", "SELECT", "sqlite", "goroutine", "json:", "unmarshal", "strconv", ".go:"} {
		if strings.Contains(a.Body, bad) {
			t.Errorf("%s: the text says too much: %s", what, a.Body)
		}
	}
	if family == "zlayer" {
		return e.Message
	}
	return e.Error
}

var book described.Book

// Do sends one request. Headers are "Name: value"; without a value the header is left out.
func (u *User) Do(method, target, body string, headers ...string) Answer {
	s := u.members[int(u.turn.Add(1))%len(u.members)]
	s.T.Helper()
	a, err := u.try(s, method, target, body, headers...)
	if err != nil {
		s.T.Errorf("%s %s: %v", method, target, err)
	}
	return a
}

func (u *User) try(s *Member, method, target, body string, headers ...string) (a Answer, err error) {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, "http://"+s.address()+target, in)
	if err != nil {
		return a, err
	}
	if u.Token != "" {
		r.Header.Set("Authorization", "Bearer "+u.Token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	resp, err := u.client.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	a = Answer{resp.StatusCode, resp.Header, string(data)}
	if err == nil {
		book.Check(s.T, described.Exchange{
			Method: method,
			Target: r.URL.RequestURI(),
			Header: r.Header,
			Body:   body,
			Status: a.Status,
			Answer: a.Header,
			Text:   a.Body,
		})
	}
	return a, err
}

// address is where the member serves the API, from the first call on.
func (s *Member) address() string {
	s.served.Do(func() { s.at = s.Serving() })
	return s.at
}

// Get decodes the result of a call of our own API that must succeed.
func Get[T any](u *User, method, target, body string, headers ...string) T {
	t := u.members[0].T
	t.Helper()
	var v struct{ Result T }
	a := u.Do(method, target, body, headers...)
	if a.Status < 200 || a.Status > 299 {
		t.Fatalf("%s %s: %v", method, target, a)
	}
	if err := json.Unmarshal([]byte(a.Body), &v); err != nil {
		t.Fatalf("%s %s: %v: %s", method, target, err, a.Body)
	}
	return v.Result
}

// APIToken makes an API token with these scopes.
func (u *User) APIToken(name string, scopes ...string) api.APIToken {
	list, _ := json.Marshal(scopes)
	x := Get[api.APIToken](u, "POST", "/api/v1/api-tokens", fmt.Sprintf(`{"name":%q,"scopes":%s}`, name, list))
	u.Secret("an API token", x.Token)
	return x
}

// JoinToken makes a join token.
func (u *User) JoinToken(body string) api.JoinToken {
	x := Get[api.JoinToken](u, "POST", "/api/v1/cluster/join-tokens", body)
	u.Secret("a join token", x.Token)
	return x
}

// Unchanged makes requests, as the administrator, that must change nothing.
func (s *Member) Unchanged(requests func(u *User)) {
	s.T.Helper()
	u := s.Root()
	state := func() (text string) {
		for _, list := range []string{"cluster/members", "cluster/join-tokens", "api-tokens"} {
			text += u.Do("GET", "/api/v1/"+list, "").Body + "\n"
		}
		return text
	}
	before := state()
	requests(u)
	if after := state(); after != before {
		s.T.Errorf("the requests have changed something; before:\n%s\nafter:\n%s", before, after)
	}
}

// AwaitSQL waits until a query of the mirror returns a value.
func (s *Member) AwaitSQL(query, want string) {
	s.T.Helper()
	await.NoError(s.T, query, func() error {
		if got := s.Query(query); got != want {
			return fmt.Errorf("got %s, want %s", got, want)
		}
		return nil
	})
}

// Secret remembers a text that must be in no file of the member when the test ends.
func (s *Member) Secret(what, text string) { s.secrets.Store(text, what) }

// Secret is Member.Secret.
func (u *User) Secret(what, text string) { u.members[0].Secret(what, text) }

// searched fails the test for a secret in a file of the member, in clear.
func (s *Member) searched() {
	_ = filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file may go while we look
		}
		data, _ := os.ReadFile(path)
		s.secrets.Range(func(text, what any) bool {
			if bytes.Contains(data, []byte(text.(string))) {
				s.T.Errorf("%s is in %s", what, filepath.Base(path))
			}
			return true
		})
		return nil
	})
}
