package e2e

import (
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	"muster/client"
)

// TestMembersAddresses: machines move. A follower and then the leader are started again at other addresses, by flags
// alone; the others find them there, and certificates are for where they are.
func TestMembersAddresses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	c.lead(t, c.members[0])
	leader, follower, third := c.members[0], c.members[1], c.members[2]
	for i, m := range []*member{follower, leader} {
		before := m.identity()
		begin := time.Now()
		m.stop(t)
		u.do(third, "POST", "/api/v1/cluster/pki/join-tokens", fmt.Sprintf(`{"nodeID":%d}`, 600+i)).is(t,
			"a write while one is away", 201, "")
		host := fmt.Sprintf("127.0.0.%d", 2+i)
		m.move(fmt.Sprintf("%s:%d", host, freePort()), fmt.Sprintf("%s:%d", host, freePort()))
		m.start(t)
		m.awaitReady2(t, "127.0.0.1", host)
		c.awaitVoters(t)
		if m.identity() != before {
			t.Errorf("%s has moved and is %s", before, m.identity())
		}
		for _, x := range c.members {
			row, err := u.row(x, m.n)
			if err != nil || row.RaftAddress != m.raft || row.APIAddress != "https://"+m.api {
				t.Errorf("node %d shows node %d at %s and %s (%v), and it is at %s and %s", x.n, m.n, row.RaftAddress,
					row.APIAddress, err, m.raft, m.api)
			}
			servers, err := u.raftServers(x)
			if err != nil || !slices.ContainsFunc(servers, func(s client.RaftServer) bool {
				return s.Address == m.raft && s.Voter
			}) {
				t.Errorf("the Raft configuration from node %d lacks %s: %+v, %v", x.n, m.raft, servers, err)
			}
			x.awaitSQL(t, fmt.Sprintf("SELECT raft_address, api_address FROM v_members WHERE node = %d", m.n), m.raft+"|"+m.api)
		}
		// The leaf of the cluster listener is for the new address, too.
		conn, err := tls.Dial("tcp", m.raft,
			&tls.Config{RootCAs: pool(t, m.read(t, "tls/transport-ca.crt")), ServerName: host, NextProtos: []string{"h2"}})
		if err == nil {
			conn.Close()
		}
		if err != nil {
			t.Errorf("the certificate of the cluster listener: %v", err)
		}
		t.Logf("node %d moved in %v", m.n, time.Since(begin).Round(time.Millisecond))
	}
	// The two that have moved are a majority by themselves, and know each other only by their new addresses.
	third.kill()
	eventually(t, formed, "the two that have moved are a majority", func() error {
		a := u.do(leader, "POST", "/api/v1/cluster/pki/join-tokens", `{"nodeID":700}`)
		if a.status != 201 && a.status != 409 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	// And the one that was away meanwhile finds them.
	third.start(t)
	third.awaitReady(t)
	c.awaitVoters(t)
}

// move changes the addresses that a member is started with.
func (m *member) move(api, raft string) {
	for i := range m.args {
		switch m.args[i] {
		case m.api:
			m.args[i] = api
		case m.raft:
			m.args[i] = raft
		}
	}
	m.api, m.raft = api, raft
}

// awaitReady2 waits for a member that has moved: until its new certificate is there, the old one, for the old host, is
// still shown.
func (m *member) awaitReady2(t *testing.T, old, host string) {
	t.Helper()
	begin := time.Now()
	eventually(t, formed, fmt.Sprintf("node %d has a certificate for %s", m.n, host), func() error {
		if !m.running() {
			t.Fatalf("node %d has ended with status %d:\n%s", m.n, m.cmd.ProcessState.ExitCode(), lastLines(m.log, 20))
		}
		_, err := m.tryStatus() // verifies the chain and the host
		return err
	})
	t.Logf("node %d has a certificate for %s instead of %s after %v", m.n, host, old,
		time.Since(begin).Round(time.Millisecond))
}
