package cluster

import (
	"context"
	"errors"
	"testing"

	"muster/store"
)

// TestExcludeNobody: who excludes a number that is no member's has meant another one.
func TestExcludeNobody(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	var refusal *store.Refusal
	_, err := m.Migrate(context.Background(), store.Actor{Name: "test"}, []uint64{1, 99})
	if !errors.As(err, &refusal) || refusal.Code != store.Invalid ||
		refusal.Message != "exclude: node 99 is not a member" {
		t.Errorf("the error is %v", err)
	}
	if _, err := m.Migrate(context.Background(), store.Actor{Name: "test"}, []uint64{1}); err != nil {
		t.Errorf("a member that holds nothing back: %v", err)
	}
}
