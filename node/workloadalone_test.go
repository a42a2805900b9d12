package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"muster/client"
)

// TestIdentityWithoutLeader: a member whose cluster has no leader hands out what it has, and goes on doing so after a
// restart.
func TestIdentityWithoutLeader(t *testing.T) {
	dir := openDir(t)
	g := startGroup(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if err := g.nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	cfg := again(t, g.dirs[2])
	cfg.SpiffeSocket = filepath.Join(dir, "spiffe.sock")
	third := start(t, cfg)
	if _, err := g.c.CreateWorkload(ctx,
		client.WorkloadRequest{Path: "/alone", NodeID: 3, User: fmt.Sprint(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	ids := func(ctx context.Context) (text string) {
		c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+cfg.SpiffeSocket))
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		x, err := c.FetchX509Context(ctx)
		if err != nil {
			return err.Error()
		}
		for _, s := range x.SVIDs {
			text += s.ID.Path() + " "
		}
		return text
	}
	const want = "/alone /node/3 "
	await(t, "both identities are ready", func(ctx context.Context) bool { return ids(ctx) == want })
	for _, n := range g.nodes[:2] {
		if err := n.Close(); err != nil {
			t.Log(err)
		}
	}
	if got := ids(ctx); got != want {
		t.Errorf("without a leader: %q", got)
	}
	if err := third.Close(); err != nil {
		t.Log(err)
	}
	start(t, cfg)
	await(t, "they are there after a restart without a leader", func(ctx context.Context) bool { return ids(ctx) == want })
}
