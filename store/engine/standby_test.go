package engine

import (
	"context"
	"errors"
	"testing"
)

// A stand-by holds the whole state without a vote.
func TestStandByReplicates(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 4)
	ctx := context.Background()
	l := c.leader()
	if err := l.Assign(ctx, 4, RoleStandBy); err != nil {
		t.Fatal(err)
	}
	request, err := write(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("the stand-by's mirror", func() error {
		return c.node(4).Read(ctx, Stale, func(v *View) error {
			there, err := noted(v, request)
			if err == nil && !there {
				err = errors.New("the note is not there yet")
			}
			return err
		})
	})
}
