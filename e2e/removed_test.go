package e2e

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// internalPaths are all paths that members call, from the text of the program, so that none is forgotten.
func internalPaths(t *testing.T) (paths []string) {
	t.Helper()
	path := regexp.MustCompile(`"(/internal/[^"?]+)"`)
	err := filepath.WalkDir("../cluster", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, found := range path.FindAllStringSubmatch(string(text), -1) {
			paths = append(paths, found[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	if paths = slices.Compact(paths); len(paths) < 20 {
		t.Fatalf("only %d internal paths were found", len(paths))
	}
	return paths
}

// TestRemovedMemberIsRefusedEverywhere: once its removal is answered, a member gets nothing from the leader and nothing
// from another member, over any protocol of the cluster listener and on any internal path.
func TestRemovedMemberIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.awaitVoters(t)
	leader := c.leader(t)
	others := c.others(leader)
	gone, asked := others[0], append(others[1:], leader)
	gone.pause() // it does not notice
	t.Cleanup(gone.carryOn)
	c.admin(t).do(leader, "DELETE", fmt.Sprintf("/api/v1/cluster/members/%d?force=true", gone.n), "").
		expect(t, "removal", 200, `{"result":{"message":"Cluster member removed"}}`)
	for _, m := range asked {
		for _, path := range internalPaths(t) {
			for _, method := range []string{"GET", "POST"} {
				if a := m.internally(t, gone, method, path); a.err == nil && a.status != 410 {
					t.Errorf("node %d answers %s %s with %d %.100s", m.n, method, path, a.status, a.body)
				}
			}
		}
		for proto, text := range map[string]string{
			"muster-raft/1":  strings.Repeat("\x01\x00\x00\x00\x00\x00\x00\x00", 8),
			"muster-ask/1":   "\x01",
			"muster-calls/1": "\x00\x00\x00\x02\x07\x01", // a ping
		} {
			if said := m.hears(t, gone, proto, text); said != "" {
				t.Errorf("node %d answers over %s with %q", m.n, proto, said)
			}
		}
	}
}

// hears returns what a member answers to another one over a protocol of the cluster listener before it hangs up, which
// it must do.
func (m *member) hears(t *testing.T, as *member, proto, text string) string {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: asMember(t, as, proto)}
	c, err := d.DialContext(t.Context(), "tcp", m.raft)
	if err != nil {
		return "" // refused in the handshake
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write([]byte(text))
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	if isTimeout(err) {
		t.Errorf("node %d keeps a connection of a removed member for %s", m.n, proto)
	}
	return string(answer[:n])
}
