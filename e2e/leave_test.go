package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/client"
)

// TestLeave takes members out of a cluster as the owner of their files, and makes clusters of their own of what is
// left.
func TestLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	third := c.members[2]
	u.put(t, leader, "recipe", "salt and water")
	c.secret("a stored secret", "salt and water")

	refused := func(what string, code int, words string, args ...string) {
		t.Helper()
		out := muster(t, args...)
		if out.code != code || !strings.Contains(out.stderr, words) {
			t.Errorf("%s: exit status %d, want %d with %q: %s", what, out.code, code, words, out.stderr)
		}
	}
	refused("no directory", 2, "--data is missing", "leave")
	refused("a deadline out of range", 2, "--deadline", "leave", "--data", third.dir, "--deadline", "2h")
	refused("no terminal", 1, "give --yes", "leave", "--data", third.dir)
	refused("detach of a running member", 1, "in use", "detach", "--data", third.dir, "--yes")

	t.Run("leases", func(t *testing.T) {
		if a := u.lease(leader, "job-7", 3, 600); a.status >= 300 {
			t.Fatalf("lease: %v", a)
		}
		refused("a lease is held", 1, "job-7", "leave", "--data", third.dir, "--deadline", "1s", "--yes")
		if s := u.drainState(t, leader, 3); s != client.DrainDrained {
			t.Errorf("it is %s", s)
		}
		command{}.ok(t, "member", "resume", "3", "--data", c.members[0].dir)
	})
	t.Run("with a lease, by force", func(t *testing.T) {
		out := muster(t, "leave", "--data", third.dir, "--deadline", "0s", "--force", "--yes")
		if out.code != 0 || !strings.Contains(out.stderr, "has left") {
			t.Fatalf("leave: %+v", out)
		}
		third.awaitExpelled(t)
		eventually(t, formed, "two members are left", func() error {
			if list, err := u.tryMembers(leader); err != nil || len(list) != 2 {
				return fmt.Errorf("%v, %v", list, err)
			}
			return nil
		})
		refused("a second time", 0, "left its cluster already", "leave", "--data", third.dir, "--yes")
	})
	t.Run("the leader", func(t *testing.T) {
		second := c.leader(t)
		heir := c.others(second, third)[0]
		if out := muster(t, "leave", "--data", second.dir, "--yes"); out.code != 0 {
			t.Fatalf("leave: %+v", out)
		}
		second.awaitExpelled(t)
		u.put(t, heir, "afterwards", "it goes on")
		refused("the last one", 1, "no other member is alive", "leave", "--data", heir.dir, "--yes")
		heir.stop(t)
		refused("one that does not run", 1, "does not run", "leave", "--data", heir.dir, "--yes")
		testDetach(t, c, heir, false)
	})
	testDetach(t, c, third, true)
}

// testDetach makes a cluster of one of a member's directory. A member that was removed while a secret was sealed under
// a key that it held cannot be sure to open it: only the stopped one must.
func testDetach(t *testing.T, c *cluster, m *member, removed bool) {
	t.Helper()
	before := m.read(t, "node.json")
	out := muster(t, "detach", "--data", m.dir, "--name", "alone", "--yes", "-o", "json")
	if out.code != 0 {
		t.Fatalf("detach: %+v", out)
	}
	var did struct {
		Node, Was struct{ ClusterID, Name string }
		Removed   bool
		Before    string
		Taken     struct{ Secrets, Closed int }
	}
	if err := json.Unmarshal([]byte(out.stdout), &did); err != nil {
		t.Fatal(err)
	}
	if did.Was.ClusterID != c.id || did.Node.ClusterID == c.id || did.Node.Name != "alone" || did.Removed != removed {
		t.Errorf("%+v", did)
	}
	if kept, err := os.ReadFile(filepath.Join(did.Before, "node.json")); err != nil || string(kept) != string(before) {
		t.Errorf("the old node.json: %s, %v", kept, err)
	}
	fresh := &cluster{t: t, root: t.TempDir(), members: []*member{m}, secrets: map[string]string{}}
	m.cluster, m.args = fresh, []string{"serve", "--data", m.dir, "--api", m.api, "--raft", m.raft, "--log-level", "debug"}
	m.start(t)
	m.awaitReady(t)
	fresh.adopt(t)
	if fresh.id != did.Node.ClusterID {
		t.Errorf("it is cluster %s, not %s", fresh.id, did.Node.ClusterID)
	}
	own := fresh.admin(t)
	list := own.members(t, m)
	if len(list) != 1 || list[0].NodeID != 1 || list[0].Name != "alone" || list[0].Suffrage != "voter" {
		t.Errorf("members: %+v", list)
	}
	if a := fresh.as(t, c.token).do(m, "GET", "/api/v1/cluster/members", ""); a.status != 401 {
		t.Errorf("the old administrator's token: %v", a)
	}
	switch v, err := own.value(m, "recipe"); {
	case err == nil && v == "salt and water" && did.Taken.Secrets > 0:
	case removed && did.Taken.Closed > 0:
	default:
		t.Errorf("the secret is %q, %v after %+v", v, err, did.Taken)
	}
	own.put(t, m, "new", "of its own")
	// The new cluster grows.
	token := own.create(t, m, `{"ttlSeconds":300}`).Token
	joiner := fresh.add()
	joiner.args = append(joiner.args, "--join", token)
	joiner.start(t)
	t.Cleanup(joiner.kill)
	joiner.awaitReady(t)
}
