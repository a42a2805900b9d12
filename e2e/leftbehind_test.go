package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"muster/client"
)

// dropWithout replaces the transport CA while a member is away, to the very end.
func (u *user) dropWithout(t *testing.T, c *cluster, m, away *member) {
	t.Helper()
	id := uint64(away.n)
	u.rotateCA(t, m, `{"kind":"transport","overlap":"0s"}`)
	for _, want := range []string{"trust", "issue"} {
		eventually(t, formed, "the others are done in the phase "+want, func() error {
			k, err := u.tryCA(m, "transport")
			if err == nil && (phase(k) != want || len(k.Rotation.Pending) != 1 || k.Rotation.Pending[0].NodeID != id) {
				err = fmt.Errorf("%+v", k.Rotation)
			}
			return err
		})
		u.rotateCA(t, m, `{"kind":"transport","action":"continue","force":true}`)
	}
	u.awaitPhase(t, m, "none", "transport")
	for _, other := range c.others(away) {
		eventually(t, formed, fmt.Sprintf("node %d trusts the new authority alone", other.n), func() error {
			if n := strings.Count(string(other.read(t, "tls/transport-ca.crt")), "BEGIN CERTIFICATE"); n != 1 {
				return fmt.Errorf("it trusts %d", n)
			}
			return nil
		})
	}
}

