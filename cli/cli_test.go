package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is a member as the command line sees it: answers by "METHOD /path", in turn; the last one stays.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	answers  map[string][]string
	requests []string // "METHOD /path?query body"
	tokens   []string
}

func newServer(t *testing.T, answers map[string][]string) *server {
	t.Helper()
	s := &server{answers: answers}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP answers "STATUS body"; without a status it is 200.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/api/v1/status" { // every command asks first who leads
		w.Header().Set("Content-Type", "application/json")
		if own := s.answers["GET /api/v1/status"]; own != nil {
			io.WriteString(w, own[0])
			return
		}
		io.WriteString(w, `{"result":{"cluster":{"leaderNodeId":1}}}`)
		return
	}
	s.requests = append(s.requests, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(body)))
	s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	name := r.Method + " " + r.URL.Path
	one, asked := strings.CutPrefix(name, "GET /api/v1/cluster/members/")
	if asked { // one of the list
		name = "GET /api/v1/cluster/members"
	}
	answers := s.answers[name]
	if len(answers) == 0 {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"error":"no such thing"}`)
		return
	}
	if len(answers) > 1 {
		s.answers[name] = answers[1:]
	}
	text, status := answers[0], 200
	if n := strings.IndexByte(text, ' '); n == 3 && text[0] >= '1' && text[0] <= '5' {
		status = int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
		text = text[4:]
	}
	if asked && status == 200 {
		if text = oneOf(text, one); text == "" {
			text, status = `{"error":"Cluster member not found"}`, 404
		}
	}
	if strings.HasPrefix(text, "{") {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// oneOf finds a member by its id in the answer that lists them; "" when it is not there.
func oneOf(list, id string) string {
	var all struct{ Result []json.RawMessage }
	_ = json.Unmarshal([]byte(list), &all)
	for _, m := range all.Result {
		var x struct{ NodeID uint64 }
		if json.Unmarshal(m, &x) == nil && strconv.FormatUint(x.NodeID, 10) == id {
			return `{"result":` + string(m) + `}`
		}
	}
	return ""
}

// caFile writes the server's certificate where --cacert can read it.
func (s *server) caFile(t *testing.T) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "ca.crt"), s.ca())
}

func (s *server) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (s *server) sent() (requests, tokens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.requests...), append([]string{}, s.tokens...)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// data writes what a member leaves in its data directory.
func (s *server) data(t *testing.T, dir, token string) string {
	t.Helper()
	write(t, filepath.Join(dir, "node.json"), `{"apiAddress":"`+strings.TrimPrefix(s.URL, "https://")+`"}`)
	write(t, filepath.Join(dir, "ca.crt"), s.ca())
	if token != "" {
		write(t, filepath.Join(dir, "admin.token"), token+"\n")
	}
	return dir
}

// outside makes sure that nothing around the test names a cluster.
func outside(t *testing.T) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "MUSTER_") {
			t.Setenv(name, value) // puts it back afterwards
			os.Unsetenv(name)
		}
	}
	t.Chdir(t.TempDir())
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	code = Main(ctx, args, strings.NewReader("from-stdin\n"), &out, &errs)
	return code, out.String(), errs.String()
}

const (
	uuidA   = "aaaaaaaa-0000-4000-8000-000000000001"
	uuidB   = "bbbbbbbb-0000-4000-8000-000000000002"
	memberA = `{"nodeId":1,"raftAddress":"10.0.0.1:7000","apiAddress":"https://10.0.0.1:5000","binaryVersion":"1.0",` +
		`"suffrage":"voter","isLeader":true,"drainState":"active","id":"` + uuidA +
		`","name":"a","mode":"full","role":"voter","status":"alive"}`
	memberB = `{"nodeId":2,"raftAddress":"10.0.0.2:7000","apiAddress":"https://10.0.0.2:5000","binaryVersion":"1.0",` +
		`"suffrage":"nonvoter","isLeader":false,"drainState":"STATE","id":"` + uuidB +
		`","name":"b","mode":"full","role":"stand-by","status":"alive","labels":{"zone":"x","disk":"ssd"}}`
)

func memberList(stateOfB string) string {
	return `{"result":[` + memberA + "," + strings.ReplaceAll(memberB, "STATE", stateOfB) + `]}`
}

