package e2e

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// asMember presents a member's own certificate on the cluster listener, as its process does, or whoever has its disk.
func asMember(t *testing.T, m *member, proto string) *tls.Config {
	t.Helper()
	leaf, err := tls.LoadX509KeyPair(filepath.Join(m.dir, "tls", "transport.crt"),
		filepath.Join(m.dir, "tls", "transport.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{leaf}, NextProtos: []string{proto},
		InsecureSkipVerify: true}
}

// TestRemovedMemberReadsNothing: from the answer to its removal on, nobody gives a member anything, whether the replica
// there knows of the removal yet or not; and its open connections are closed.
func TestRemovedMemberReadsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.awaitVoters(t)
	leader := c.leader(t)
	others := c.others(leader)
	gone, rest := others[0], others[1:]
	paths := []string{"/internal/mirror?after=0", "/internal/trust", "/internal/events", "/internal/probe"}
	for _, m := range append(rest, leader) {
		eventually(t, formed, fmt.Sprintf("node %d gives its mirror to a member", m.n), func() error {
			if a := m.internally(t, gone, "GET", paths[0]); a.status != 200 {
				return fmt.Errorf("%d, %v", a.status, a.err)
			}
			return nil
		})
	}
	open := map[int]*tls.Conn{}
	for _, m := range append(rest, leader) {
		conn, err := tls.Dial("tcp", m.raft, asMember(t, gone, "muster-ask/1"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open[m.n] = conn
	}
	gone.pause() // it does not notice
	t.Cleanup(gone.carryOn)
	c.admin(t).do(leader, "DELETE", fmt.Sprintf("/api/v1/cluster/members/%d?force=true", gone.n), "").expect(t, "removal",
		200,
		`{"result":{"message":"Cluster member removed"}}`)
	for _, m := range append(rest, leader) {
		for _, path := range append(paths, "/api/v1/cluster/members") { // the last as it passes on what a client asks
			a := m.internally(t, gone, "GET", path)
			// which its client does not get to see
			if a.err == nil && (a.status != 410 || a.header.Get("X-Muster-Not-Leader") == "") {
				t.Errorf("after the removal node %d answers %s with %d, %v", m.n, path, a.status, a.header)
			}
		}
	}
	for n, conn := range open {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("the connection to node %d stays open: %v", n, err)
		}
	}
}
