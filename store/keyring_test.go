package store

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKeysReadableDuringRotation: from the moment that a rotation is committed, what it has sealed can be opened, also
// by those who read before the one who has asked for it hears of the commit.
func TestKeysReadableDuringRotation(t *testing.T) {
	c := newTestCluster(t, 1)
	s := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stop atomic.Bool
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for !stop.Load() && ctx.Err() == nil {
				if _, err := s.Keys.Active(ctx, AsLeader, KeyJoinHMAC); err != nil {
					t.Errorf("while keys rotate: %v", err)
					return
				}
			}
		})
	}
	for range 40 {
		r, err := s.Keys.PrepareDEKRotation(ctx, 0,
			[]NewKey{{Purpose: KeyJoinHMAC, Secret: []byte("0123456789abcdef0123456789abcdef")}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keys.RotateDEK(ctx, Actor{Name: "test"}, r, "test"); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wait.Wait()
}

// TestExpectedKeys: a key that is expected opens, does not seal, and gives way to what the database says.
func TestExpectedKeys(t *testing.T) {
	var k keyring
	k.init(nil, 1)
	k.adopt(1, [32]byte{1})
	k.expect(2, [32]byte{2})
	k.adopt(2, [32]byte{3}) // another leader has given the number to another key
	sealed, generation, err := k.seal("x", []byte("text"))
	if err != nil || generation != 2 {
		t.Fatal(generation, err)
	}
	if plain, err := k.open("x", 2, sealed); err != nil || string(plain) != "text" {
		t.Error(string(plain), err)
	}
	k.expect(3, [32]byte{4})
	if _, generation, _ := k.seal("x", nil); generation != 2 {
		t.Errorf("sealed under generation %d, which is not committed", generation)
	}
}

// TestReencryptBesideRotation: values move to a generation whose rotation is in the same batch, which retires none;
// that is for when nothing is sealed under the old ones any more.
func TestReencryptBesideRotation(t *testing.T) {
	c := newTestCluster(t, 1)
	s := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	actor := Actor{Name: "test"}
	if _, err := s.Secrets.Put(ctx, actor, "before", []byte("before")); err != nil {
		t.Fatal(err)
	}
	r, err := s.Keys.PrepareDEKRotation(ctx, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var generation uint64
	moved := 0
	err = s.Write(ctx, actor, func(tx *Tx) (err error) {
		if generation, err = tx.rotateDEK(r, "test"); err != nil {
			return err
		}
		s.keys.expect(generation, r.DEK)
		tx.tx.OnCommit(func() { s.keys.adopt(generation, r.DEK) })
		for n := -1; n != 0 && err == nil; moved += n {
			n, err = tx.reencrypt(&s.keys, 500)
		}
		return err
	})
	if err != nil || moved == 0 {
		t.Fatalf("%d values were moved: %v", moved, err)
	}
	states := func() (list []string) {
		all, err := s.Keys.Generations(ctx, AsLeader)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range all {
			list = append(list, g.State)
		}
		return list
	}
	if got := states(); !slices.Equal(got, []string{"re-encrypting", "active"}) {
		t.Errorf("the generations are %v", got)
	}
	if n, err := s.Keys.Reencrypt(ctx, actor, 500); n != 0 || err != nil {
		t.Errorf("%d more values were moved: %v", n, err)
	}
	if got := states(); !slices.Equal(got, []string{"retired", "active"}) {
		t.Errorf("the generations are %v", got)
	}
	if x, err := s.Secrets.Get(ctx, AsLeader, "before"); err != nil || string(x.Value) != "before" {
		t.Error(string(x.Value), err)
	}
}
