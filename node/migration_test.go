package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"muster/client"
	"muster/store"
)

// TestUpgradeMigration: three members with a newer version join three with an older one. Two are not enough and get no
// vote; with the third all votes and leadership move, and nothing that was written is lost.
func TestUpgradeMigration(t *testing.T) {
	g := startGroup(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if _, err := g.c.SetAutopilotConfig(ctx, map[string]any{"upgradeMigration": true, "stabilization": "1s"}); err != nil {
		t.Fatal(err)
	}
	made, err := g.c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 9, Mode: store.ModeFull})
	if err != nil {
		t.Fatal(err)
	}
	join := func(i int) {
		t.Helper()
		cfg := config(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		cfg.Name, cfg.Join, cfg.Version = fmt.Sprintf("node-%d", i), made.Token, "test-2"
		g.dirs, g.nodes = append(g.dirs, cfg.Data), append(g.nodes, start(t, cfg))
	}
	join(4)
	join(5)
	await(t, "two newer ones stand by", func(ctx context.Context) bool {
		members, err := g.c.Members(ctx)
		votes, standBys := 0, 0
		for _, m := range members {
			if m.NodeID > 3 && m.Role == "voter" {
				votes++
			}
			if m.NodeID > 3 && m.Role == "standby" {
				standBys++
			}
		}
		if votes > 0 {
			t.Fatal("one of two newer members has a vote")
		}
		return err == nil && standBys == 2
	})
	join(6)
	written := 0
	await(t, "votes and leadership are with the newer ones", func(ctx context.Context) bool {
		if _, err := g.c.PutSecret(ctx, fmt.Sprintf("s-%d", written), []byte("x")); err == nil {
			written++
		}
		s, err := g.c.Autopilot(ctx)
		return err == nil && fmt.Sprint(s.Voters) == "[4 5 6]" && s.LeaderNodeID > 3
	})
	list, err := g.c.Secrets(ctx)
	if err != nil || len(list) < written || written == 0 {
		t.Errorf("%d of %d secrets: %v", len(list), written, err)
	}
}

// TestRaftFigures: a member tells what it has of Raft.
func TestRaftFigures(t *testing.T) {
	g := startGroup(t, 1)
	await(t, "the status has Raft's figures", func(ctx context.Context) bool {
		s, err := g.c.Status(ctx)
		return err == nil && s.Raft != nil && s.Raft.Term > 0 && s.Raft.LogBytes > 0 && s.Raft.Bytes >= s.Raft.LogBytes &&
			s.Cluster.Term == s.Raft.Term
	})
}