// TestLeftBehind: a member that was down during a rotation says what mends it, wherever an operator looks, and nothing
// makes a second cluster of it.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	m, away := c.members[0], c.members[2]
	u.put(t, m, "before", "the rotation")
	away.stop(t)
	u.dropWithout(t, c, m, away)

	const want = "--rejoin"
	if out := muster(t, "doctor", "--data", away.dir); out.code != 1 || !strings.Contains(out.stdout, "left behind") ||
		!strings.Contains(out.stderr, want) {
		t.Errorf("doctor, stopped: %+v", out)
	}
	type plan struct {
		Last    struct{ Term, Index uint64 }
		Members []client.Member
	}
	first := jsonOf[plan](t, muster(t, "recover", "plan", "--data", away.dir, "-o", "json"))
	if out := muster(t, "recover", "plan", "--data", away.dir); out.code != 0 ||
		strings.Count(out.stdout, "certificate") != 2 || !strings.Contains(out.stderr, want) {
		t.Errorf("plan: %+v", out)
	}
	for _, args := range [][]string{{"--alone"}, {"--survivor", "1:1:1"}, {"--alone", "--dry-run"}} {
		out := muster(t, append([]string{"recover", "apply", "--data", away.dir, "--yes"}, args...)...)
		if out.code != 1 || !strings.Contains(out.stderr, "is running") || !strings.Contains(out.stderr, want) {
			t.Errorf("apply %v: %+v", args, out)
		}
	}
	if again := jsonOf[plan](t, muster(t, "recover", "plan", "--data", away.dir, "-o", "json")); again.Last != first.Last {
		t.Errorf("the log was changed: %+v, before %+v", again.Last, first.Last)
	}
	if kept, _ := filepath.Glob(away.file("raft.before-recovery-*")); len(kept) != 0 {
		t.Errorf("kept: %v", kept)
	}

	away.start(t)
	eventually(t, formed, "its status says what to do", func() error {
		if st, err := away.tryStatus(); err != nil || len(st.Notices) == 0 || !strings.Contains(st.Notices[0], want) {
			return fmt.Errorf("%+v, %v", st, err)
		}
		return nil
	})
	eventually(t, formed, "its log says what to do", func() error {
		if text, err := os.ReadFile(away.log); err != nil || !strings.Contains(string(text), "left behind") {
			return fmt.Errorf("it does not: %v", err)
		}
		return nil
	})
	if out := muster(t, "status", "--data", away.dir); !strings.Contains(out.stderr, want) {
		t.Errorf("status: %+v", out)
	}
	if out := muster(t, "doctor", "--data", away.dir); out.code != 1 || !strings.Contains(out.stdout, "left behind") ||
		!strings.Contains(out.stderr, want) {
		t.Errorf("doctor, running: %+v", out)
	}
	u.askAll(t, away, "it is left behind", harmlessRequests(t))
	away.stop(t)
	away.args = append(away.args[:len(away.args)-2], "--rejoin", "--join", u.create(t, m, `{}`).Token)
	away.start(t)
	away.awaitReady(t)
	eventually(t, formed, "it is back", func() error {
		st, err := away.tryStatus()
		if err == nil && (st.Cluster.LeaderNodeID == 0 || len(st.Notices) != 0) {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
}

// TestRecoverRemoved: the directory of a removed member is neither started nor made the start of a recovery, from the
// moment on that the machine has heard of it.
func TestRecoverRemoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	m, gone := c.members[0], c.members[2]
	gone.stop(t)
	if a := u.patiently(m, "DELETE", memberURL(gone.n, "")+"?force=true", ""); a.status != 200 {
		t.Fatalf("remove: %v", a)
	}
	const want = "this node has been removed from the cluster"
	if out := muster(t, "recover", "plan", "--data", gone.dir); out.code != 1 || !strings.Contains(out.stderr, want) {
		t.Errorf("plan: %+v", out)
	}
	for _, other := range c.others(gone) {
		other.stop(t)
	}
	for _, args := range [][]string{{"recover", "plan"}, {"recover", "apply", "--alone", "--yes"}, {"recover", "token"}} {
		if out := muster(t, append(args, "--data", gone.dir)...); out.code != 1 || !strings.Contains(out.stderr, want) ||
			out.stdout != "" {
			t.Errorf("%v: %+v", args, out)
		}
	}
	gone.start(t)
	gone.awaitExpelled(t)
	for _, other := range c.others(gone) {
		other.start(t)
	}
	c.members = c.others(gone)
	c.awaitVoters(t)
}

// TestRecoverToken: the owner of a member's files gets back in without a token, through a running member or at its next
// start, and saves a backup; the audit tells of both.
func TestRecoverToken(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	follower := c.others(leader)[0]
	works := func(token string) error {
		list, err := try[[]client.APIToken](&user{cluster: c, token: token, from: u.from, http: u.http}, follower, "GET",
			"/api/v1/api-tokens", "")
		if err == nil && len(list) < 2 {
			err = fmt.Errorf("%+v", list)
		}
		return err
	}
	for _, m := range []*member{leader, follower} {
		out := muster(t, "recover", "token", "--data", m.dir)
		token := strings.TrimSpace(out.stdout)
		if out.code != 0 || len(token) < 40 || strings.ContainsAny(token, " \n") {
			t.Fatalf("recover token on node %d: exit %d: %s", m.n, out.code, out.stderr)
		}
		c.secret("a recovered token", token)
		eventually(t, formed, "the token works", func() error { return works(token) })
	}
	leader.awaitSQL(t,
		"SELECT count(DISTINCT node_id) FROM audit WHERE action = 'api_token.recover' AND detail LIKE '%on host%of node%'",
		"2")
	a := leader.internally(t, follower, "POST", "/internal/owner/token")
	if a.status != 403 {
		t.Errorf("another member at the door of the owner: %v", a)
	}

	// Without admin.token, a backup as the owner of the files.
	file := filepath.Join(t.TempDir(), "backup")
	if out := muster(t, "backup", "save", file, "--data", follower.dir); out.code != 0 {
		t.Errorf("backup save: %+v", out)
	}
	if out := muster(t, "backup", "inspect", file); out.code != 0 {
		t.Errorf("backup inspect: %+v", out)
	}
	leader.awaitSQL(t, "SELECT count(*) FROM audit WHERE action = 'backup.save'", "1")

	// While everything is off the request waits.
	for _, m := range c.members {
		m.stop(t)
	}
	for _, m := range []*member{leader, follower} { // with an admin.token or without one
		stopped := filepath.Join(t.TempDir(), "backup")
		if out := muster(t, "backup", "save", stopped, "--data", m.dir); out.code != 1 ||
			!strings.Contains(out.stderr, "--stale") {
			t.Errorf("a backup of a member that does not run: %+v", out)
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte(id.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, more := range [][]string{nil, {"--recipient", id.Recipient().String()}} {
			file := stopped + fmt.Sprint(len(more))
			if out := muster(t, append([]string{"backup", "save", file, "--stale", "--data", m.dir},
				more...)...); out.code != 0 {
				t.Errorf("its replica: %+v", out)
			}
			if out := muster(t, "backup", "inspect", file, "--identity", key, "-o", "json"); out.code != 0 ||
				strings.Contains(strings.ReplaceAll(out.stdout, " ", ""), `"Openable":true`) != (more != nil) {
				t.Errorf("its replica, inspected: %+v", out)
			}
		}
	}
	out := muster(t, "recover", "token", "--data", follower.dir)
	token := strings.TrimSpace(out.stdout)
	c.secret("a recovered token", token)
	left, _ := filepath.Glob(follower.file("recover-token-*.json"))
	if out.code != 0 || token == "" || len(left) != 1 {
		t.Fatalf("recover token while it is off: exit %d: %s; %v", out.code, out.stderr, left)
	}
	if info, err := os.Stat(left[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	follower.start(t) // alone it knows no leader, and can do nothing yet
	eventually(t, formed, "it runs", func() error { _, err := follower.tryStatus(); return err })
	for _, m := range c.others(follower) {
		m.start(t)
	}
	eventually(t, formed, "the token works", func() error { return works(token) })
	eventually(t, formed, "the request is gone", func() error {
		if left, _ := filepath.Glob(follower.file("recover-token-*.json")); len(left) != 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}