func api() map[string][]string {
	return map[string][]string{
		"GET /api/v1/status": {`{"result":{"version":"1.0","revision":42,"initialized":true,` +
			`"ready":true,"schemaVersion":3,"name":"a","cluster":{"enabled":true,"role":"Leader","nodeId":1,"isLeader":true,` +
			`"leaderNodeId":1,"appliedIndex":7,"clusterId":"c-1"}}}`},
		"GET /api/v1/cluster/members":            {memberList("active")},
		"DELETE /api/v1/cluster/members/2":       {`{"result":{"message":"Cluster member removed"}}`},
		"POST /api/v1/cluster/members/2/promote": {`{"result":{"message":"Cluster member promoted to voter"}}`},
		"POST /api/v1/cluster/members/2/resume":  {`{"result":{"message":"Cluster member resumed"}}`},
		"DELETE /api/v1/cluster/members/1": {`409 {"error":"Cannot remove the current leader; drain this node ` +
			`first so leadership transfers, then retry"}`},
		"GET /api/v1/cluster/autopilot": {`{"result":{"healthy":true,"failureTolerance":1,"leaderNodeId":1,` +
			`"voters":[1],"servers":[{"nodeId":1,"raftAddress":"10.0.0.1:7000","nodeStatus":"alive","healthy":true,` +
			`"isLeader":true,"hasVotingRights":true,"stableSince":"2026-05-06T10:00:00Z"}]}}`},
		"POST /api/v1/cluster/join-tokens": {`201 {"result":{"id":"t1","token":"JOIN-SECRET","nodeId":4,` +
			`"mode":"full","maxUses":1,"expiresAt":"2026-05-06T10:30:00Z"}}`},
		"GET /api/v1/cluster/join-tokens": {`{"result":[{"id":"t1","nodeId":4,"mode":"full","state":"valid",` +
			`"uses":0,"maxUses":1,"createdAt":"2026-05-06T10:00:00Z","createdBy":"root","expiresAt":"2026-05-06T10:30:00Z"}]}`},
		"DELETE /api/v1/cluster/join-tokens/t1": {`{"result":{"message":"revoked"}}`},
		"POST /api/v1/api-tokens": {`201 {"result":{"id":"k1","name":"ci","scopes":["cluster:read",` +
			`"enroll"],"token":"API-SECRET","createdAt":"2026-05-06T10:00:00Z"}}`},
		"GET /api/v1/api-tokens":       {`{"result":[]}`},
		"DELETE /api/v1/api-tokens/k1": {`{"result":{"message":"revoked"}}`},
		"POST /api/v1/sql": {`{"result":{"columns":["id","name"],"rows":[[1,"a\tb"],` +
			`[9007199254740993,null]],"truncated":true}}`},
		"GET /v1/operator/raft/configuration": {`{"Index":5,"Servers":[{"Address":"10.0.0.1:7000","ID":"` + uuidA +
			`","Leader":true,"Node":"a","RaftProtocol":"3","Voter":true}]}`},
		"PUT /v1/operator/raft/transfer-leadership": {`{"Err":null}`},
		"DELETE /v1/operator/raft/peer":             {`500 id "9" was not found in the Raft configuration`},
	}
}

