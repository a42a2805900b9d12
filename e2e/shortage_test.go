package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors bounds the open files of a running process; it returns the bound that was there.
func (m *member) descriptors(t *testing.T, most uint64) (before uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return old.Cur
}

// TestNoDescriptors: a leader that can open no files any more accepts nobody: it says so and gives leadership away, and
// is a healthy voter as soon as it has some again.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.members[0]
	u.lead(t, leader)
	u.awaitSettled(t, leader, 1, 2, 3)
	before := leader.descriptors(t, 16)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { // somebody knocks
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				if conn, err := net.DialTimeout("tcp", leader.raft, time.Second); err == nil {
					conn.Close()
				}
			}
		}
	})
	begin := time.Now()
	other := c.members[1]
	err := within(formed, func() error {
		st, err := other.tryStatus()
		if err == nil && (st.Cluster.LeaderNodeID == 0 || st.Cluster.LeaderNodeID == uint64(leader.n)) {
			err = fmt.Errorf("node %d leads", st.Cluster.LeaderNodeID)
		}
		return err
	})
	t.Logf("after %.1f s another one leads", time.Since(begin).Seconds())
	if err == nil {
		u.patiently(other, "POST", "/api/v1/cluster/join-tokens", `{}`).is(t, "a write", 201, "")
	}
	close(stop)
	wait.Wait()
	leader.descriptors(t, before)
	if err != nil {
		t.Fatalf("a leader without descriptors keeps leading: %v\n%s", err, lastLines(leader.log, 20))
	}
	if text, _ := os.ReadFile(leader.log); !strings.Contains(string(text), "cannot accept") {
		t.Errorf("its log does not say so: %s", lastLines(leader.log, 20))
	}
	leader.awaitReady(t)
	c.awaitVoters(t)
	u.recovers(t, leader, other)
}

// otherUser is one that no process of this machine belongs to: the kernel counts threads by user, and none of root's.
const otherUser = 61613

// asOther has a member run as otherUser, with at most so many threads.
func (m *member) asOther(t *testing.T, threads int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	binary := filepath.Join(m.cluster.root, "muster")
	if err := exec.Command("cp", self(), binary).Run(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(binary, 0o755), os.Chmod(m.cluster.root, 0o777),
		os.Chmod(filepath.Dir(m.cluster.root), 0o711)); err != nil {
		t.Fatal(err)
	}
	limit := fmt.Sprintf("--nproc=%d", threads)
	m.binary, m.args = "/usr/bin/prlimit", append([]string{limit, "setpriv", fmt.Sprintf("--reuid=%d", otherUser),
		fmt.Sprintf("--regid=%d", otherUser), "--clear-groups", binary}, m.args...)
}

// TestNoThreads: a member that cannot start enough threads says so and makes nothing.
func TestNoThreads(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	m := c.add()
	m.asOther(t, 30)
	m.start(t)
	if code, err := m.exit(formed); err != nil || code != 1 {
		t.Errorf("with 30 threads: %d, %v", code, err)
	}
	if text, _ := os.ReadFile(m.log); !strings.Contains(string(text), "more threads, and a member needs") {
		t.Errorf("it says %s", text)
	}
	if _, err := os.Stat(m.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made its directory: %v", err)
	}
}

