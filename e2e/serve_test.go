package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/certs"
)

// TestServe: what `muster serve` refuses to begin with.
func TestServe(t *testing.T) {
	t.Parallel()
	onThree(t, part{"refused", testRefusedServe}, part{"directories", testDirectories}, part{"ports", testPorts})
}

// contents lists what is in a directory, each file with its mode and a digest. The lock file and an empty directory tls
// do not count: with them a directory is as good as empty.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if name == "." {
			return nil
		}
		line := fmt.Sprintf("%s %v", name, info.Mode())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// refusal runs a serve that must not come to anything: exit status 1, one clear sentence, and the directory as before.
func refusal(t *testing.T, name, dir, want string, cmd command, args ...string) {
	t.Helper()
	refusalWith(t, 1, name, dir, want, cmd, args...)
}

// refusalWith is refusal with another exit status.
func refusalWith(t *testing.T, code int, name, dir, want string, cmd command, args ...string) {
	t.Helper()
	before := contents(t, dir)
	cmd.limit = 20 * time.Second
	out := cmd.run(t, append([]string{"serve", "--data", dir}, args...)...)
	if out.code != code {
		t.Errorf("%s: exit status %d, want %d", name, out.code, code)
	}
	if lines := strings.Split(strings.TrimSpace(out.stderr), "\n"); len(lines) != 1 ||
		!strings.HasPrefix(lines[0], "muster: ") || out.stdout != "" {
		t.Errorf("%s: not one sentence on stderr: %q %q", name, out.stderr, out.stdout)
	}
	if !strings.Contains(out.stderr, want) {
		t.Errorf("%s: %q does not say %q", name, strings.TrimSpace(out.stderr), want)
	}
	for i, arg := range args {
		if i > 0 && args[i-1] == "--join" && len(arg) > 40 && strings.Contains(out.stderr, arg[:40]) {
			t.Errorf("%s: the token is in the message: %s", name, out.stderr)
		}
	}
	if after := contents(t, dir); after != before {
		t.Errorf("%s: the directory was\n%s\nand is\n%s", name, before, after)
	}
}

// listenFlags makes the flags of a member that nobody else will be in the way of.
func listenFlags() []string {
	return []string{"--api", fmt.Sprintf("127.0.0.1:%d", freePort()), "--raft", fmt.Sprintf("127.0.0.1:%d", freePort())}
}

// testRefusedServe: with a bad token `muster serve --join` says why in one sentence and leaves nothing behind.
func testRefusedServe(t *testing.T, c *cluster) {
	list := badTokens(t, c)
	dir := t.TempDir() // one for all
	unchanged(t, c, func(u *user) {
		for _, x := range list {
			if x.local == "-" {
				continue // good for its own cluster, and that is the one that would be asked
			}
			want := "the cluster refuses the join: Unauthorized: " + x.message
			if rest, ok := strings.CutPrefix(x.message, "409 "); ok {
				want = "the cluster refuses the join: " + rest
			}
			if x.local != "" {
				want = x.local
			}
			refusal(t, x.name, dir, strings.TrimSuffix(want, "…"), command{}, append(listenFlags(), "--join", x.token)...)
		}
		refusalWith(t, 2, "an empty token file", dir, "the join token cannot be read", command{},
			append(listenFlags(), "--join", "@/dev/null")...)
		refusal(t, "no token file", dir, "the token file cannot be read", command{},
			append(listenFlags(), "--join", "@/nowhere/token")...)
		refusal(t, "a token in the environment", dir, "the join token cannot be read",
			command{env: []string{"MUSTER_JOIN_TOKEN=nonsense"}}, listenFlags()...)
	})
	fresh := filepath.Join(t.TempDir(), "fresh")
	if out := muster(t, append([]string{"serve", "--data", fresh, "--join", list[0].token},
		listenFlags()...)...); out.code != 1 {
		t.Errorf("a bad token and a directory that is not there: %+v", out)
	}
	if entries, err := os.ReadDir(fresh); !os.IsNotExist(err) {
		t.Errorf("the refusal leaves %v behind, %v", entries, err)
	}
	// Tokens that lead nowhere, or to somebody else: what they leave must not stand in the way of a good one.
	good := c.admin(t).create(t, c.members[0], `{"mode":"replicate"}`).Token
	forge := newForger(t, c, good)
	for _, x := range []struct {
		name, want string
		change     func(*certs.JoinClaims)
	}{
		{"nobody answers", "connection refused", func(x *certs.JoinClaims) {
			x.Addresses = []string{fmt.Sprintf("127.0.0.1:%d", freePort())}
		}},
		{"another CA", "not a member of the token's cluster", func(x *certs.JoinClaims) {
			x.CAFingerprint = "sha256:" + strings.Repeat("ab", 32)
		}},
		{"no addresses", "does not say where the cluster is", func(x *certs.JoinClaims) { x.Addresses = nil }},
	} {
		out := command{limit: 20 * time.Second}.run(t,
			append([]string{"serve", "--data", dir, "--join", forge.make(t, c, x.change)}, listenFlags()...)...)
		if out.code != 1 || !strings.Contains(out.stderr, x.want) || !strings.HasPrefix(out.stderr, "muster: ") {
			t.Errorf("%s: exit status %d, %q, want %q", x.name, out.code, out.stderr, x.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "node.json")); err == nil {
			t.Errorf("%s: there is a node.json", x.name)
		}
	}
	// After all of these the same directory and a good token make a member.
	m := c.add()
	c.members = c.members[:3]
	m.dir, m.args[2] = dir, dir
	m.args = append(m.args, "--join", good, "--mode", "replicate")
	m.start(t)
	defer m.kill()
	m.awaitReady(t)
	m.stop(t)
	checkLog(t, "the member that was refused before", m.log)
}

