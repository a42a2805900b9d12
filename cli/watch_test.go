package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spf13/cobra"

	"muster/internal/await"
)

// TestNames: -o name prints what other commands take, a line each, for every list and for nothing else.
func TestNames(t *testing.T) {
	outside(t)
	answers := api()
	answers["GET /v1/peerings"] = []string{`[{"ID":"i","Name":"b","State":"FAILING"}]`}
	s := newServer(t, answers)
	t.Setenv("MUSTER_ADDR", s.URL)
	t.Setenv("MUSTER_CACERT", s.caFile(t))
	t.Setenv("MUSTER_TOKEN", "tok")
	for line, want := range map[string]string{
		"members":         "a\nb\n",
		"member list":     "a\nb\n",
		"raft peers":      "aaaaaaaa-0000-4000-8000-000000000001\n",
		"join-token list": "t1\n",
		"peering list":    "b\n",
	} {
		if code, stdout, stderr := run(t, append(strings.Fields(line), "-o", "name")...); code != 0 || stdout != want {
			t.Errorf("%s -o name: exit %d, %q, %q; want %q", line, code, stdout, stderr, want)
		}
	}
	for _, line := range []string{"member show 1", "status", "autopilot config", "version"} {
		if code, _, stderr := run(t, append(strings.Fields(line), "-o", "name")...); code != 2 ||
			!strings.Contains(stderr, "-o name is for commands that print a list") {
			t.Errorf("%s -o name: exit %d, %q", line, code, stderr)
		}
	}
}

// TestEveryListCanBeWatched.
func TestEveryListCanBeWatched(t *testing.T) {
	n := 0
	walk(Command(), func(cmd *cobra.Command) {
		if listing(cmd) {
			n++
			if cmd.Flags().Lookup("watch") == nil || cmd.Flags().Lookup("stale") == nil {
				t.Errorf("%q lacks --watch or --stale", cmd.CommandPath())
			}
		}
	})
	if n < 10 {
		t.Errorf("only %d lists", n)
	}
}

// shared is a buffer that is read while it is written.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestWatchedList: the list is printed again after a change, and Ctrl-C ends it well.
func TestWatchedList(t *testing.T) {
	outside(t)
	var lists atomic.Int32
	change := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status":
			io.WriteString(w, `{"result":{"cluster":{"leaderNodeId":1}}}`)
		case "/api/v1/cluster/members":
			lists.Add(1)
			io.WriteString(w, memberList("active"))
		case "/api/v1/events":
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			for {
				select {
				case <-change:
					io.WriteString(w,
						"id: 7.1\nevent: member\ndata: {\"revision\":7,\"seq\":1,\"type\":\"member\",\"action\":\"member.drain\"}\n\n")
					w.(http.Flusher).Flush()
				case <-r.Context().Done():
					return
				}
			}
		}
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int)
	var out shared
	var errs bytes.Buffer
	go func() { code <- Main(ctx, []string{"members", "--watch", "--addr", s.URL}, nil, &out, &errs) }()
	await.True(t, "one list", func() bool { return lists.Load() >= 1 })
	change <- struct{}{}
	await.True(t, "another list", func() bool { return lists.Load() >= 2 })
	await.True(t, "both are shown", func() bool { return strings.Count(out.String(), "RAFT ADDRESS") >= 2 })
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit %d: %s", got, errs.String())
	}
	if n := strings.Count(out.String(), "RAFT ADDRESS"); n < 2 {
		t.Errorf("the list was printed %d times:\n%s", n, out.String())
	}
}

// TestWatchWithoutLeader: who watches hears once that there is no leader, and once that there is one again.
func TestWatchWithoutLeader(t *testing.T) {
	outside(t)
	var leader atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status":
			fmt.Fprintf(w, `{"result":{"cluster":{"leaderNodeId":%d}}}`, leader.Load())
		case "/api/v1/cluster/members":
			io.WriteString(w, memberList("active"))
		case "/api/v1/events":
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int)
	var out, errs, lists shared
	go func() { code <- Main(ctx, []string{"watch", "--addr", s.URL}, nil, &out, &errs) }()
	await.True(t, "no leader", func() bool {
		return errs.String() == "there is no leader: nothing changes until there is one\n"
	})
	leader.Store(1)
	go func() { code <- Main(ctx, []string{"members", "--watch", "--addr", s.URL}, nil, &lists, io.Discard) }()
	const told = "there is no leader: nothing changes until there is one\nthere is a leader again\n"
	await.True(t, "a leader", func() bool { return errs.String() == told })
	await.True(t, "a list", func() bool { return strings.Count(lists.String(), "RAFT ADDRESS") == 1 })
	leader.Store(0)
	await.True(t, "the list again", func() bool { return strings.Count(lists.String(), "RAFT ADDRESS") == 2 })
	cancel()
	for range 2 {
		if got := <-code; got != 0 {
			t.Errorf("exit %d: %s", got, errs.String())
		}
	}
	if out.String() != "" {
		t.Errorf("it printed %q", out.String())
	}
}

// TestCompletion: the shell is offered the names that the cluster has, and nothing where nobody answers.
func TestCompletion(t *testing.T) {
	outside(t)
	answers := api()
	answers["GET /v1/peerings"] = []string{`[{"ID":"i","Name":"b","State":"FAILING"}]`}
	s := newServer(t, answers)
	ca := s.caFile(t)
	for line, want := range map[string]string{
		"member show":            "a\tmember 1, voter, alive\nb\tmember 2, stand-by, alive\n:4\n",
		"member drain":           "a\tmember 1, voter, alive\nb\tmember 2, stand-by, alive\n:4\n",
		"lease list --member":    "a\tmember 1, voter, alive\nb\tmember 2, stand-by, alive\n:4\n",
		"join-token revoke":      "t1\tvalid\n:4\n",
		"peering delete":         "b\tFAILING\n:4\n",
		"members -o":             "table\njson\nname\n:4\n",
		"member show a":          ":4\n",
		"raft transfer --data x": ":4\n",
	} {
		args := append(strings.Fields(line), "")
		args = append([]string{"__complete", "--addr", s.URL, "--cacert", ca}, args...)
		code, stdout, stderr := run(t, args...)
		if code != 0 || stdout != want {
			t.Errorf("%s: exit %d, %q, %q; want %q", line, code, stdout, stderr, want)
		}
	}
}

// TestScopeIsNamed: a refusal for a missing scope says which one it takes and what the token has.
func TestScopeIsNamed(t *testing.T) {
	outside(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status":
			io.WriteString(w, `{"result":{"cluster":{"leaderNodeId":1}}}`)
		case "/api/v1/whoami":
			io.WriteString(w, `{"result":{"kind":"api-token","id":"t7","name":"ci","scopes":["cluster:read"]}}`)
		default:
			w.Header().Set("X-Muster-Scope", "cluster:manage")
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"error":"Forbidden"}`)
		}
	}))
	defer s.Close()
	code, _, stderr := run(t, "member", "resume", "2", "--addr", s.URL, "--token-file", "-")
	want := "muster: Forbidden (403)\nIt takes the scope cluster:manage. The token \"ci\" (t7) has cluster:read.\n"
	if code != 1 || stderr != want {
		t.Errorf("exit %d, %q, want %q", code, stderr, want)
	}
	if code, stdout, stderr := run(t, "whoami", "--addr", s.URL, "--token-file", "-"); code != 0 ||
		!strings.Contains(stdout, "SCOPES   cluster:read\n") {
		t.Errorf("whoami: exit %d, %q, %q", code, stdout, stderr)
	}
}