// TestNoThreadsLeft: a running leader that can start no threads any more says so and gives leadership away, and is a
// healthy voter as soon as it can again.
func TestNoThreadsLeft(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader, other := c.members[2], c.members[1]
	leader.stop(t)
	leader.asOther(t, 4096)
	if out, err := exec.Command("chown", "-R", fmt.Sprint(otherUser), leader.dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	leader.start(t)
	leader.awaitReady(t)
	u.lead(t, leader)
	u.awaitSettled(t, leader, 1, 2, 3)
	leader.threads(t, 1)
	eventually(t, formed, "another one leads", func() error {
		st, err := other.tryStatus()
		if err == nil && (st.Cluster.LeaderNodeID == 0 || st.Cluster.LeaderNodeID == uint64(leader.n)) {
			err = fmt.Errorf("node %d leads: %s", st.Cluster.LeaderNodeID, lastLines(leader.log, 20))
		}
		return err
	})
	u.patiently(other, "POST", "/api/v1/cluster/join-tokens", `{}`).is(t, "a write", 201, "")
	if text, _ := os.ReadFile(leader.log); !strings.Contains(string(text), "cannot start threads") {
		t.Errorf("its log does not say so: %s", lastLines(leader.log, 20))
	}
	leader.threads(t, 4096)
	leader.awaitReady(t)
	c.awaitVoters(t)
	u.recovers(t, leader, other)
}

// threads bounds the threads of a running member and its user. Only that user may do so without a capability.
func (m *member) threads(t *testing.T, most int) {
	t.Helper()
	out, err := exec.Command("setpriv", fmt.Sprintf("--reuid=%d", otherUser), fmt.Sprintf("--regid=%d", otherUser),
		"--clear-groups", "prlimit", fmt.Sprintf("--nproc=%d:4096", most), fmt.Sprintf("--pid=%d", m.cmd.Process.Pid),
	).CombinedOutput()
	if err != nil {
		t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// TestJoinsDuringRotations: machines that join through a member that does not lead, while the keys that seal what they
// get are rotated, are all let in.
func TestJoinsDuringRotations(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	follower := c.others(leader)[0]
	const joiners = 24
	bodies := make([]string, joiners)
	for i := range bodies {
		bodies[i] = joinBody(t, u.create(t, leader, `{"mode":"replicate"}`).Token, "name", fmt.Sprintf("joiner-%d", i),
			"raft_address", fmt.Sprintf("127.0.0.1:%d", 50000+i))
	}
	stop := make(chan struct{})
	var rotations sync.WaitGroup
	rotated := 0
	rotations.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if a := u.do(leader, "POST", "/api/v1/cluster/keys/rotate", `{}`); a.status/100 == 2 {
					rotated++
				}
			}
		}
	})
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for j := i; j < joiners; j += 4 {
				if a := u.do(follower, "POST", "/api/v1/cluster/join", bodies[j]); a.status != 200 {
					t.Errorf("join %d: %v", j, a)
				}
			}
		})
	}
	wait.Wait()
	close(stop)
	rotations.Wait()
	if rotated < 2 {
		t.Errorf("the key was rotated %d times meanwhile", rotated)
	}
	t.Logf("%d rotations during %d joins", rotated, joiners)
	if list := u.members(t, leader); len(list) != 3+joiners {
		t.Errorf("%d members", len(list))
	}
}

// TestRestoreOfOlderSchema: an archive of an older schema is restored into a database of a newer one, which stays what
// it is.
func TestRestoreOfOlderSchema(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	u := c.admin(t)
	m := c.members[0]
	u.put(t, m, "kept", "before")
	token := u.apiToken(t, m, "kept", "cluster:read")
	archive := u.do(m, "GET", "/v1/operator/snapshot", "")
	if archive.status != 200 {
		t.Fatalf("the archive: %v", archive.status)
	}
	u.put(t, m, "kept", "after")
	m.stop(t)
	m.env = []string{asLater + "=1"}
	m.start(t)
	m.awaitReady(t)
	type schema struct{ Applied, Latest int64 }
	var now schema
	eventually(t, formed, "the newer schema is applied", func() error {
		var err error
		now, err = try[schema](u, m, "GET", "/api/v1/cluster/schema", "")
		if err == nil && now.Applied != now.Latest {
			err = fmt.Errorf("%+v", now)
		}
		return err
	})
	u.patiently(m, "PUT", "/v1/operator/snapshot", archive.body).is(t, "the restore", 200, "")
	if v, err := u.value(m, "kept"); err != nil || v != "before" {
		t.Errorf("%q, %v", v, err)
	}
	if s := get[schema](t, u, m, "GET", "/api/v1/cluster/schema", ""); s != now {
		t.Errorf("the schema was %+v and is %+v", now, s)
	}
	awaitCopies(t, c, m)
	if got := sqlite(t, m.db(),
		fmt.Sprintf("SELECT count(*) FROM sqlite_schema WHERE name = 'later_%d'", now.Applied)); got != "1" {
		t.Errorf("the newer table is gone: %s", got)
	}
	if a := c.as(t, token.Token).do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
		t.Errorf("a token of before: %v", a)
	}
	u.put(t, m, "kept", "later")
}
