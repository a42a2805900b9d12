package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cliprocess "muster/cli/process"
)

// formed bounds what takes a moment on an idle machine and longer on a busy one with the race detector.
const formed = 40 * time.Second

// clusters bounds how many clusters run at the same time.
var clusters = make(chan struct{}, 4)

// cluster is a set of members that were made for one test.
type cluster struct {
	t       *testing.T
	root    string // of data directories and logs
	members []*member
	token   string // the administrator's
	id      string

	bad     []badToken
	mu      sync.Mutex
	secrets map[string]string // what must not be found anywhere, by what it is
}

// member is one machine: it keeps its directory, its ports and its command through all its processes.
type member struct {
	*process // nil before the first start
	cluster  *cluster
	n        int
	dir, log string
	api      string // host:port
	raft     string
	args     []string
	env      []string // besides that of all
	binary   string   // another muster than this one; empty: this one
}

// newCluster forms a cluster of n voters from nothing, with a real token for each member.
func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := found(t)
	for len(c.members) < n {
		c.join(c.add())
	}
	c.awaitVoters(t)
	return c
}

// found makes a cluster of one member.
func found(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	m := c.add()
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	return c
}

// adopt reads what the founder has written.
func (c *cluster) adopt(t *testing.T) {
	t.Helper()
	m := c.members[0]
	c.token = strings.TrimSpace(string(m.read(t, "admin.token")))
	c.secret("the administrator's token", c.token)
	c.id = m.status(t).Cluster.ClusterID
}

// add makes a member that has not been started.
func (c *cluster) add() *member {
	n := len(c.members) + 1
	m := &member{
		cluster: c,
		n:       n,
		dir:     filepath.Join(c.root, fmt.Sprint(n)),
		log:     filepath.Join(c.root, fmt.Sprintf("node-%d.log", n)),
		api:     fmt.Sprintf("127.0.0.1:%d", freePort()),
		raft:    fmt.Sprintf("127.0.0.1:%d", freePort()),
	}
	m.args = []string{"serve", "--data", m.dir, "--name", fmt.Sprintf("node-%d", n), "--api", m.api, "--raft", m.raft,
		"--log-level", "debug"}
	c.members = append(c.members, m)
	return m
}

// join starts a member with a token for its number: every second one from the command line, the others from the
// documented endpoint.
func (c *cluster) join(m *member) {
	c.t.Helper()
	var token string
	if m.n%2 == 0 {
		out := muster(c.t, "join-token", "create", "--node-id", fmt.Sprint(m.n), "--data", c.members[0].dir)
		if token = strings.TrimSpace(out.stdout); out.code != 0 {
			c.t.Fatalf("join-token create: exit %d: %s", out.code, out.stderr)
		}
		c.secret("a join token", token)
	} else {
		token = c.admin(c.t).mint(c.t, c.members[0], uint64(m.n)).Token
	}
	m.args = append(m.args, "--join", token)
	m.start(c.t)
}

// secret remembers a text that must stay where it belongs.
func (c *cluster) secret(what, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets[text] = what
}

// end stops all members at once and checks how they end and what they have said.
func (c *cluster) end() {
	begin := time.Now()
	var left []*member
	for _, m := range c.members {
		if m.process != nil && m.running() {
			m.signal(syscall.SIGCONT)
			m.signal(syscall.SIGTERM)
			left = append(left, m)
		}
	}
	for _, m := range left {
		code, err := m.exit(5*time.Second - time.Since(begin))
		switch {
		case err != nil:
			c.t.Errorf("node %d, stopped together with all others: %v", m.n, err)
		case code != 0 && !m.excused(c.t, begin):
			c.t.Errorf("node %d, stopped together with all others: exit status %d", m.n, code)
		}
	}
	for _, m := range c.members {
		if m.process != nil {
			m.kill()
		}
		checkLog(c.t, fmt.Sprintf("node %d", m.n), m.log)
	}
	if !c.t.Failed() {
		return
	}
	for _, m := range c.members {
		c.t.Logf("the end of the log of node %d:\n%s", m.n, lastLines(m.log, 40))
	}
	if keep := os.Getenv("MUSTER_E2E_KEEP"); keep != "" {
		_ = exec.Command("cp", "-r", c.root, filepath.Join(keep, filepath.Base(filepath.Dir(c.root)))).Run()
	}
}

