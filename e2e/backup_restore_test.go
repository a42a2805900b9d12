package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"muster/client"
)

// testRestoreKilled: when the leader dies during a restore, all of it has happened, or nothing.
func testRestoreKilled(t *testing.T, c *cluster, u *user, file string) {
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const extra = 30
	for _, wait := range []time.Duration{0, 15 * time.Millisecond, 40 * time.Millisecond} {
		leader := c.leader(t)
		via := c.others(leader)[0]
		u.put(t, via, "recipe", "pepper")
		for i := range extra {
			u.put(t, via, fmt.Sprintf("extra-%d", i), "x")
		}
		done := make(chan answer)
		go func() { done <- u.do(via, "PUT", snapshotPath, string(archive)) }()
		time.Sleep(wait) // any moment will do
		leader.kill()
		a := <-done
		var list []struct{ Name string }
		eventually(t, formed, "the cluster answers", func() (err error) {
			list, err = try[[]struct{ Name string }](u, via, "GET", "/api/v1/cluster/secrets", "")
			return err
		})
		recipe, err := u.value(via, "recipe")
		restored := recipe == "salt and water"
		if err != nil || !restored && recipe != "pepper" || restored != (len(list) == 1) || !restored && len(list) != 1+
			extra {
			t.Errorf("killed after %v: the recipe is %q, %v, and there are %d secrets", wait, recipe, err, len(list))
		}
		if a.status == 200 && !restored {
			t.Errorf("killed after %v: the restore was answered with %v and is lost", wait, a)
		}
		leader.start(t)
		leader.awaitReady(t)
	}
	u.lead(t, c.members[0]) // one that has the keys of the archive
	// An archive that has been read in part cannot be passed on once more: a leader that has just begun may miss it.
	eventually(t, formed, "a restore in peace", func() error {
		if a := u.do(c.members[1], "POST", snapshotPath, string(archive)); a.status != 200 || a.body != "" {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if v, err := u.value(c.members[2], "recipe"); err != nil || v != "salt and water" {
		t.Errorf("afterwards the recipe is %q, %v", v, err)
	}
}

// testRefound loses every member and founds the cluster anew from an encrypted backup.
func testRefound(t *testing.T, c *cluster, cmd command, kept, revoked client.NewAPIToken) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	identity, file := filepath.Join(dir, "operator.key"), filepath.Join(dir, "b.age")
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.ok(t, "backup", "save", file, "--recipient", id.Recipient().String())
	if out := cmd.run(t, "backup", "inspect", file); out.code != 1 || !strings.Contains(out.stderr, "--identity") {
		t.Errorf("inspect of an encrypted backup: %+v", out)
	}
	before := jsonOf[struct {
		Index    uint64
		Openable bool
	}](t, cmd.ok(t, "backup", "inspect", file, "--identity", identity, "-o", "json"))
	if !before.Openable {
		t.Error("its keys cannot be opened by the identity that it was saved for")
	}
	// With the identity, the running cluster takes it as well.
	cmd.ok(t, "backup", "restore", file, "--identity", identity, "--yes")
	for _, m := range c.members {
		m.kill()
	}

	fresh := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(fresh.end)
	m := fresh.add()
	args := []string{"backup", "restore", file, "--yes", "--data", m.dir, "--api", m.api, "--raft", m.raft, "--name",
		"phoenix"}
	if out := muster(t, append(args, "--identity", c.members[0].file("node.key"))...); out.code != 1 {
		t.Errorf("with the wrong identity: %+v", out)
	}
	if out := muster(t, append(args, "--identity", identity)...); out.code != 0 {
		t.Fatalf("founding from the backup: %+v", out)
	}
	if out := muster(t, append(args, "--identity", identity)...); out.code == 0 {
		t.Error("a second time in the same directory")
	}
	m.start(t)
	m.awaitReady(t)
	fresh.adopt(t)
	if fresh.id != c.id {
		t.Errorf("it is cluster %s, not %s", fresh.id, c.id)
	}
	u := fresh.admin(t)
	if v, err := u.value(m, "recipe"); err != nil || v != "salt and water" {
		t.Errorf("recipe is %q, %v", v, err)
	}
	if a := fresh.as(t, kept.Token).do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
		t.Errorf("a token of before: %v", a)
	}
	if a := fresh.as(t, revoked.Token).do(m, "GET", "/api/v1/cluster/members", ""); a.status != 401 {
		t.Errorf("a token that had been revoked when the backup was made: %v", a)
	}
	st := m.status(t)
	if st.Revision <= before.Index || st.Cluster.NodeID != 5 {
		t.Errorf("revision %d after %d, as node %d", st.Revision, before.Index, st.Cluster.NodeID)
	}
	list := u.members(t, m)
	if len(list) != 1 || list[0].NodeID != 5 || list[0].Suffrage != "voter" {
		t.Errorf("members: %+v", list)
	}
	refoundWorks(t, fresh, u, m, c.members[1])
}

// refoundWorks: the next one gets a number that was never used, a start after a crash finds everything, and an old
// member is turned away.
func refoundWorks(t *testing.T, fresh *cluster, u *user, m, old *member) {
	t.Helper()
	second := fresh.add()
	token := u.create(t, m, `{"ttlSeconds":300}`)
	second.args = append(second.args, "--join", token.Token)
	second.start(t)
	second.awaitReady(t)
	if n := second.status(t).Cluster.NodeID; n != 6 {
		t.Errorf("the next member is node %d", n)
	}
	m.kill()
	m.start(t)
	m.awaitReady(t)
	eventually(t, formed, "it answers after a crash", func() error {
		v, err := u.value(m, "recipe")
		if err == nil && v != "salt and water" {
			err = fmt.Errorf("%q", v)
		}
		return err
	})
	a := m.internally(t, old, "GET", "/internal/probe")
	if a.status != 410 {
		t.Errorf("a member of before the loss: %v", a)
	}
}
