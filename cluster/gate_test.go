package cluster

import (
	"context"
	"testing"
	"time"
)

// The fence lets nobody through when it cannot read, and does not say then that somebody is removed.
func TestFenceFailsClosed(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := m.Store.Members.Fence(ctx, 1); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := m.Store.Members.Fence(ctx, 99); !isGone(err) {
		t.Errorf("a stranger: %v", err)
	}
	if err := m.gate.confirmMember(ctx, 99); !isGone(err) {
		t.Errorf("a stranger, confirmed: %v", err)
	}
	if err := m.gate.confirmMember(ctx, 1); err != nil {
		t.Errorf("a member, confirmed: %v", err)
	}
	closing, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if err := m.Store.Close(closing); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{1, 99} {
		if err := m.Store.Members.Fence(ctx, id); err == nil || isGone(err) {
			t.Errorf("node %d when nothing can be read: %v", id, err)
		}
	}
}

// TestFenceWithoutReplica: a member that cannot read its replica lets in the servers of the Raft configuration, and
// nobody else.
func TestFenceWithoutReplica(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Store.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Store.Members.Fence(ctx, 1); err == nil {
		t.Fatal("the replica can be read")
	}
	if err := Fence(ctx, m.Store, nil, 1); err != nil {
		t.Errorf("a server: %v", err)
	}
	if err := Fence(ctx, m.Store, nil, 99); err == nil || isGone(err) {
		t.Errorf("a stranger: %v", err)
	}
}
