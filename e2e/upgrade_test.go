package e2e

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"muster/client"
	"muster/migrations"
)

// asLater in the environment makes a muster one of a later version, which knows that many schema steps more.
const asLater = "MUSTER_E2E_LATER"

func laterSchema(steps string) {
	n, _ := strconv.Atoi(steps)
	if n == 0 {
		return
	}
	all := fstest.MapFS{}
	names, _ := fs.Glob(migrations.FS, "*.sql")
	for _, name := range names {
		data, _ := fs.ReadFile(migrations.FS, name)
		all[name] = &fstest.MapFile{Data: data}
	}
	for range n {
		migrations.Latest++
		all[fmt.Sprintf("%05d_later.sql", migrations.Latest)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"-- +goose Up\nCREATE TABLE later_%d (id INTEGER PRIMARY KEY) STRICT;\n", migrations.Latest)}
	}
	migrations.FS = all
}

// TestRollingUpgrade replaces the members' binaries one after the other while the cluster is written to: the schema
// stays until everybody that lives knows the newer one, a dead member can be left out, and an old binary that comes
// back follows but does not lead.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	base := migrations.Latest
	tokens := 0
	write := func() { // through every member that runs
		t.Helper()
		for _, m := range c.members {
			if m.up() {
				u.create(t, m, `{}`)
				tokens++
			}
		}
	}
	restart := func(m *member, later int) {
		t.Helper()
		if m.up() {
			m.stop(t)
		}
		m.env = []string{asLater + "=" + strconv.Itoa(later)}
		m.start(t)
		m.awaitReady(t)
		c.awaitVoters(t)
		write()
	}
	schema := func(m *member) client.Schema {
		t.Helper()
		return get[client.Schema](t, u, m, "GET", "/api/v1/cluster/schema", "")
	}
	first, second, third := c.members[0], c.members[1], c.members[2]

	restart(first, 1)
	restart(second, 1)
	u.lead(t, first)
	for _, m := range c.members {
		if s := schema(m); s.Applied != base || s.Latest != base+1 || len(s.HeldBackBy) != 1 || s.HeldBackBy[0].NodeID != 3 ||
			s.HeldBackBy[0].MaxSchema != base {
			t.Errorf("with an old member alive, node %d says of the schema: %+v", m.n, s)
		}
	}
	cmd := command{env: c.env(c.token)}
	if out := cmd.run(t, "schema", "migrate", "--exclude", "3"); out.code != 1 ||
		!strings.Contains(out.stderr, "node 3 cannot be excluded while it answers") {
		t.Errorf("leaving out a member that lives: %+v", out)
	}
	if out := cmd.run(t, "schema", "migrate", "--exclude", "33"); out.code != 1 ||
		!strings.Contains(out.stderr, "node 33 is not a member") {
		t.Errorf("leaving out nobody: %+v", out)
	}

	third.signal(syscall.SIGKILL)
	third.kill()
	eventually(t, formed, "the dead member is noticed", func() error {
		if s := schema(first); len(s.HeldBackBy) != 1 || s.HeldBackBy[0].Status != "down" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if out := cmd.run(t, "schema", "migrate"); out.code != 1 || !strings.Contains(out.stderr, "node 3 blocks the schema") {
		t.Errorf("not leaving out the dead member: %+v", out)
	}
	write()
	begin := time.Now()
	if out := cmd.run(t, "schema", "migrate", "--exclude", "3"); out.code != 0 {
		t.Fatalf("leaving out the dead member: %+v", out)
	}
	t.Logf("the schema was applied in %v", time.Since(begin).Round(time.Millisecond))
	write()
	if out := cmd.run(t, "schema"); out.code != 0 ||
		!strings.Contains(out.stderr, fmt.Sprintf("the database has schema %d, the newest", base+1)) {
		t.Errorf("schema: %+v", out)
	}

	restart(third, 0) // the old binary again
	if out := cmd.run(t, "raft", "transfer", "3"); out.code != 1 ||
		!strings.Contains(out.stderr, fmt.Sprintf("knows the schema up to %d", base)) {
		t.Errorf("transfer to the old binary: %+v", out)
	}
	if list := get[client.AuditPage](t, u, first, "GET", "/api/v1/audit?action=leader.transfer&object=node/3",
		""); len(list.Entries) != 0 {
		t.Errorf("a refused transfer is in the audit: %+v", list)
	}
	eventually(t, formed, "somebody leads who knows the schema", func() error {
		if s, err := third.tryStatus(); err != nil || s.Cluster.LeaderNodeID == 0 || s.Cluster.LeaderNodeID == 3 {
			return fmt.Errorf("node 3 follows %d: %v", s.Cluster.LeaderNodeID, err)
		}
		return nil
	})
	write()

	for _, m := range c.members { // and once more, by itself
		restart(m, 2)
	}
	u.lead(t, second)
	eventually(t, formed, "the newest schema is applied without being asked for", func() error {
		if s := schema(third); s.Applied != base+2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	write()
	checkUpgraded(t, c, u, tokens, base)
}

// checkUpgraded: after two later schemas no token is lost, and each mirror has both.
func checkUpgraded(t *testing.T, c *cluster, u *user, tokens int, base int64) {
	t.Helper()
	if n := len(u.tokens(t, c.members[0])); n < tokens {
		t.Errorf("%d tokens are left of %d", n, tokens)
	}
	awaitCopies(t, c, c.members...)
	for _, m := range c.members {
		got := sqlite(t, m.db(),
			"SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema WHERE name GLOB 'later_*' ORDER BY name)")
		if got != fmt.Sprintf("later_%d later_%d", base+1, base+2) {
			t.Errorf("node %d has the tables %q", m.n, got)
		}
		if got := sqlite(t, m.db(), "SELECT count(*) FROM audit WHERE action = 'schema.migrate'"); got != "2" {
			t.Errorf("node %d has %s audit rows of the schema", m.n, got)
		}
	}
}
