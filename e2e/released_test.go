package e2e

import (
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

	"muster/client"
	"muster/migrations"
)

const (
	// released is the commit that people run before this one; its database has schema 2.
	released        = "f40d899855c3789cf6c7554c30714dc2d3cccb55"
	releasedVersion = "v0.9.0"

	// asVersion in the environment is the version that a muster says it has.
	asVersion  = "MUSTER_E2E_VERSION"
	newVersion = "v1.0.0"
)

// releasedMuster builds the released muster from the history of this repository.
var releasedMuster = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muster-released-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "muster")
	script := fmt.Sprintf("git archive %s | tar -x -C %s/src && cd %s/src && go build -tags netgo,osusergo -ldflags '-X "+
		"muster/cli.Version=%s' -o %s .",
		released, dir, dir, releasedVersion, binary)
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o700); err != nil {
		return dir, err
	}
	cmd := exec.Command("bash", "-o", "pipefail", "-c", script)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return binary, os.RemoveAll(filepath.Join(dir, "src"))
})

// TestUpgradeFromReleased takes three members of the released muster to this one while they are written to. Two of them
// are restarted back to back while the third is dead; muster upgrade leads the rest. Nothing that was answered is lost.
func TestUpgradeFromReleased(t *testing.T) {
	t.Parallel()
	if os.Getenv("MUSTER_E2E_RELEASED") == "" {
		t.Skip("it builds the released muster from the history: make upgrade-test")
	}
	if exec.Command("git", "-C", "..", "cat-file", "-e", released+"^{commit}").Run() != nil {
		t.Skip("the released commit is not in this copy of the history")
	}
	old, err := releasedMuster()
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(old)) })
	if err != nil {
		t.Fatal(err)
	}
	c := clusterWith(t, 0, nil)
	for n := range 3 {
		m := c.add()
		m.binary = old
		if n > 0 {
			c.join(m)
			continue
		}
		m.start(t)
		m.awaitReady(t)
		c.adopt(t)
	}
	c.awaitVoters(t)
	u := c.admin(t)
	stop := u.load(t, c)
	first, second, third := c.members[0], c.members[1], c.members[2]
	cmd := command{env: append(c.env(c.token), asVersion+"="+newVersion)}
	if out := cmd.run(t, "upgrade", "status"); out.code == 0 ||
		!strings.Contains(out.stderr, "the leader's muster is too old to lead an upgrade") {
		t.Errorf("status at a released leader: %+v", out)
	}

	third.signal(syscall.SIGKILL)
	third.kill()
	first.upgrade(t)
	second.upgrade(t)
	// The rest is led; the dead member is back with its released muster.
	eventually(t, formed, "the upgrade sees the dead member", func() error {
		if out := cmd.run(t, "upgrade", "status"); !strings.Contains(out.stderr,
			"2 of 3 members run v1.0.0; the rest does not answer") {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	if out := cmd.run(t, "upgrade", "next"); out.code != 1 || !strings.Contains(out.stderr, "the rest does not answer") {
		t.Errorf("next, with only a dead member left: %+v", out)
	}
	third.start(t)
	third.awaitReady(t)
	eventually(t, formed, "the upgrade sees that the third member is back", func() error {
		out := cmd.run(t, "upgrade", "status", "-o", "json")
		if strings.Contains(out.stderr, "too old to lead") {
			_ = cmd.run(t, "raft", "transfer", "node-1")
		}
		if out.code != 0 || strings.Contains(out.stdout, `"state": "down"`) ||
			strings.Count(out.stdout, `"nodeStatus": "alive"`) != 3 {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	wait := command{env: cmd.env, limit: 2 * formed}
	eventually(t, formed, "the third member is next", func() error {
		out := wait.run(t, "upgrade", "next", "--timeout", formed.String())
		if strings.Contains(out.stderr, "too old to lead") {
			_ = cmd.run(t, "raft", "transfer", "node-1")
		}
		if out.code != 0 || out.stdout != "node-3\n" {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	eventually(t, formed, "the plan knows both schemas", func() error { // the released member may lead for a moment
		out := cmd.run(t, "upgrade", "plan", "-o", "json")
		if strings.Contains(out.stderr, "too old to lead") {
			_ = cmd.run(t, "raft", "transfer", "node-1")
		}
		if !strings.Contains(out.stdout, `"schema": 2`) ||
			!strings.Contains(out.stdout, fmt.Sprintf(`"newestSchema": %d`, migrations.Latest)) {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	upgradeLast(t, cmd, third)
	nothingLost(t, u, first, stop())
}

// upgradeLast upgrades the last member, with a flag for which the schema has no place yet.
func upgradeLast(t *testing.T, cmd command, third *member) {
	t.Helper()
	third.args = append(third.args, "--zone", "c") // the schema has no place for it yet
	third.upgrade(t)
	eventually(t, formed, "the upgrade is done", func() error {
		out := cmd.run(t, "upgrade", "status")
		if !strings.HasPrefix(out.stderr,
			fmt.Sprintf("done: 3 members run v1.0.0, and the database has schema %d, the newest", migrations.Latest)) {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	if out := cmd.run(t, "upgrade", "next"); out.code != 0 || out.stdout != "" ||
		!strings.HasPrefix(out.stderr, "done: ") {
		t.Errorf("next, when all is done: %+v", out)
	}
}

// nothingLost looks for the tokens that were acknowledged, and for what the upgrade has left.
func nothingLost(t *testing.T, u *user, at *member, acknowledged []string) {
	t.Helper()
	t.Logf("%d writes were acknowledged", len(acknowledged))
	if len(acknowledged) < 20 {
		t.Errorf("only %d writes were acknowledged", len(acknowledged))
	}
	have := map[string]bool{}
	for _, x := range u.tokens(t, at) {
		have[x.ID] = true
	}
	for _, id := range acknowledged {
		if !have[id] {
			t.Errorf("the token %s was acknowledged and is lost", id)
		}
	}
	eventually(t, formed, "the zone that was said too early is known", func() error {
		x, err := u.row(at, 3)
		if err == nil && x.Zone != "c" {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	page := get[client.AuditPage](t, u, at, "GET", "/api/v1/audit?action=schema.migrate", "")
	if len(page.Entries) == 0 {
		t.Error("the audit does not have the new schema")
	}
}

// upgrade restarts a member with this muster instead of the released one, and does not wait for the cluster.
func (m *member) upgrade(t *testing.T) {
	t.Helper()
	if m.up() {
		m.stop(t)
	}
	m.binary, m.env = "", append(m.env, asVersion+"="+newVersion)
	m.start(t)
	m.awaitReady(t)
}

// load writes through all members, a little at a time, until it is stopped; stop returns what was acknowledged.
func (u *user) load(t *testing.T, c *cluster) (stop func() []string) {
	var writers sync.WaitGroup
	var mu sync.Mutex
	var acknowledged []string
	end := make(chan struct{})
	for _, m := range c.members {
		writers.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(30 * time.Millisecond):
				}
				a := u.do(m, "POST", "/api/v1/cluster/join-tokens", `{}`)
				var v struct{ Result client.NewJoinToken }
				if a.err != nil || a.status != 201 || json.Unmarshal([]byte(a.body), &v) != nil {
					continue // nothing was promised
				}
				mu.Lock()
				acknowledged = append(acknowledged, v.Result.ID)
				mu.Unlock()
			}
		})
	}
	stopped := sync.OnceFunc(func() { close(end); writers.Wait() })
	t.Cleanup(stopped)
	return func() []string {
		stopped()
		return acknowledged
	}
}
