package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func mint(ctx context.Context, s *Store) (JoinToken, error) {
	return s.JoinTokens.Create(ctx, Actor{Name: "test"}, JoinToken{
		ID:        NewID(),
		Format:    FormatMuster,
		KeyEpoch:  1,
		MaxUses:   1,
		ExpiresAt: time.Now().Add(time.Hour),
	})
}

func TestThreeNodes(t *testing.T) {
	c := newTestCluster(t, 3)
	ctx := context.Background()
	l := c.leader()
	tok, err := mint(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	list, err := l.JoinTokens.List(ctx, Linearisable)
	if err != nil || len(list) != 3 || list[0].State(time.Now()) != "used" {
		t.Fatalf("tokens: %+v, %v", list, err)
	}
	members, err := l.Members.List(ctx, Linearisable)
	if err != nil || len(members) != 3 {
		t.Fatalf("members: %+v, %v", members, err)
	}
	if members[1].OverlayIP != "10.200.0.2" || members[1].SliceCIDR != "10.200.1.80/28" {
		t.Errorf("overlay of node 2: %s %s", members[1].OverlayIP, members[1].SliceCIDR)
	}
	for id := uint64(1); id <= 3; id++ {
		c.eventually(fmt.Sprintf("mirror of node %d", id), func() error {
			return c.node(id).Read(ctx, Stale, func(v *View) error {
				got, err := v.joinToken(tok.ID)
				if err == nil && got == nil {
					err = errors.New("token not there yet")
				}
				return err
			})
		})
	}
	for id := uint64(2); id <= 3; id++ {
		if _, err := mint(ctx, c.node(id)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("write on follower %d: %v", id, err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	c := newTestCluster(b, 3)
	l := c.leader()
	for _, clients := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			var wg sync.WaitGroup
			work := make(chan int)
			for range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for range work {
						if _, err := mint(context.Background(), l); err != nil {
							b.Error(err)
						}
					}
				}()
			}
			b.ResetTimer()
			for i := range b.N {
				work <- i
			}
			close(work)
			wg.Wait()
		})
	}
}

func BenchmarkRead(b *testing.B) {
	c := newTestCluster(b, 3)
	l := c.leader()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := l.Members.List(context.Background(), Linearisable); err != nil {
				b.Error(err)
			}
		}
	})
}
