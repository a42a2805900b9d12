package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"muster/cluster/clustertest"
	"muster/internal/await"
	"muster/store"
)

// openFounder founds a cluster of one and opens its store, whose clock can be set forward.
func openFounder(t *testing.T) (st *store.Store, forward func(time.Duration)) {
	t.Helper()
	s := clustertest.Found(t)
	var ahead atomic.Int64
	s.Open(t, nil, func(c *store.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	s.AwaitLeading(t)
	return s.Store, func(d time.Duration) { ahead.Add(int64(d)) }
}

// A data-encryption key that has become too old is replaced, and what it sealed is readable afterwards.
func TestRotationByAge(t *testing.T) {
	t.Parallel()
	st, forward := openFounder(t)
	ctx := t.Context()
	c := &term{Cluster: &Cluster{member: &member{Config: Config{Store: st}}}}
	check := func(when string, generations int, oldest string) {
		t.Helper()
		// rounds are repeated, and a leader that has stood still is not confirmed at once
		await.NoError(t, when, func() error {
			if err := errors.Join(c.rotateByAge(ctx), c.rekey(ctx)); err != nil {
				return err
			}
			list, err := st.Keys.Generations(ctx, store.Linearisable)
			if err != nil || len(list) != generations || list[0].State != oldest {
				return fmt.Errorf("%+v, %w", list, err)
			}
			value, err := st.Secrets.Get(ctx, store.Linearisable, "db.password")
			if err != nil || value == nil || string(value.Value) != "hunter2" {
				return fmt.Errorf("the secret is %+v, %w", value, err)
			}
			return nil
		})
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
