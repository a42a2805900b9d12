package cluster

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

// openFounder founds a cluster of one and opens its store, whose clock can be set forward.
func openFounder(t *testing.T) (st *store.Store, forward func(time.Duration)) {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	plan := datadir.Plan{Name: "one", APIAddress: "127.0.0.1:1", RaftAddress: "127.0.0.1:2", Version: "test",
		OverlayCIDR: "10.200.0.0/16", OverlaySlice: 28}
	node, err := datadir.Found(dir, plan, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := dir.Identity()
	if err != nil {
		t.Fatal(err)
	}
	founding, err := dir.Founding()
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64
	st, err = store.Open(store.Config{Dir: dir.Path, NodeID: node.NodeID, Identity: identity, Founding: founding,
		Logger:         slog.New(slog.DiscardHandler),
		NetworkLatency: 20 * time.Millisecond, SnapshotThreshold: 512, SnapshotTrailing: 1024,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for !st.Leading() {
		if _, err := st.AwaitLeader(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return st, func(d time.Duration) { ahead.Add(int64(d)) }
}

// A data-encryption key that has become too old is replaced, and what it sealed is readable afterwards.
func TestRotationByAge(t *testing.T) {
	t.Parallel()
	st, forward := openFounder(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := &term{Cluster: &Cluster{member: &member{Config: Config{Store: st}}}}
	check := func(when string, generations int, oldest string) {
		t.Helper()
		if err := c.rotateByAge(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if err := c.rekey(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		list, err := st.Keys.Generations(ctx, store.Linearisable)
		if err != nil || len(list) != generations || list[0].State != oldest {
			t.Fatalf("%s: %+v, %v", when, list, err)
		}
		if value, err := st.Secrets.Get(ctx, store.Linearisable, "db.password"); err != nil || value == nil || string(value.Value) != "hunter2" {
			t.Fatalf("%s: the secret is %+v, %v", when, value, err)
		}
	}
	if _, err := st.Secrets.Put(ctx, c.actor(), "db.password", []byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	forward(1000 * time.Hour)
	check("without an age", 1, "active")
	if err := st.Settings.SetDEKMaxAge(ctx, c.actor(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	check("much too old", 2, "retired")
	forward(23 * time.Hour)
	check("not old enough", 2, "retired")
	forward(2 * time.Hour)
	check("too old again", 3, "retired")
}
