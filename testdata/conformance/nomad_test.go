package conformance

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	nomad "github.com/hashicorp/nomad/api"
)

func nomadClient(t *testing.T, c *cluster, addr, token string) *nomad.Operator {
	t.Helper()
	client, err := nomad.NewClient(&nomad.Config{Address: addr, SecretID: token,
		TLSConfig: &nomad.TLSConfig{CACert: c.ca}})
	if err != nil {
		t.Fatal(err)
	}
	return client.Operator()
}

// The Raft operator API with the official Go client, on every member alike.
func TestNomadRaftOperator(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	var servers []*nomad.RaftServer
	for _, addr := range c.addrs {
		for _, q := range []*nomad.QueryOptions{nil, {AllowStale: true}, {Region: "global"}} {
			// A stale answer may be a moment behind the formation of the cluster.
			c.eventually(addr+" shows the configuration", func() error {
				got, err := nomadClient(t, c, addr, c.token).RaftGetConfiguration(q)
				if err != nil {
					return err
				}
				leaders := 0
				for _, s := range got.Servers {
					if s.Leader {
						leaders++
					}
					if !s.Voter || s.RaftProtocol != "3" || !strings.HasSuffix(s.Node, ".global") || s.Address == "" ||
						len(s.ID) != 36 {
						return fmt.Errorf("%+v", s)
					}
				}
				if len(got.Servers) != 3 || leaders != 1 || got.Index == 0 {
					return fmt.Errorf("%d servers, %d leaders, index %d", len(got.Servers), leaders, got.Index)
				}
				servers = got.Servers
				return nil
			})
		}
	}
	leader := func() *nomad.RaftServer {
		t.Helper()
		got, err := nomadClient(t, c, c.addrs[0], c.token).RaftGetConfiguration(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got.Servers {
			if s.Leader {
				return s
			}
		}
		t.Fatal("there is no leader")
		return nil
	}
	for i, to := range servers {
		op := nomadClient(t, c, c.addrs[i], c.token)
		var err error
		if i%2 == 0 {
			err = op.RaftTransferLeadershipByID(to.ID, nil)
		} else {
			err = op.RaftTransferLeadershipByAddress(to.Address, nil)
		}
		if err != nil {
			t.Fatalf("transfer to %s: %v", to.Node, err)
		}
		if now := leader(); now.ID != to.ID {
			t.Errorf("leadership went to %s, not to %s", now.Node, to.Node)
		}
		if err := op.RaftTransferLeadershipByID(to.ID, nil); err != nil {
			t.Errorf("transfer to the leader itself: %v", err)
		}
	}
	op := nomadClient(t, c, c.addrs[1], c.token)
	unknown := "11111111-1111-4111-8111-111111111111"
	for _, x := range []struct {
		what, want string
		err        error
	}{
		{"transfer to an unknown id", `400 (id "` + unknown + `" was not found in the Raft configuration)`,
			op.RaftTransferLeadershipByID(unknown, nil)},
		{"transfer to an unknown address", `400 (address "9.9.9.9:8000" was not found in the Raft configuration)`,
			op.RaftTransferLeadershipByAddress("9.9.9.9:8000", nil)},
		{"transfer to no uuid", "400 (id must be a uuid: uuid string is wrong length)",
			op.RaftTransferLeadershipByID("foo", nil)},
		{"transfer to no address", "400 (address must be in IP:port format: not an ip:port)",
			op.RaftTransferLeadershipByAddress("bar", nil)},
		{"removal of an unknown id", `500 (id "nope" was not found in the Raft configuration)`,
			op.RaftRemovePeerByID("nope", nil)},
		{"removal of an unknown address", `500 (address "nope" was not found in the Raft configuration)`,
			op.RaftRemovePeerByAddress("nope", nil)},
		{"removal of the leader", "500 (the leader cannot be removed", op.RaftRemovePeerByID(leader().ID, nil)},
		{"removal without a token", "403 (Permission denied)",
			nomadClient(t, c, c.addrs[1], "").RaftRemovePeerByID("x", nil)},
		{"transfer with a wrong token", "403 (Permission denied)",
			nomadClient(t, c, c.addrs[1], "wrong").RaftTransferLeadershipByID(unknown, nil)},
	} {
		if x.err == nil || !strings.Contains(x.err.Error(), x.want) {
			t.Errorf("%s: %v, want %s", x.what, x.err, x.want)
		}
	}
	var gone *nomad.RaftServer
	for _, s := range servers {
		if s.ID != leader().ID {
			gone = s
		}
	}
	if err := op.RaftRemovePeerByAddress(gone.Address, nil); err != nil {
		t.Fatal("remove:", err)
	}
	c.eventually("the peer is gone", func() error {
		got, err := nomadClient(t, c, leaderAddr(c, leader()), c.token).RaftGetConfiguration(nil)
		if err == nil && len(got.Servers) != 2 {
			err = errors.New("it is still there")
		}
		return err
	})
}

// leaderAddr finds the API address of a server by the place of its Raft address: dev gives ports in order.
func leaderAddr(c *cluster, s *nomad.RaftServer) string {
	var members []struct{ RaftAddress, APIAddress string }
	c.result("GET", "/api/v1/cluster/members", "", &members)
	for _, m := range members {
		if m.RaftAddress == s.Address {
			return m.APIAddress
		}
	}
	return c.addrs[0]
}
