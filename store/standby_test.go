package store

import (
	"context"
	"errors"
	"testing"
)

// A stand-by holds the whole state without a vote.
func TestStandByReplicates(t *testing.T) {
	c := newTestCluster(t, 4)
	ctx := context.Background()
	l := c.leader()
	if err := l.Assign(ctx, 4, RoleStandBy); err != nil {
		t.Fatal(err)
	}
	tok, err := mint(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("the stand-by's mirror", func() error {
		return c.node(4).Read(ctx, Stale, func(v *View) error {
			got, err := v.joinToken(tok.ID)
			if err == nil && got == nil {
				err = errors.New("token not there yet")
			}
			return err
		})
	})
}
