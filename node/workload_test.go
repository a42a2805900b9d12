package node_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// TestMemberIdentity: the official client gets the member's own identity from the socket, and renewed bundles with it.
func TestMemberIdentity(t *testing.T) {
	dir := t.TempDir()
	cfg := config(filepath.Join(dir, "1"))
	cfg.SpiffeSocket = filepath.Join(dir, "spiffe.sock")
	start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+cfg.SpiffeSocket)))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	status, err := dial(t, cfg.Data).Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://" + status.Cluster.ClusterID + "/node/1"; svid.ID.String() != want {
		t.Errorf("the member is %s, not %s", svid.ID, want)
	}
}
