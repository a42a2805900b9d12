package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/store"
)

// clusterWith makes n members, the flags of each as the test wants them, and does not wait for their roles.
func clusterWith(t *testing.T, n int, flags func(n int) []string) *cluster {
	t.Helper()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	for len(c.members) < n {
		c.admit(t, flags)
	}
	return c
}

// admit starts one more member.
func (c *cluster) admit(t *testing.T, flags func(n int) []string) *member {
	t.Helper()
	m := c.add()
	if flags != nil {
		m.args = append(m.args, flags(m.n)...)
	}
	if m.n > 1 {
		c.join(m)
		return m
	}
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	return m
}

// member finds a member by its node id.
func (c *cluster) member(t *testing.T, id uint64) *member {
	t.Helper()
	for _, m := range c.members {
		if uint64(m.n) == id {
			return m
		}
	}
	t.Fatalf("there is no node %d", id)
	return nil
}

// throughBoth lists the leader and one follower: a request must have the same answer on either.
func (c *cluster) throughBoth(t *testing.T) map[string]*member {
	leader := c.leader(t)
	for _, m := range c.others(leader) {
		if m.up() {
			return map[string]*member{"leader": leader, "follower": m}
		}
	}
	t.Fatal("no follower is running")
	return nil
}

func memberURL(id int, action string) string {
	return fmt.Sprintf("/api/v1/cluster/members/%d%s", id, action)
}

func (u *user) drain(m *member, id int, body string) answer {
	return u.do(m, "POST", memberURL(id, "/drain"), body)
}

func (u *user) resume(m *member, id int) answer {
	return u.do(m, "POST", memberURL(id, "/resume"), "")
}

// lease grants or renews a lease.
func (u *user) lease(m *member, id string, node, ttl int) answer {
	return u.do(m, "PUT", "/api/v1/cluster/leases/"+id, fmt.Sprintf(`{"nodeId":%d,"ttlSeconds":%d}`, node, ttl))
}

// is demands a status, and a body that begins like this.
func (a answer) is(t *testing.T, what string, status int, prefix string) {
	t.Helper()
	if a.err != nil || a.status != status || !strings.HasPrefix(a.body, prefix) {
		t.Errorf("%s: got %v\nwant %d %s…", what, a, status, prefix)
	}
}

func (u *user) row(m *member, id int) (client.Member, error) {
	return try[client.Member](u, m, "GET", memberURL(id, ""), "")
}

// drainState reads where the drain of a member is.
func (u *user) drainState(t *testing.T, m *member, id int) string {
	t.Helper()
	a := u.patiently(m, "GET", memberURL(id, ""), "")
	var v struct{ Result client.Member }
	if err := json.Unmarshal([]byte(a.body), &v); a.err != nil || err != nil || a.status != 200 {
		t.Fatalf("node %d asked for node %d: %v", m.n, id, a)
	}
	return v.Result.DrainState
}

// awaitDrain waits for a state of the drain and tells how long it took.
func (u *user) awaitDrain(t *testing.T, m *member, id int, state string, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	eventually(t, limit, fmt.Sprintf("node %d is %s", id, state), func() error {
		x, err := u.row(m, id)
		if err == nil && x.DrainState != state {
			err = errors.New(x.DrainState)
		}
		return err
	})
	return time.Since(begin)
}

