package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bird is a BGP speaker of the Debian package bird2, a child of the tests.
type bird struct {
	*process
	conf, socket, log string
}

func newBird(t *testing.T, dir, name, conf string) *bird {
	t.Helper()
	b := &bird{conf: filepath.Join(dir, name+".conf"), socket: filepath.Join(dir, name+".ctl"),
		log: filepath.Join(dir, name+".log")}
	if err := os.WriteFile(b.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(func() { b.kill() })
	return b
}

func (b *bird) start(t *testing.T) {
	t.Helper()
	out, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("/usr/sbin/bird", "-f", "-c", b.conf, "-s", b.socket, "-P", b.socket+".pid")
	cmd.Stdout, cmd.Stderr = out, out
	if b.process, err = launch(cmd); err != nil {
		t.Fatalf("bird (Debian package bird2): %v", err)
	}
}

func (b *bird) birdc(args ...string) string {
	out, _ := exec.Command("/usr/sbin/birdc", append([]string{"-s", b.socket}, args...)...).CombinedOutput()
	return string(out)
}

// await waits until `birdc show …` has a line that fits.
func (b *bird) await(t *testing.T, what, line string, show ...string) {
	t.Helper()
	fits := regexp.MustCompile("(?m)^" + line)
	eventually(t, formed, what, func() error {
		if !b.running() {
			text, _ := os.ReadFile(b.log)
			t.Fatalf("bird has ended: %s", text)
		}
		if out := b.birdc(append([]string{"show"}, show...)...); !fits.MatchString(out) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// TestMembersBGP: the worked example of docs/hooks.md, as it stands there, with real BGP speakers on loopback.
func TestMembersBGP(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindSubmatch(page)
		if m == nil {
			t.Fatalf("docs/hooks.md has nothing that fits %s", pattern)
		}
		return string(m[1])
	}
	dir := t.TempDir()
	mine, theirs := freePort(), freePort()
	conf := find("(?s)```conf\n(.*?)```")
	for old, now := range map[string]string{
		"local 192.0.2.3 as": fmt.Sprintf("local 127.0.0.1 port %d as", mine),
		"neighbor 192.0.2.1 as 64513;\n": fmt.Sprintf(
			"neighbor 127.0.0.2 port %d as 64513; multihop; connect delay time 1;\n", theirs),
	} {
		if strings.Count(conf, old) != 1 {
			t.Fatalf("docs/hooks.md has not %q in its configuration:\n%s", old, conf)
		}
		conf = strings.Replace(conf, old, now, 1)
	}
	speaker := newBird(t, dir, "speaker", conf)
	router := newBird(t, dir, "router", fmt.Sprintf(`router id 192.0.2.1;
protocol device { }
protocol bgp node3 {
  local 127.0.0.2 port %d as 64513;
  neighbor 127.0.0.1 port %d as 64512; multihop; connect delay time 1;
  ipv4 { import all; export none; };
}
`, theirs, mine))
	hook := func(kind string) string {
		command := find(`(?m)^--` + kind + `-hook +'(bgp=.*)'$`)
		if !strings.Contains(command, " /run/bird/bird.ctl ") {
			t.Fatalf("the %s hook of docs/hooks.md is %s", kind, command)
		}
		return strings.Replace(command, "/run/bird/bird.ctl", speaker.socket, 1)
	}
	c := clusterWith(t, 3, func(n int) []string {
		if n == 3 {
			return []string{"--drain-hook", hook("drain"), "--resume-hook", hook("resume")}
		}
		return nil
	})
	c.awaitVoters(t)
	cmd := command{env: c.env(c.token)}
	u := c.admin(t)
	m := c.members[0]
	const session = `upstream +BGP +--- +`
	up := func(when string) {
		t.Helper()
		speaker.await(t, when+" the session is up", session+`up +\S+ +Established`, "protocols")
		router.await(t, when+" the router has the route", `198\.51\.100\.1/32 +unreachable \[node3 `, "route")
	}
	up("before the drain")

	u.lease(m, "flow", 3, 600).is(t, "lease", 201, "")
	u.drain(c.members[1], 3, `{"deadlineSeconds":600}`).is(t, "drain", 200, `{"result":{"drainState":"draining"`)
	speaker.await(t, "the session is down while the lease is held", session+`down `, "protocols")
	router.await(t, "the router is told why", `node3 +BGP +--- +\w+ +\S+ +\w+ +Received: Administrative shutdown`,
		"protocols")
	if out := router.birdc("show", "route"); strings.Contains(out, "198.51.100.1") {
		t.Errorf("the router still has the route:\n%s", out)
	}
	if got := u.drainState(t, m, 3); got != "draining" {
		t.Errorf("with a lease the state is %s", got)
	}
	u.do(m, "DELETE", "/api/v1/cluster/leases/flow", "").is(t, "give it back", 200, "")
	if out := cmd.run(t, "member", "drain", "3", "--deadline", "30s"); out.code != 0 ||
		!strings.Contains(out.stderr, "member 3 is drained") {
		t.Errorf("muster member drain: exit %d: %s", out.code, out.stderr)
	}
	speaker.await(t, "the session stays down", session+`down `, "protocols")
	speaker.await(t, "and the rest of bird goes on", `anycast +Static +master4 +up `, "protocols")
	again := drainOf(t, "drain again", u.drain(m, 3, ""))
	checkHooks(t, "the answer", again.Hooks, "bgp ok")

	if out := cmd.run(t, "member", "resume", "3"); out.code != 0 {
		t.Errorf("muster member resume: exit %d: %s", out.code, out.stderr)
	}
	up("after the resume")

	// Without bird the hook fails, and the answer says so.
	speaker.kill()
	d := drainOf(t, "drain without bird", u.drain(m, 3, ""))
	if d.DrainState != "drained" || !slices.Equal(d.Warnings, []string{"hook bgp: exit status 1"}) {
		t.Errorf("the drain without bird: %+v", d)
	}
	var shown struct{ Result map[string]json.RawMessage }
	line := find(`(?m)^(\{"result":\{"drainState":"drained","hooks".*)$`)
	if err := json.Unmarshal([]byte(line), &shown); err != nil ||
		string(shown.Result["warnings"]) != `["hook bgp: exit status 1"]` {
		t.Errorf("docs/hooks.md shows %s (%v)", line, err)
	}
	_ = os.Remove(speaker.socket)
	speaker.start(t)
	eventually(t, formed, "bird is back", func() error { _, err := net.Dial("unix", speaker.socket); return err })
	u.resume(m, 3).is(t, "resume", 200, `{"result":{"message":"Cluster member resumed","hooks":[{"name":"bgp","ok":true`)
	up("after bird was started again")
	c.members[0].awaitSQL(t,
		"SELECT count(*) FROM audit WHERE action = 'member.drain_hooks' AND object = 'node/3' AND detail LIKE '%exit "+
			"status 1%'", "1")
}