// testDirectories: a data directory that is not this member's is left alone.
func testDirectories(t *testing.T, c *cluster) {
	good := c.admin(t).create(t, c.members[0], `{"mode":"replicate"}`)
	join := func() []string { return append(listenFlags(), "--join", good.Token) }
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", c.members[2].dir, copied).CombinedOutput(); err != nil {
		t.Logf("cp: %v: %s", err, out) // the mirror may be replaced under it
	}
	var foreign string
	for _, x := range badTokens(t, c) {
		if x.name == "foreign cluster" {
			foreign = x.token
		}
	}
	refusal(t, "of another cluster", copied, "belongs to a member of cluster "+c.id, command{},
		append(listenFlags(), "--join", foreign)...)
	forge := newForger(t, c, good.Token)
	nine := forge.make(t, c, func(x *certs.JoinClaims) { x.NodeID = 9 })
	refusal(t, "of another node", copied, "belongs to node 3 and the token is for node 9", command{},
		append(listenFlags(), "--join", nine)...)
	if err := os.WriteFile(filepath.Join(copied, "node.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refusal(t, "with a broken node.json", copied, "is not the node.json of a muster member", command{}, join()...)

	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "photos.txt"), []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	refusal(t, "not empty", full, "is not empty and is not that of a muster member (it holds photos.txt)", command{},
		join()...)
	refusal(t, "not empty, founding", full, "is not empty and is not that of a muster member (it holds photos.txt)",
		command{}, listenFlags()...)

	file := filepath.Join(full, "photos.txt")
	for _, args := range [][]string{join(), listenFlags()} {
		refusal(t, "a file", file, "is not a directory", command{}, args...)
		refusal(t, "below a file", filepath.Join(file, "data"), "is not a directory", command{}, args...)
	}
	inUse := "is in use by a running muster"
	m := c.members[1]
	out := muster(t, append([]string{"serve", "--data", m.dir}, listenFlags()...)...)
	if out.code != 1 || !strings.Contains(out.stderr, inUse) {
		t.Errorf("a directory in use: exit status %d, %s", out.code, out.stderr)
	}
	if out = muster(t, m.args...); out.code != 1 || !strings.Contains(out.stderr, inUse) {
		t.Errorf("the same command a second time: exit status %d, %s", out.code, out.stderr)
	}
	if !m.status(t).Ready {
		t.Error("the running member is not ready any more")
	}

	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	cmd := command{}
	if os.Getuid() == 0 { // root may write everywhere, unless that right is taken away
		cmd.wrap = []string{"setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"}
		if out, err := exec.Command(cmd.wrap[0],
			append(cmd.wrap[1:], "touch", filepath.Join(closed, "x"))...).CombinedOutput(); err == nil ||
			!strings.Contains(string(out), "denied") {
			t.Logf("setpriv does not take root's rights away here: %v: %s", err, out)
			cmd.wrap = nil
		}
	}
	if os.Getuid() != 0 || cmd.wrap != nil {
		refusal(t, "not writable", closed, "is not writable", cmd, join()...)
		refusal(t, "in one that is not writable", filepath.Join(closed, "data"), "is not writable", cmd, listenFlags()...)
	}
	if x := c.admin(t).joinToken(t, c.members[0], good.ID); x.Uses != 0 {
		t.Errorf("the token was used up: %+v", x)
	}
}

// testPorts: listeners that cannot be had, and addresses that are none.
func testPorts(t *testing.T, c *cluster) {
	good := c.admin(t).create(t, c.members[0], `{"mode":"replicate"}`)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()
	free := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort()) }
	same := free()
	for _, x := range []struct{ name, api, raft, want string }{
		{"the API port in use", busy, free(), "--api " + busy + " is in use by another process"},
		{"the cluster port in use", free(), busy, "--raft " + busy + " is in use by another process"},
		{"both on one port", same, same, "--api and --raft cannot share the address " + same},
		{"a running member's port", c.members[0].api, free(), "--api " + c.members[0].api + " is in use by another process"},
		{"somebody else's address", "203.0.113.1:5000", free(), "--api 203.0.113.1:5000 is not an address of this machine"},
		{"no port", "127.0.0.1", free(), "--api must be HOST:PORT"},
		{"port 0", "127.0.0.1:0", free(), "--api must be HOST:PORT"},
		{"a port that is too high", free(), "127.0.0.1:70000", "--raft has no valid port"},
		{"everywhere without saying where", "0.0.0.0:5000", free(), "give the host for others with --advertise"},
	} {
		refusal(t, x.name, t.TempDir(), x.want, command{}, "--api", x.api, "--raft", x.raft)
		refusal(t, x.name+", joining", t.TempDir(), x.want, command{}, "--api", x.api, "--raft", x.raft, "--join", good.Token)
	}
	for _, x := range [][]string{
		{"--overlay-cidr", "nonsense"}, {"--overlay-slice", "99"}, {"--log-level", "loud"}, {"--log-format", "xml"},
		{"--mode", "learner"},
	} {
		dir := t.TempDir()
		before := contents(t, dir)
		out := command{limit: 10 * time.Second}.run(t,
			append(append([]string{"serve", "--data", dir}, listenFlags()...), x...)...)
		if out.code != 1 && out.code != 2 || !strings.HasPrefix(out.stderr, "muster: ") {
			t.Errorf("%v: exit status %d, %.300s", x, out.code, out.stderr)
		}
		if after := contents(t, dir); after != before {
			t.Errorf("%v: the directory was\n%s\nand is\n%s", x, before, after)
		}
	}
	if x := c.admin(t).joinToken(t, c.members[0], good.ID); x.Uses != 0 {
		t.Errorf("the token was used up: %+v", x)
	}
}
