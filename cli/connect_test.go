package cli

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"muster/internal/silent"
)

// TestPrecedence: explicit flags, then --data, then the environment, then what "muster dev" left behind.
func TestPrecedence(t *testing.T) {
	answers := map[string][]string{"GET /api/v1/cluster/members": {memberList("active")}}
	for _, test := range []struct {
		name                      string
		dev, env, data, addr, tok bool
		server, token             string // who is asked, with which token
	}{
		{"dev only", true, false, false, false, false, "dev", "dev-token"},
		{"environment over dev", true, true, false, false, false, "env", "env-token"},
		{"data over environment", true, true, true, false, false, "data", "data-token"},
		{"token flag over data", true, true, true, false, true, "data", "flag-token"},
		{"address flag over all", true, true, true, true, false, "flag", "data-token"},
		{"all flags", true, true, true, true, true, "flag", "flag-token"},
		{"token flag with dev", true, false, false, false, true, "dev", "flag-token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			outside(t)
			servers := map[string]*server{}
			for _, name := range []string{"dev", "env", "data", "flag"} {
				servers[name] = newServer(t, answers) // all have the same certificate
			}
			args := []string{"members"}
			if test.dev {
				servers["dev"].data(t, "data/1", "dev-token")
			}
			if test.env {
				t.Setenv("MUSTER_ADDR", servers["env"].URL)
				t.Setenv("MUSTER_TOKEN", "env-token")
				t.Setenv("MUSTER_CACERT", servers["env"].caFile(t))
			}
			if test.data {
				args = append(args, "--data", servers["data"].data(t, t.TempDir(), "data-token"))
			}
			if test.addr {
				args = append(args, "--addr", servers["flag"].URL)
			}
			if test.tok {
				args = append(args, "--token-file", write(t, filepath.Join(t.TempDir(), "token"), "flag-token\n"))
			}
			code, _, stderr := run(t, args...)
			if code != 0 {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			for name, s := range servers {
				requests, tokens := s.sent()
				if (name == test.server) != (len(requests) == 1) {
					t.Errorf("%s was asked %d times", name, len(requests))
				}
				if name == test.server && tokens[0] != test.token {
					t.Errorf("token %q, want %q", tokens[0], test.token)
				}
			}
		})
	}
}