func contains(t *testing.T, what, text string, parts []string) {
	t.Helper()
	if parts == nil && text != "" {
		t.Errorf("%s is not empty: %q", what, text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

func TestSecrets(t *testing.T) {
	outside(t)
	s := newServer(t, api())
	at := []string{"--addr", s.URL, "--cacert", s.caFile(t), "--token-file", "-"}
	for _, test := range []struct {
		args           []string
		secret, id     string
		body, sentence string
	}{
		{[]string{"join-token", "create", "--node-id", "4", "--ttl", "1h", "--mode", "replicate"}, "JOIN-SECRET", "t1",
			`POST /api/v1/cluster/join-tokens {"nodeId":4,"ttlSeconds":3600,"maxUses":1,"mode":"replicate"}`,
			"join token t1 can be used once as member 4 until 2026-05-06T10:30:00Z"},
		{[]string{"api-token", "create", "--name", "ci", "--scope", "cluster:read,enroll", "--ttl", "90s"}, "API-SECRET",
			"k1",
			`POST /api/v1/api-tokens {"name":"ci","scopes":["cluster:read","enroll"],"ttlSeconds":90}`,
			"API token k1 (ci) for cluster:read, enroll does not expire"},
	} {
		code, stdout, stderr := run(t, append(test.args, at...)...)
		if code != 0 || stdout != test.secret+"\n" {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
		if strings.Contains(stderr, test.secret) || !strings.Contains(stderr, test.sentence) {
			t.Errorf("%v: stderr %q", test.args, stderr)
		}
		requests, tokens := s.sent()
		if last := requests[len(requests)-1]; last != test.body {
			t.Errorf("sent %s\nwant %s", last, test.body)
		}
		if last := tokens[len(tokens)-1]; last != "from-stdin" {
			t.Errorf("token %q", last)
		}
		code, stdout, stderr = run(t, append(append(test.args, at...), "-o", "json")...)
		var object struct{ ID, Token string }
		if err := json.Unmarshal([]byte(stdout), &object); code != 0 || err != nil || object.ID != test.id ||
			object.Token != test.secret || stderr != "" {
			t.Errorf("%v -o json: exit %d, %v, stdout %q, stderr %q", test.args, code, err, stdout, stderr)
		}
	}
}

func TestListsAsJSON(t *testing.T) {
	outside(t)
	s := newServer(t, api())
	data := s.data(t, filepath.Join(t.TempDir(), "1"), "tok")
	for args, field := range map[string]string{"members": "nodeId", "join-token list": "id", "raft peers": "ID",
		"status": "address"} {
		code, stdout, stderr := run(t, append(strings.Fields(args), "-o", "json", "--data", data)...)
		var objects []map[string]any
		if err := json.Unmarshal([]byte(stdout), &objects); code != 0 || err != nil || len(objects) == 0 ||
			objects[0][field] == nil {
			t.Errorf("%s: exit %d, %v\n%s%s", args, code, err, stdout, stderr)
		}
	}
}

func TestDrain(t *testing.T) {
	const path = "POST /api/v1/cluster/members/2/drain"
	for _, test := range []struct {
		name           string
		args           string
		drain, members []string
		code           int
		stdout, stderr []string
	}{
		{"at once", "--deadline 0s", []string{`{"result":{"drainState":"drained"}}`}, nil, 0, nil,
			[]string{"member 2 is drained\n"}},
		{"after a while, through trouble", "--deadline 30s", []string{`{"result":{"drainState":"draining"}}`},
			[]string{memberList("draining"), `500 {"error":"leader lost"}`, memberList("drained")}, 0, nil,
			[]string{"member 2 is draining, at most 30s …\nmember 2 is drained\n"}},
		{"as JSON", "-o json", []string{`{"result":{"drainState":"draining"}}`}, []string{memberList("drained")}, 0,
			[]string{`"drainState": "drained"`}, []string{"member 2 is draining, at most 1m0s …\n"}},
		{"cancelled", "", []string{`{"result":{"drainState":"draining"}}`}, []string{memberList("active")}, 1, nil,
			[]string{"muster: the drain of member 2 was cancelled\n"}},
		{"removed meanwhile", "", []string{`{"result":{"drainState":"draining"}}`}, []string{`{"result":[]}`}, 1, nil,
			[]string{"muster: Cluster member not found (404)\n"}},
		{"refused", "", []string{`404 {"error":"Cluster member not found"}`}, nil, 1, nil,
			[]string{"muster: Cluster member not found (404)\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			outside(t)
			s := newServer(t, map[string][]string{path: test.drain, "GET /api/v1/cluster/members": test.members})
			data := s.data(t, filepath.Join(t.TempDir(), "1"), "tok")
			code, stdout, stderr := run(t,
				append([]string{"member", "drain", "2", "--data", data}, strings.Fields(test.args)...)...)
			if code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			contains(t, "stdout", stdout, test.stdout)
			contains(t, "stderr", stderr, test.stderr)
		})
	}
}

func TestInterrupt(t *testing.T) {
	outside(t)
	s := newServer(t, map[string][]string{
		"POST /api/v1/cluster/members/2/drain": {`{"result":{"drainState":"draining"}}`},
		"GET /api/v1/cluster/members":          {memberList("draining")},
	})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	var out, errs bytes.Buffer
	code := Main(ctx, []string{"member", "drain", "2", "--data", s.data(t, t.TempDir(), "tok")}, nil, &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "muster member resume 2") ||
		!strings.HasSuffix(errs.String(), "muster: interrupted\n") {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
}
