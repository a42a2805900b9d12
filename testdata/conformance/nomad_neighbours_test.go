package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

func nomadAPI(t *testing.T, c *cluster, addr, token string) *nomad.Client {
	t.Helper()
	client, err := nomad.NewClient(&nomad.Config{Address: addr, SecretID: token,
		TLSConfig: &nomad.TLSConfig{CACert: c.ca}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// The neighbours of the Raft operator API that an operator and the official command line touch, with the official
// client, on every member alike.
func TestNomadNeighbours(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	var leader string
	for _, addr := range c.addrs {
		api := nomadAPI(t, c, addr, c.token)
		c.eventually(addr+" shows its neighbours", func() error { // its replica may be a moment behind
			members, err := api.Agent().Members()
			if err == nil && len(members.Members) != 3 {
				err = fmt.Errorf("%d members", len(members.Members))
			}
			return err
		})
		now, err := api.Status().Leader()
		if err != nil || leader != "" && now != leader {
			t.Errorf("%s: the leader is %q, %v; another said %q", addr, now, err, leader)
		}
		leader = now
		if region, err := api.Status().RegionLeader("global"); err != nil || region != leader {
			t.Errorf("%s: the leader of the region is %q, %v", addr, region, err)
		}
		if _, err := api.Status().RegionLeader("nope"); err == nil ||
			!strings.Contains(err.Error(), "500 (No path to region)") {
			t.Errorf("%s: another region: %v", addr, err)
		}
		peers, err := api.Status().Peers()
		if err != nil || len(peers) != 3 || !slices.Contains(peers, leader) {
			t.Errorf("%s: peers %v, %v", addr, peers, err)
		}
		regions, err := api.Regions().List()
		if err != nil || !slices.Equal(regions, []string{"global"}) {
			t.Errorf("%s: regions %v, %v", addr, regions, err)
		}
		health, err := api.Agent().Health()
		if err != nil || health.Server == nil || !health.Server.Ok || health.Client != nil {
			t.Errorf("%s: health %+v, %v", addr, health, err)
		}
		members, err := api.Agent().Members()
		if err != nil {
			t.Fatal(err)
		}
		leads := 0
		for _, m := range members.Members {
			if m.Tags["role"] != "nomad" || m.Tags["region"] != "global" || m.Status != "alive" || m.Tags["raft_vsn"] != "3" {
				t.Errorf("%s: %+v", addr, m)
			}
			if m.Addr+":"+m.Tags["port"] == leader { // as the command line finds it
				leads++
			}
		}
		if leads != 1 {
			t.Errorf("%s: %d members are the leader %s", addr, leads, leader)
		}
		self, err := api.Agent().Self()
		if err != nil || self.Member.Name == "" || self.Stats["raft"]["num_peers"] != "2" {
			t.Errorf("%s: self %+v, %v", addr, self, err)
		}
		if name, err := api.Agent().Region(); err != nil || name != "global" {
			t.Errorf("%s: the agent's region is %q, %v", addr, name, err)
		}
		if _, err := nomadAPI(t, c, addr, "").Agent().Members(); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: members without a token: %v", addr, err)
		}
	}
}

func TestNomadAutopilotAndSnapshot(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	op := func(i int) *nomad.Operator { return nomadAPI(t, c, c.addrs[i], c.token).Operator() }

	cfg, _, err := op(1).AutopilotGetConfiguration(nil)
	if err != nil || cfg.LastContactThreshold != 2*time.Second || cfg.ServerStabilizationTime != 10*time.Second ||
		cfg.CleanupDeadServers || cfg.MaxTrailingLogs != 10000 {
		t.Fatalf("autopilot: %+v, %v", cfg, err)
	}
	first := cfg.ModifyIndex
	cfg.CleanupDeadServers, cfg.ServerStabilizationTime = true, 4*time.Second
	if done, _, err := op(2).AutopilotCASConfiguration(&nomad.AutopilotConfiguration{LastContactThreshold: 2 * time.Second,
		MaxTrailingLogs: 10000, MinQuorum: 2, ModifyIndex: first + 1000}, nil); err != nil || done {
		t.Errorf("cas with another index: %v, %v", done, err)
	}
	if done, _, err := op(2).AutopilotCASConfiguration(cfg, nil); err != nil || !done {
		t.Errorf("cas: %v, %v", done, err)
	}
	if done, _, err := op(2).AutopilotCASConfiguration(cfg, nil); err != nil || done {
		t.Errorf("cas a second time: %v, %v", done, err)
	}
	var own struct {
		Stabilization      string
		CleanupDeadMembers bool
	}
	if c.result("GET", "/api/v1/cluster/autopilot/config", "", &own); own.Stabilization != "4s" ||
		!own.CleanupDeadMembers {
		t.Errorf("our own API says %+v", own)
	}
	cfg, _, err = op(0).AutopilotGetConfiguration(nil)
	if err != nil || !cfg.CleanupDeadServers || cfg.ModifyIndex <= first {
		t.Errorf("autopilot: %+v, %v", cfg, err)
	}
	cfg.CleanupDeadServers = false
	if _, err := op(0).AutopilotSetConfiguration(cfg, nil); err != nil {
		t.Errorf("set: %v", err)
	}
	cfg.LastContactThreshold = -time.Second
	if _, err := op(0).AutopilotSetConfiguration(cfg, nil); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("a threshold below zero: %v", err)
	}

	c.eventually("the cluster is healthy", func() error {
		for i := range c.addrs {
			health, _, err := op(i).AutopilotServerHealth(nil)
			if err != nil {
				return err
			}
			if !health.Healthy || len(health.Servers) != 3 || len(health.Voters) != 3 || health.FailureTolerance != 1 ||
				!slices.Contains(health.Voters, health.Leader) {
				return fmt.Errorf("%+v", health)
			}
		}
		return nil
	})
	if _, _, err := nomadAPI(t, c, c.addrs[0], "").Operator().AutopilotServerHealth(nil); err == nil ||
		!strings.Contains(err.Error(), "403") {
		t.Errorf("health without a token: %v", err)
	}

	// A snapshot made through one member is restored through another; the client verifies its digest.
	if status := c.result("PUT", "/api/v1/cluster/secrets/soup", `{"value":"c2FsdA=="}`, nil); status/100 != 2 {
		t.Fatal("put a secret:", status)
	}
	for i, q := range []*nomad.QueryOptions{nil, {AllowStale: true}} {
		var archive []byte
		c.eventually("a snapshot with everything", func() error {
			r, err := op(i).Snapshot(q)
			if err != nil {
				return err
			}
			defer r.Close()
			if archive, err = io.ReadAll(r); err != nil {
				return err
			}
			if _, err := op(2).SnapshotRestore(bytes.NewReader(archive), nil); err != nil {
				return err
			}
			// a stale one may be a moment old
			if status := c.result("GET", "/api/v1/cluster/secrets/soup", "", nil); status != 200 {
				c.result("PUT", "/api/v1/cluster/secrets/soup", `{"value":"c2FsdA=="}`, nil)
				return errors.New("the secret was not in it")
			}
			return nil
		})
		if status := c.result("DELETE", "/api/v1/cluster/secrets/soup", "", nil); status/100 != 2 {
			t.Fatal("delete the secret:", status)
		}
		if _, err := op(1).SnapshotRestore(bytes.NewReader(archive), nil); err != nil {
			t.Fatal("restore:", err)
		}
		if status := c.result("GET", "/api/v1/cluster/secrets/soup", "", nil); status != 200 {
			t.Errorf("after the restore the secret answers %d", status)
		}
	}
	if _, err := op(0).SnapshotRestore(strings.NewReader("garbage"), nil); err == nil ||
		!strings.Contains(err.Error(), "failed to restore from snapshot: failed to decompress snapshot: unexpected EOF") {
		t.Errorf("garbage: %v", err)
	}
}