// throughout looks again and again, for as long as d, whether something holds.
func throughout(t *testing.T, d time.Duration, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := check(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// raftServers reads the Raft configuration; its answer has no envelope.
func (u *user) raftServers(m *member) ([]client.RaftServer, error) {
	a := u.do(m, "GET", "/v1/operator/raft/configuration", "")
	if a.err != nil || a.status != 200 {
		return nil, fmt.Errorf("the Raft configuration of node %d: %v", m.n, a)
	}
	var v client.RaftConfiguration
	err := json.Unmarshal([]byte(a.body), &v)
	return v.Servers, err
}

func (u *user) autopilot(m *member) (client.Autopilot, error) {
	return try[client.Autopilot](u, m, "GET", "/api/v1/cluster/autopilot", "")
}

// settled: autopilot has nothing to do, Raft is as the members table says, and so many vote.
func (u *user) settled(m *member, voters ...uint64) error {
	diff, err := try[[]client.Difference](u, m, "GET", "/api/v1/cluster/raft/diff", "")
	if err != nil {
		return err
	}
	if len(diff) > 0 {
		return fmt.Errorf("raft diff: %+v", diff)
	}
	state, err := u.autopilot(m)
	if err != nil {
		return err
	}
	if !slices.Equal(state.Voters, voters) || !state.Healthy {
		return fmt.Errorf("voters %v, healthy %v: %+v", state.Voters, state.Healthy, state.Servers)
	}
	_, err = u.agree(m)
	return err
}

func (u *user) awaitSettled(t *testing.T, m *member, voters ...uint64) {
	t.Helper()
	slices.Sort(voters)
	eventually(t, formed, fmt.Sprintf("the voters are %v", voters), func() error { return u.settled(m, voters...) })
}

// errMoved: the voters changed while they were read, so that the answers cannot be compared.
var errMoved = errors.New("the voters have changed meanwhile")

// agree compares who votes in the members list, the autopilot answer and the Raft configuration.
func (u *user) agree(m *member) ([]uint64, error) {
	list := func() (voters []uint64, ids map[string]uint64, err error) {
		members, err := u.tryMembers(m)
		ids = map[string]uint64{}
		for _, x := range members {
			ids[x.ID] = x.NodeID
			if x.Suffrage == "voter" {
				voters = append(voters, x.NodeID)
			}
		}
		return voters, ids, err
	}
	before, ids, err := list()
	if err != nil {
		return nil, err
	}
	state, err := u.autopilot(m)
	if err != nil {
		return nil, err
	}
	servers, err := u.raftServers(m)
	if err != nil {
		return nil, err
	}
	after, _, err := list()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(before, after) {
		return nil, errMoved
	}
	var inRaft, voting []uint64
	for _, x := range servers {
		if x.Voter {
			inRaft = append(inRaft, ids[x.ID])
		}
	}
	for _, x := range state.Servers {
		if x.HasVotingRights {
			voting = append(voting, x.NodeID)
		}
	}
	slices.Sort(inRaft)
	if !slices.Equal(before, inRaft) || !slices.Equal(before, state.Voters) || !slices.Equal(before, voting) {
		return nil, fmt.Errorf("the members list says that %v vote, the Raft configuration %v, autopilot %v (by server: %v)",
			before, inRaft, state.Voters, voting)
	}
	return before, nil
}

const removedLine = "this node has been removed from the cluster; to join again, start with an empty data directory " +
	"and a new token"

// awaitExpelled waits for a removed member's process to end by itself and to say why.
func (m *member) awaitExpelled(t *testing.T) {
	t.Helper()
	code, err := m.exit(20 * time.Second)
	if err != nil {
		t.Errorf("node %d was removed: %v\n%s", m.n, err, lastLines(m.log, 20))
		return
	}
	if code != 1 {
		t.Errorf("node %d was removed and ends with status %d, want 1", m.n, code)
	}
	text, _ := os.ReadFile(m.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, removedLine) {
		t.Errorf("node %d was removed; its last line is %q", m.n, last)
	}
	m.forget(t, removedLine) // the one error in its log that is as it should be
}

// forget takes the errors with a text, which are as they should be, out of the member's log. It reports whether there
// was one.
func (m *member) forget(t *testing.T, text string) bool {
	t.Helper()
	log, _ := os.ReadFile(m.log)
	lines := bytes.Split(log, []byte("\n"))
	rest := slices.DeleteFunc(slices.Clone(lines), func(line []byte) bool {
		return bytes.Contains(line, []byte("level=ERROR")) && bytes.Contains(line, []byte(text))
	})
	if len(rest) == len(lines) {
		return false
	}
	if err := os.WriteFile(m.log, bytes.Join(rest, []byte("\n")), 0o600); err != nil {
		t.Error(err)
	}
	return true
}

// expelledAgain starts a removed member once more: it ends as it did before.
func (m *member) expelledAgain(t *testing.T) {
	t.Helper()
	m.start(t)
	m.awaitExpelled(t)
}

// internally asks the cluster listener of a member as another one.
func (m *member) internally(t *testing.T, as *member, method, path string) (a answer) {
	t.Helper()
	pair, err := tls.X509KeyPair(as.read(t, "tls/transport.crt"), as.read(t, "tls/transport.key"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, "https://"+m.raft+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: strings.TrimSpace(string(data)), err: err}
}

// chunked sends a body without its length, over HTTP/1.1.
func (u *user) chunked(m *member, method, path, body string) answer {
	own := u.http.Transport.(*http.Transport)
	transport := &http.Transport{TLSClientConfig: own.TLSClientConfig.Clone(), DisableKeepAlives: true,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		DialContext:  (&net.Dialer{Timeout: 3 * time.Second}).DialContext}
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	req, err := http.NewRequest(method, "https://"+m.api+path, io.MultiReader(strings.NewReader(body)))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Authorization", "Bearer "+u.token)
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(data), err: err}
}

// awaitSQL waits until the mirror of a member gives this answer.
func (m *member) awaitSQL(t *testing.T, query, want string) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("the mirror of node %d: %s", m.n, query), func() error {
		if got := sqlite(t, m.db(), query); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
}

// drainAnswer is what a drain answers beyond its state.
type drainAnswer struct {
	DrainState string
	Hooks      []store.HookOutcome
	Deadline   string
	Warnings   []string
}

func drainOf(t *testing.T, what string, a answer) (d drainAnswer) {
	t.Helper()
	var v struct{ Result drainAnswer }
	if err := json.Unmarshal([]byte(a.body), &v); a.err != nil || a.status != 200 || err != nil {
		t.Fatalf("%s: %v", what, a)
	}
	return v.Result
}
