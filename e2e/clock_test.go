package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wallClock is x86-64 code in the place of the vDSO's clock_gettime: it asks the kernel, and adds to CLOCK_REALTIME the
// seconds that stand behind it.
var wallClock = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jne to the ret
	0x48, 0x8b, 0x0d, 4, 0, 0, 0, // mov rcx, [rip+4]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3, // ret
}

// setClock sets the clock of a running member, and of no other process, so far ahead of the machine's. Its monotonic
// clock goes on as it does when the clock of a machine is set.
func (m *member) setClock(t *testing.T, ahead time.Duration) {
	t.Helper()
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		t.Skip("the clock of one process can be set on linux/amd64 only")
	}
	pid := m.cmd.Process.Pid
	from, to := vdsoOf(t, pid)
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("the memory of a member cannot be written: %v", err)
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, int64(from)); err != nil {
		t.Fatal(err)
	}
	at := from + clockIn(t, image)
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second)))
	if bytes.Equal(image[at-from:][:len(wallClock)], wallClock) { // only the seconds change
		if _, err := mem.WriteAt(seconds, int64(at)+int64(len(wallClock))); err != nil {
			t.Fatal(err)
		}
		return
	}
	eventually(t, formed, "no thread asks for the time", func() error {
		m.pause()
		defer m.carryOn()
		if err := outsideOf(pid, from, to); err != nil {
			return err
		}
		if _, err := mem.WriteAt(append(bytes.Clone(wallClock), seconds...), int64(at)); err != nil {
			t.Skipf("the vDSO cannot be written: %v", err)
		}
		return nil
	})
}

// vdsoOf finds the vDSO of a process.
func vdsoOf(t *testing.T, pid int) (from, to uint64) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
				t.Fatal(err)
			}
			return from, to
		}
	}
	t.Skip("this kernel gives processes no vDSO")
	return 0, 0
}

// clockIn finds clock_gettime in the image of a vDSO.
func clockIn(t *testing.T, image []byte) uint64 {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			return s.Value
		}
	}
	t.Skip("this kernel's vDSO has no clock_gettime")
	return 0
}

// outsideOf returns an error unless every thread of a stopped process is known not to be between two addresses.
func outsideOf(pid int, from, to uint64) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(dir + "/" + thread.Name() + "/syscall")
		if err != nil {
			return err
		}
		words := strings.Fields(string(text))
		if len(words) < 2 {
			return errors.New("a thread runs still")
		}
		if pc, err := strconv.ParseUint(words[len(words)-1], 0, 64); err != nil || pc >= from && pc < to {
			return fmt.Errorf("a thread is at %s", words[len(words)-1])
		}
	}
	return nil
}

// clockSaid is what a member says of clocks.
func clockSaid(m *member) (string, error) {
	st, err := m.tryStatus()
	if err != nil {
		return "", err
	}
	for _, text := range st.Notices {
		if strings.Contains(text, "clock") {
			return text, nil
		}
	}
	return "", nil
}

func (m *member) awaitClockSaid(t *testing.T, want string) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("node %d says of clocks %q", m.n, want), func() error {
		if text, err := clockSaid(m); err != nil || want == "" && text != "" || !strings.Contains(text, want) {
			return fmt.Errorf("%q, %v", text, err)
		}
		return nil
	})
}

// TestClocks: the clocks of a follower and of the leader jump forwards and backwards. Everybody goes on, nobody is
// replaced, writes and linearisable reads go on, and those concerned say which clock is wrong and by how much. A leader
// with a wrong clock gives leadership away.
func TestClocks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u, leader := c.admin(t), c.leader(t)
	u.awaitSettled(t, leader, 1, 2, 3)
	follower := c.others(leader)[0]
	works := func(leader *member) {
		t.Helper()
		for _, m := range c.members {
			if a := u.patiently(m, "POST", "/api/v1/cluster/join-tokens", `{}`); a.status != 201 {
				t.Errorf("a write through node %d: %v", m.n, a)
			}
			if a := u.patiently(m, "GET", "/api/v1/cluster/join-tokens", ""); a.status != 200 {
				t.Errorf("a read through node %d: %v", m.n, a)
			}
		}
		u.awaitSettled(t, leader, 1, 2, 3)
		if st, err := leader.tryStatus(); err != nil || st.Cluster.LeaderNodeID != uint64(leader.n) {
			t.Errorf("leadership has moved: %+v, %v", st.Cluster, err)
		}
	}
	for _, x := range []struct {
		by   time.Duration
		says string
	}{
		{2 * time.Hour, "2h0m0s ahead of"}, {-2 * time.Hour, "2h0m0s behind"}, {400 * 24 * time.Hour, "9600h0m0s ahead of"},
		{0, ""},
	} {
		follower.setClock(t, x.by)
		follower.awaitClockSaid(t, strings.TrimSuffix("this member's clock is "+x.says, "this member's clock is "))
		leader.awaitClockSaid(t,
			strings.TrimSuffix(fmt.Sprintf("the clock of node %d is %s", follower.n, x.says),
				fmt.Sprintf("the clock of node %d is ", follower.n)))
		works(leader)
		if _, values := scrape(t, c, follower); x.by != 0 && values["muster_clock_skew_seconds"] == 0 {
			t.Error("muster_clock_skew_seconds is 0")
		}
	}
	// it gives leadership to one with the right time
	for _, by := range []time.Duration{-3 * time.Hour, 3 * time.Hour, 500 * 24 * time.Hour} {
		u.lead(t, leader)
		leader.setClock(t, by)
		var next *member
		eventually(t, formed, "another one leads", func() error {
			st, err := follower.tryStatus()
			if id := st.Cluster.LeaderNodeID; err != nil || id == 0 || id == uint64(leader.n) {
				return fmt.Errorf("%d, %v", id, err)
			}
			next = c.members[st.Cluster.LeaderNodeID-1]
			return nil
		})
		leader.awaitClockSaid(t, "this member's clock is ")
		for _, m := range c.others(leader) {
			if a := u.patiently(m, "POST", "/api/v1/cluster/join-tokens", `{}`); a.status != 201 {
				t.Errorf("a write through node %d: %v", m.n, a)
			}
		}
		u.awaitSettled(t, next, 1, 2, 3)
		leader.setClock(t, 0)
		leader.awaitClockSaid(t, "")
		next.awaitClockSaid(t, "")
	}
	works(c.leader(t))
}

// TestJoinedWithAWrongClock: members join while the clock of the leader is a day ahead, and then it is set. Their
// certificates are not valid yet: they become voters all the same, also after a restart, and get others.
func TestJoinedWithAWrongClock(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := found(t)
	first := c.members[0]
	first.setClock(t, 24*time.Hour)
	for range 2 {
		m := c.add()
		c.join(m)
		eventually(t, formed, "it has joined", func() error {
			if m.identity() == "" {
				return errors.New("not yet")
			}
			return nil
		})
	}
	first.setClock(t, 0)
	c.awaitVoters(t)
	for _, m := range c.members[1:] {
		m.signal(syscall.SIGTERM)
		if _, err := m.exit(formed); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.members[1:] {
		m.start(t)
	}
	u := c.admin(t)
	for _, m := range c.members {
		eventually(t, formed, fmt.Sprintf("node %d answers by a certificate that is valid", m.n), func() error {
			if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.err != nil || a.status != 200 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
	u.awaitSettled(t, first, 1, 2, 3)
}
