package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/e2e/attack"
)

// rss is how much memory a member has, in bytes.
func (m *member) rss(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A stranger at one address can neither take the memory of a member nor keep others out, whatever it holds.
func TestHostileClients(t *testing.T) {
	c := newCluster(t, 1)
	m := c.members[0]
	u := c.admin(t)
	served := func(what string) {
		t.Helper()
		if o := (command{limit: formed}).run(t, "members", "--data", m.dir); o.code != 0 {
			t.Errorf("%s: muster members: %d %s", what, o.code, o.stderr)
		}
		if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
			t.Errorf("%s: %v", what, a)
		}
	}
	served("before")
	nothing := "ApiKey " + u.apiKey(t, m, `{"name":"nothing","role_descriptors":{"x":{"cluster":[]}}}`).Encoded
	for _, x := range attack.OfRequests(nothing) {
		a := &attack.Attacker{Addr: m.api}
		before := m.rss(t)
		x.Do(a)
		begin := time.Now()
		served(x.Name)
		took := time.Since(begin).Round(time.Millisecond)
		if more := m.rss(t) - before; more > 60<<20 {
			t.Errorf("%s: the member has %d MB more", x.Name, more>>20)
		} else {
			t.Logf("%s: %d MB more; served after %v", x.Name, more>>20, took)
		}
		a.End()
	}
}

// What comes to the cluster listener before anybody has shown who it is takes little memory, whatever protocol it is
// for and however long its messages say they are, and does not keep members from each other.
func TestHostileClusterConnections(t *testing.T) {
	c := newCluster(t, 3)
	m := c.leader(t)
	message := func(n int, text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + text
	}
	open := `{"open":{"peerId":"x","secret":"y"}}`
	payloads := []string{
		message(1<<20, strings.Repeat("x", 1<<20)), message(1<<31, strings.Repeat("x", 64<<10)),
		message(4096, open[:20]+strings.Repeat("x", 4000)),
		message(len(open), open), strings.Repeat(message(16, `{"heartbeat":{}}`), 4000), "", strings.Repeat("\x00", 1<<20),
	}
	for _, proto := range []string{"muster-peer/1", "muster-peer-relay/1", "muster-raft/1", "muster-ask/1",
		"muster-calls/1", "h2", "http/1.1"} {
		a := &attack.Attacker{Addr: m.raft}
		before := m.rss(t)
		attack.Crowd(len(payloads)*60, func(i int) {
			if c := a.Dial(proto); c != nil {
				_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
				_, _ = io.WriteString(c, payloads[i%len(payloads)])
			}
		})
		if more := m.rss(t) - before; more > 60<<20 {
			t.Errorf("%s: the member has %d MB more", proto, more>>20)
		} else {
			t.Logf("%s: %d MB more", proto, more>>20)
		}
		c.admin(t).apiToken(t, m, "after-"+strings.NewReplacer("/", "-", ".", "-").Replace(proto), "cluster:read")
		a.End()
	}
}
