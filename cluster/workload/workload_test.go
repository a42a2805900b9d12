package workload

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSocketPath: what cannot be a socket is refused with a sentence that names the rule, and what is there stays.
func TestSocketPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"spiffe.sock":            "must be an absolute path",
		"./spiffe.sock":          "must be an absolute path",
		"unix:///run/x":          "the path alone",
		"/run/\x00x":             "must be an absolute path",
		"/nowhere-at-all/x":      "does not exist",
		filepath.Join(file, "x"): "is not a directory",
		file:                     "is not a socket; it was not changed",
		link:                     "is not a socket; it was not changed",
		dir:                      "is not a socket; it was not changed",
		filepath.Join(dir, strings.Repeat("x", 120)): "at most 107 bytes",
	} {
		l, err := Listen(path)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--spiffe-socket") {
			t.Errorf("%.60q: %v", path, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

// TestStaleSocket: the socket of a process that has ended is replaced, that of one that runs is not. Every user may
// connect.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("while it is served: %v", err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	l.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("it stays when it is closed: %v", err)
	}
}

// TestUnits reads whose process it is: names that users or services can choose do not count.
func TestUnits(t *testing.T) {
	for text, want := range map[string][]string{
		"0::/system.slice/postgresql.service\n": {"system.slice",
			"postgresql.service"},
		"0::/system.slice/postgresql.service/fake.service\n": {"system.slice",
			"postgresql.service"},
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/postgresql.service\n": {"user.slice", "user-1000.slice",
			"user@1000.service"},
		"0::/user.slice/user-1000.slice/session-3.scope\n":  {"user.slice", "user-1000.slice", "session-3.scope"},
		"0::/../billing.service\n":                          {"billing.service"},
		"0::/docker/0123/system.slice/postgresql.service\n": nil,
		"0::/\n": nil,
		"12:cpu:/system.slice/other.service\n1:name=systemd:/system.slice/billing.service\n": {"system.slice",
			"billing.service"},
		"12:cpu:/system.slice/other.service\n": nil,
		"":                                     nil, "nonsense": nil, "0::": nil,
	} {
		if got := unitsOf([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestSelectors: every selector that is given must match.
func TestSelectors(t *testing.T) {
	c := caller{uid: 1000, gid: 100, groups: []uint32{27, 2000}, units: []string{"system.slice", "billing.service"}}
	for _, x := range []struct {
		w    store.Workload
		want bool
	}{
		{store.Workload{}, false},
		{store.Workload{User: "1000"}, true},
		{store.Workload{User: "1001"}, false},
		{store.Workload{User: "root"}, false},
		{store.Workload{User: "no-such-user-here"}, false},
		{store.Workload{Group: "100"}, true},
		{store.Workload{Group: "2000"}, true},
		{store.Workload{Group: "3000"}, false},
		{store.Workload{Unit: "billing.service"}, true},
		{store.Workload{Unit: "system.slice"}, true},
		{store.Workload{Unit: "billing"}, false},
		{store.Workload{User: "1000", Group: "27", Unit: "billing.service"}, true},
		{store.Workload{User: "1000", Group: "27", Unit: "other.service"}, false},
		{store.Workload{User: "1001", Unit: "billing.service"}, false},
		{store.Workload{User: "65534"}, false},
	} {
		if got := c.is(&x.w); got != x.want {
			t.Errorf("%+v: %v", x.w, got)
		}
	}
	nobody := caller{uid: overflowID, gid: overflowID, groups: []uint32{overflowID}}
	for _, w := range []store.Workload{{User: "65534"}, {Group: "65534"}, {User: "nobody"}, {Group: "nogroup"}} {
		if nobody.is(&w) {
			t.Errorf("whoever has no number is %+v", w)
		}
	}
	root := caller{uid: 0, gid: 0}
	if !root.is(&store.Workload{User: "root"}) {
		t.Error("root is not root")
	}
}

// TestCaller: the kernel says who is at the other end.
func TestCaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := net.Dial("unix", path); err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := conn.(*callerConn).caller
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if int(c.uid) != os.Geteuid() || int(c.gid) != os.Getegid() || int(c.pid) != os.Getpid() ||
		len(c.groups) != len(groups) {
		t.Errorf("the caller is %+v", c)
	}
	if !c.ownsMember() {
		t.Error("it is not this process's user")
	}
}

// TestUsersAreBounded: one user does not take the places of others.
func TestUsersAreBounded(t *testing.T) {
	us := newUsers()
	n := 0
	for us.connect(7) {
		n++
	}
	if n != userConnections {
		t.Errorf("a user has %d connections", n)
	}
	if !us.connect(8) {
		t.Error("and others have none")
	}
	us.disconnect(7)
	if !us.connect(7) {
		t.Error("a place that was given back is not taken")
	}
	var free []func()
	for {
		f, ok := us.request(9)
		if !ok {
			break
		}
		free = append(free, f)
	}
	if len(free) == 0 || len(free) > userStreams {
		t.Errorf("a user has %d requests", len(free))
	}
	for _, f := range free {
		f()
	}
	if _, streams := us.figures(); streams != 0 {
		t.Errorf("%d requests are left", streams)
	}
	for uid := range uint32(10 * manyUsers) { // of users that come and go
		if us.connect(uid) {
			us.disconnect(uid)
		}
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	if len(us.all) > maxUsers {
		t.Errorf("%d users are remembered", len(us.all))
	}
	us.swept = time.Time{}
	for _, u := range us.all {
		u.last = u.last.Add(-2 * idleFor)
	}
	us.of(1<<20, time.Now())
	if len(us.all) > manyUsers {
		t.Errorf("%d users are remembered", len(us.all))
	}
}

// TestRefusedOnceAMinute: a user has a row a minute, and few users have rows at all.
func TestRefusedOnceAMinute(t *testing.T) {
	r := &newUsers().refuse
	now := time.Now()
	for range 100 {
		r.note(&caller{uid: 7, gid: 8}, now)
	}
	list, next := r.due(now)
	if len(list) != 1 || list[0].UID != 7 || list[0].Count != 100 || !next.IsZero() {
		t.Errorf("%+v, next %v", list, next)
	}
	r.note(&caller{uid: 7}, now)
	if list, next = r.due(now.Add(time.Second)); len(list) != 0 || !next.Equal(now.Add(refusedEvery)) {
		t.Errorf("a second later: %+v, next %v", list, next)
	}
	if list, _ = r.due(now.Add(refusedEvery)); len(list) != 1 || list[0].Count != 1 {
		t.Errorf("a minute later: %+v", list)
	}
	for uid := range uint32(1000) {
		r.note(&caller{uid: uid}, now)
	}
	if list, _ = r.due(now.Add(2 * refusedEvery)); len(list) > maxRefused {
		t.Errorf("%d rows in a minute", len(list))
	}
}

// TestAudiences are bounded.
func TestAudiences(t *testing.T) {
	for _, list := range [][]string{nil, {""}, {"a", ""}, slices.Repeat([]string{"a"}, 17), {strings.Repeat("a", 2049)}} {
		if checkAudience(list) == nil {
			t.Errorf("%.40q is taken", list)
		}
	}
	if err := checkAudience([]string{"a", "https://b"}); err != nil {
		t.Error(err)
	}
}
