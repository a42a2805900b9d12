package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// diskSize is enough for a small member with its log and its snapshots.
const diskSize = 192 << 20

// fails waits until a member says that it cannot store, and the leader that it counts for nothing.
func (u *user) fails(t *testing.T, m, through *member, fault string) {
	t.Helper()
	begin := time.Now()
	eventually(t, formed, fmt.Sprintf("node %d cannot store", m.n), func() error {
		state, err := u.autopilot(through)
		if err != nil {
			return err
		}
		if state.Healthy || state.FailureTolerance != 0 {
			return fmt.Errorf("the cluster is healthy: %v, and survives %d losses", state.Healthy, state.FailureTolerance)
		}
		for _, s := range state.Servers {
			if s.NodeID == uint64(m.n) &&
				(s.Healthy || s.CannotStore != fault || !strings.Contains(s.Reason, "cannot store, "+fault)) {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	t.Logf("after %.1f s the leader counts node %d out", time.Since(begin).Seconds(), m.n)
	if st := m.status(t); st.Ready || st.Reason != "this member cannot store: "+fault || st.Storing == nil ||
		st.Storing.OK {
		t.Errorf("its own status is %+v, %+v", st, st.Storing)
	}
	if a := u.do(m, "GET", "/v1/agent/health", ""); a.status != 500 ||
		!strings.Contains(a.body, "this member cannot store: "+fault) {
		t.Errorf("the health of its agent is %v", a)
	}
	if out := (command{env: append(u.cluster.env(u.cluster.token), "MUSTER_ADDR=https://"+m.api)}).ok(t,
		"status"); !strings.Contains(out.stderr, "cannot store: "+fault) {
		t.Errorf("muster status says %+v", out)
	}
	if row, err := u.row(through, m.n); err != nil || row.CannotStore != fault {
		t.Errorf("the members list says %+v, %v", row, err)
	}
	if _, values := scrape(t, u.cluster, m); values["muster_storing"] != 0 {
		t.Errorf("its metric says %v", values["muster_storing"])
	}
	text, _ := os.ReadFile(m.log)
	if n := strings.Count(string(text), fault); n != 1 {
		t.Errorf("its log says so %d times", n)
	}
	eventually(t, formed, "it is in the audit", func() error {
		a := u.do(through, "GET", "/api/v1/audit?action=member.unhealthy", "")
		if !strings.Contains(a.body, "cannot store: "+fault) {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	if a := u.transferTo(through, m); a.status == 200 {
		t.Errorf("leadership can be given to it all the same: %v", a)
	}
}

// recovers waits until everybody is a healthy voter again.
func (u *user) recovers(t *testing.T, m, through *member) {
	t.Helper()
	begin := time.Now()
	eventually(t, formed, fmt.Sprintf("node %d is a healthy voter again", m.n), func() error {
		state, err := u.autopilot(through)
		if err == nil && (!state.Healthy || state.FailureTolerance != 1 || len(state.Voters) != 3) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
	t.Logf("after %.1f s node %d is healthy", time.Since(begin).Seconds(), m.n)
	m.awaitReady(t)
}

// withGround forms a cluster of three voters, of which the second one's data directory is what ground makes. It returns
// the administrator, the first member, which leads, and the second.
func withGround(t *testing.T, ground func(*member, *testing.T)) (u *user, first, m *member) {
	t.Helper()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := found(t)
	m = c.add()
	ground(m, t)
	c.join(m)
	c.join(c.add())
	c.awaitVoters(t)
	u, first = c.admin(t), c.members[0]
	u.awaitSettled(t, first, 1, 2, 3)
	u.lead(t, first)
	return u, first, m
}

// TestFrozenVoter: a voter whose disk does not answer counts for nothing, the others go on, and their number is judged
// without it. When the disk answers again it is a healthy voter.
func TestFrozenVoter(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, (*member).ownDisk)
	third := u.cluster.members[2]
	u.drain(first, 3, `{"deadlineSeconds":0}`)
	u.awaitDrain(t, first, 3, "drained", formed)
	u.recovers(t, m, first)

	m.freeze(t, true)
	u.fails(t, m, first, "its disk does not answer")
	u.askAll(t, m, "its disk does not answer", harmlessRequests(t))
	u.askAll(t, first, "the disk of another member does not answer", harmlessRequests(t))
	if a := u.remove(first, 3, ""); a.status != 409 ||
		!strings.Contains(a.body, "without node 3 only 1 of 2 voters would be live") {
		t.Errorf("the removal of another voter: %v", a)
	}
	if a := u.do(first, "DELETE", "/v1/operator/raft/peer?address="+third.raft, ""); a.status != 500 ||
		!strings.Contains(a.body, "without node 3 only 1 of 2 voters would be live") {
		t.Errorf("the removal of another voter as a Raft peer: %v", a)
	}
	for i := range 20 {
		u.create(t, []*member{first, third}[i%2], `{}`)
	}
	m.freeze(t, false)
	u.recovers(t, m, first)
	u.create(t, m, `{}`)
	eventually(t, formed, "the audit knows that it stores again", func() error {
		if a := u.do(first, "GET", "/api/v1/audit?action=member.healthy", ""); !strings.Contains(a.body, "stores again") {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

// TestFrozenLeader: a leader whose disk does not answer is followed by another one, and takes part again when it
// answers.
func TestFrozenLeader(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		t.Run(map[bool]string{false: "idle", true: "busy"}[busy], func(t *testing.T) {
			u, first, m := withGround(t, (*member).ownDisk)
			u.lead(t, m)
			m.freeze(t, true)
			begin, snapshot := time.Now(), make(chan answer, 1)
			go func() { snapshot <- u.do(m, "GET", "/v1/operator/snapshot", "") }()
			eventually(t, formed, "another one leads", func() error {
				if busy {
					_ = u.do(first, "POST", "/api/v1/cluster/join-tokens", `{}`)
				}
				st, err := first.tryStatus()
				if err == nil && (st.Cluster.LeaderNodeID == 0 || st.Cluster.LeaderNodeID == uint64(m.n)) {
					err = fmt.Errorf("%+v", st.Cluster)
				}
				return err
			})
			t.Logf("after %.1f s another one leads", time.Since(begin).Seconds())
			u.patiently(first, "POST", "/api/v1/cluster/join-tokens", `{}`).is(t, "a write", 201, "")
			eventually(t, formed, "it says so", func() error {
				st, err := m.tryStatus()
				if err == nil && (st.Ready || st.Cluster.IsLeader) {
					err = fmt.Errorf("%+v", st)
				}
				return err
			})
			select {
			case a := <-snapshot: // it was asked while the disk stood still, which is not waited for
				if a.err != nil || a.status != 200 && a.status != 503 && a.status != 500 {
					t.Errorf("a snapshot: %d %v", a.status, a.err)
				}
			case <-time.After(formed):
				t.Error("a snapshot waits for a disk that does not answer")
			}
			for _, path := range []string{"/v1/agent/self", "/v1/operator/raft/configuration?stale",
				"/api/v1/cluster/members?stale"} {
				u.do(m, "GET", path, "").is(t, path+" of a member with such a disk", 200, "")
			}
			m.freeze(t, false)
			u.recovers(t, m, first)
			u.lead(t, m)
		})
	}
}

// TestNoInodes: a voter whose file system has no inodes left counts for nothing until there are some again.
func TestNoInodes(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, func(m *member, t *testing.T) { m.ownMemory(t, "nr_inodes=120") })
	if err := os.Mkdir(m.file("fill"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := 0; os.WriteFile(m.file(filepath.Join("fill", fmt.Sprint(i))), nil, 0o600) == nil; i++ {
		if i > 200 {
			t.Fatal("the file system takes any number of files")
		}
	}
	u.fails(t, m, first, "its file system is out of inodes")
	if err := os.RemoveAll(m.file("fill")); err != nil {
		t.Fatal(err)
	}
	u.recovers(t, m, first)
}

// TestNoRoom: a voter whose file system has no byte left still writes over its own files and counts for nothing all the
// same: its next piece of the Raft log finds no room.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, func(m *member, t *testing.T) { m.ownMemory(t, "nr_inodes=4096") })
	fill, err := os.OpenFile(m.file("fill"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = fill.Write(block)
	}
	fill.Close()
	u.fails(t, m, first, "its file system is full")
	if err := os.Remove(m.file("fill")); err != nil {
		t.Fatal(err)
	}
	u.recovers(t, m, first)
}

// TestQuota: a voter over its quota counts for nothing, though its file system has room.
func TestQuota(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, (*member).ownQuota)
	m.btrfs(t, "qgroup", "limit", "1M", m.dir)
	u.fails(t, m, first, "its file system is full")
	m.btrfs(t, "quota", "disable", m.dir) // over the limit nothing else is taken
	u.recovers(t, m, first)
}

// TestReadOnly: a voter whose file system became read-only after an error counts for nothing. Checked and mounted
// again, it is a healthy voter.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, (*member).ownDisk)
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "--target", m.dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(device))), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0o200); err != nil {
		t.Skipf("this kernel makes no error on demand: %v", err)
	}
	u.fails(t, m, first, "its file system is read-only")
	for range 10 {
		u.create(t, first, `{}`)
	}
	m.kill()
	unmount(t, m.dir)
	if out, err := exec.Command("fsck.ext4", "-p", "-f", m.dir+".img").CombinedOutput(); err != nil &&
		!strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("fsck: %v: %s", err, out)
	}
	m.mount(t)
	m.start(t)
	u.recovers(t, m, first)
}

// TestLostGround: a voter whose data directory is not there any more, whose files may not grow or whose disk fails
// counts for nothing, though it answers, until that is mended.
func TestLostGround(t *testing.T) {
	t.Parallel()
	u, first, m := withGround(t, (*member).ownDisk)

	recovered := 0
	recovers := func() {
		u.recovers(t, m, first)
		recovered++
		eventually(t, formed, "it is in the audit that it is back", func() error { // which the next fault needs to be news
			a := u.do(first, "GET", "/api/v1/audit?action=member.healthy", "")
			if strings.Count(a.body, `"member.healthy"`) < recovered {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
	away := m.file("raft.away")
	if err := os.Rename(m.file("raft"), away); err != nil {
		t.Fatal(err)
	}
	u.fails(t, m, first, "its data directory is gone")
	if err := os.Rename(away, m.file("raft")); err != nil {
		t.Fatal(err)
	}
	recovers()

	limit := func(to uint64) {
		if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: to, Max: unix.RLIM_INFINITY},
			nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(1 << 20)
	u.fails(t, m, first, "its process may not write files as large as it needs (RLIMIT_FSIZE, LimitFSIZE)")
	limit(unix.RLIM_INFINITY)
	recovers()

	dir, err := os.Open(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN: from here on every access fails
	err = unix.IoctlSetPointerInt(int(dir.Fd()), shutdown, noLogFlush)
	dir.Close()
	if err != nil {
		t.Skipf("this kernel does not let a file system fail: %v", err)
	}
	// Nothing can be read either, not even by this test. The member answers the leader all the same.
	eventually(t, formed, "the leader hears what is wrong", func() error {
		state, err := u.autopilot(first)
		if err != nil {
			return err
		}
		for _, s := range state.Servers {
			if s.NodeID == uint64(m.n) && s.CannotStore == "its disk refuses writes: input/output error" &&
				state.FailureTolerance == 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", state)
	})
	m.kill()
	unmount(t, m.dir)
	if out, err := exec.Command("fsck.ext4", "-p", "-f", m.dir+".img").CombinedOutput(); err != nil &&
		!strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("fsck: %v: %s", err, out)
	}
	m.mount(t)
	m.start(t)
	u.recovers(t, m, first)
}