// start runs the member's command, always the same one.
func (m *member) start(t *testing.T) {
	t.Helper()
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(cmp.Or(m.binary, self()), m.args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, environment(m.env...)
	if m.process, err = launch(cmd); err != nil {
		t.Fatal(err)
	}
}

// stop sends SIGTERM and demands a clean end within the 5 s that are promised.
func (m *member) stop(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	m.signal(syscall.SIGTERM)
	code, err := m.exit(5 * time.Second)
	if err != nil {
		t.Errorf("node %d after SIGTERM: %v", m.n, err)
		m.kill()
	} else if code != 0 && !m.excused(t, begin) {
		t.Errorf("node %d after SIGTERM: exit status %d", m.n, code)
	}
	return time.Since(begin)
}

// excused reports whether a member that ended before all was closed would have been done in time, had the machine not
// lost some.
func (m *member) excused(t *testing.T, begin time.Time) bool {
	return m.forget(t, cliprocess.ErrNotStopped.Error()) && host.Lost(begin, time.Now()) > time.Second
}

// copyDir copies the data directory of a member that does not run, as a disk is cloned or restored.
func (m *member) copyDir(t *testing.T, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", m.dir, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (m *member) pause()     { m.signal(syscall.SIGSTOP) }
func (m *member) carryOn()   { m.signal(syscall.SIGCONT) }
func (m *member) up() bool   { return m.process != nil && m.running() }
func (m *member) db() string { return filepath.Join(m.dir, "muster.db") }

func (m *member) file(name string) string { return filepath.Join(m.dir, name) }

func (m *member) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(m.file(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// identity is what node.json says the member is, or "" when it is nobody yet.
func (m *member) identity() string {
	var node struct {
		ClusterID, ID string
		NodeID        uint64
	}
	data, err := os.ReadFile(m.file("node.json"))
	if err != nil || json.Unmarshal(data, &node) != nil {
		return ""
	}
	return fmt.Sprintf("node %d (%s) of cluster %s", node.NodeID, node.ID, node.ClusterID)
}

// awaitReady waits until the member's own status says that it is ready.
func (m *member) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("node %d is ready", m.n), func() error {
		if !m.running() {
			t.Fatalf("node %d has ended with status %d:\n%s", m.n, m.cmd.ProcessState.ExitCode(), lastLines(m.log, 20))
		}
		st, err := m.tryStatus()
		if err == nil && !st.Ready {
			err = fmt.Errorf("its status is %+v", st)
		}
		return err
	})
}

// awaitVoters waits until every member answers and says of every one that it votes and lives.
func (c *cluster) awaitVoters(t *testing.T) {
	t.Helper()
	u := c.admin(t)
	for _, m := range c.members {
		eventually(t, formed, fmt.Sprintf("node %d sees %d voters", m.n, len(c.members)), func() error {
			if !m.running() {
				t.Fatalf("node %d has ended with status %d:\n%s", m.n, m.cmd.ProcessState.ExitCode(), lastLines(m.log, 20))
			}
			list, err := u.tryMembers(m)
			if err != nil {
				return err
			}
			voters, leaders := 0, 0
			for _, x := range list {
				if x.Suffrage == "voter" && x.Status == "alive" {
					voters++
				}
				if x.IsLeader {
					leaders++
				}
			}
			if voters < len(c.members) || leaders != 1 {
				return fmt.Errorf("%d living voters and %d leaders in %+v", voters, leaders, list)
			}
			return nil
		})
	}
}

// leader waits until the running members agree on a leader and returns it.
func (c *cluster) leader(t *testing.T) *member {
	t.Helper()
	var leader *member
	eventually(t, formed, "the members agree on a leader", func() error {
		leader = nil
		seen := map[uint64]int{}
		for _, m := range c.members {
			if !m.up() {
				continue
			}
			st, err := m.tryStatus()
			if err != nil {
				return err
			}
			seen[st.Cluster.LeaderNodeID]++
			if st.Cluster.IsLeader {
				leader = m
			}
		}
		if leader == nil || len(seen) != 1 {
			return fmt.Errorf("leaders by number of followers: %v", seen)
		}
		return nil
	})
	return leader
}

// others returns the members but these.
func (c *cluster) others(not ...*member) (list []*member) {
	for _, m := range c.members {
		skip := false
		for _, n := range not {
			skip = skip || n == m
		}
		if !skip {
			list = append(list, m)
		}
	}
	return list
}