// TestDevCluster: the other members of a cluster made by "muster dev" answer when the first is down.
func TestDevCluster(t *testing.T) {
	outside(t)
	s := newServer(t, api())
	s.data(t, "data/1", "tok")
	s.data(t, "data/2", "")
	write(t, "data/1/node.json", `{"apiAddress":"`+silent.Gone(t)+`"}`)
	if code, stdout, stderr := run(t, "members"); code != 0 || !strings.Contains(stdout, "stand-by") {
		t.Errorf("members: exit %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr := run(t, "status")
	if code != 0 || strings.Count(stdout, "\n") != 3 || !strings.Contains(stdout, "no answer") ||
		!strings.Contains(stderr, "connection refused") {
		t.Errorf("status: exit %d\n%s%s", code, stdout, stderr)
	}
	write(t, "data/1/removed.json", "{}") // nobody asks a member that was removed
	if code, stdout, stderr := run(t, "status"); code != 0 || strings.Count(stdout, "\n") != 2 || stderr != "" {
		t.Errorf("status without the first: exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestConnectErrors(t *testing.T) {
	outside(t)
	s := newServer(t, map[string][]string{"GET /api/v1/cluster/members": {`401 {"error":"Invalid token"}`}})
	empty := write(t, filepath.Join(t.TempDir(), "empty"), "\n")
	x, y := silent.Gone(t), silent.Gone(t)
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"--addr " + x + "," + y, 3, "muster: no server answered:\n  https://" + x + ": connection refused\n  https://" + y +
			": connection refused\n"},
		{"--addr " + x, 3, "muster: no answer from https://" + x + ": connection refused\n"},
		{"--addr " + s.URL, 3, "with --cacert FILE or MUSTER_CACERT"},
		{"--addr " + s.URL + " --cacert " + s.caFile(t), 1,
			"muster: Invalid token (401): there is no token; give --token-file"},
		{"--addr " + s.URL + " --cacert " + s.caFile(t) + " --token-file -", 1, "muster: Invalid token (401)\n"},
		{"--addr ftp://x", 2, "muster: bad address \"ftp://x\""},
		{"--token-file /nix/nix", 1, "muster: cannot read the token: open /nix/nix: no such file or directory\n"},
		{"--cacert " + empty, 2, "holds no certificate in PEM form\n"},
		{"--data " + os.TempDir(), 1, "is not the data directory of a member: it has no node.json\n"},
	} {
		code, stdout, stderr := run(t, append([]string{"members"}, strings.Fields(test.args)...)...)
		if code != test.code || stdout != "" || !strings.HasPrefix(stderr, "muster: ") ||
			!strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q\nwant %q", test.args, code, stdout, stderr, test.want)
		}
	}
	for name, in := range map[string]string{empty: "", "-": " \n"} {
		var stdout, stderr strings.Builder
		code := Main(context.Background(), []string{"members", "--token-file", name}, strings.NewReader(in), &stdout, &stderr)
		if code != 2 || stdout.String() != "" || !strings.HasPrefix(stderr.String(), "muster: ") ||
			!strings.HasSuffix(stderr.String(), "is empty\n") {
			t.Errorf("an empty token in %s: exit %d, %q %q", name, code, stdout.String(), stderr.String())
		}
	}
	if code, stdout, stderr := run(t, "status", "--addr", x); code != 3 || !strings.Contains(stdout, "no answer") ||
		!strings.HasSuffix(stderr, "muster: no server answered\n") {
		t.Errorf("status of nobody: exit %d, %q %q", code, stdout, stderr)
	}
	if _, _, stderr := run(t, "members", "--addr", "http://192.0.2.1:1,"+s.URL, "--cacert", s.caFile(t), "--token-file",
		"-"); !strings.Contains(stderr, "warning: http://192.0.2.1:1 is not encrypted") {
		t.Errorf("no warning: %q", stderr)
	}
}

// The exit status and a sentence tell whether something may have happened.
func TestUnansweredIsExit3(t *testing.T) {
	outside(t)
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodDelete: // the answer does not come
			panic(http.ErrAbortHandler)
		case http.MethodPost:
			w.Header().Set("X-Muster-Outcome", "unknown")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":"raft commit timeout: the request may or may not have been carried out"}`)
		}
	}))
	hang.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer hang.Close()
	leaderless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
			return
		}
		http.Error(w, `{"error":"no cluster leader: raft commit timeout"}`, http.StatusServiceUnavailable)
	}))
	defer leaderless.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, `{"error":"not now"}`, http.StatusBadRequest)
	}))
	defer refusing.Close()
	var all sync.WaitGroup // they wait for an answer, each for as long as the others
	for _, x := range []struct {
		args, addr string
		code       int
		says       string
	}{
		{"join-token revoke x", hang.URL, exitUnanswered, mayHaveHappened + "\n"},
		{"member resume 2", hang.URL, exitUnanswered, mayHaveHappened + "\n"},
		{"join-token revoke x", silent.Gone(t), exitUnanswered, "The request was not carried out.\n"},
		{"join-token revoke x", leaderless.URL, exitUnanswered, "muster: no cluster leader: raft commit timeout (503)\n"},
		{"raft peers", leaderless.URL, exitUnanswered, "muster: No cluster leader (500)\n"},
		{"members", refusing.URL, 1, "muster: not now (400)\n"},
	} {
		all.Go(func() {
			code, _, stderr := run(t, append(strings.Fields(x.args), "--addr", x.addr)...)
			if code != x.code || !strings.HasSuffix(stderr, x.says) {
				t.Errorf("%s: exit %d, %q; want %d, %q", x.args, code, stderr, x.code, x.says)
			}
		})
	}
	all.Wait()
}
