package cluster

import (
	"context"

	"muster/store"
)

// reencryptBatch is how many values move to a new generation in one transaction; others write in between.
const reencryptBatch = 500

// PrepareRemoval makes the new data-encryption key and the new epochs of every key that a removed member could open.
func (c *Cluster) PrepareRemoval(ctx context.Context, nodeID uint64) (*store.DEKRotation, error) {
	keys, err := store.NewKeys(store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT)
	if err != nil {
		return nil, err
	}
	return c.Store.Keys.PrepareDEKRotation(ctx, nodeID, keys)
}

// rekey moves what is sealed under old generations to the active one, a batch at a time, and rotates by age.
func (t *term) rekey(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := t.Store.Keys.Reencrypt(ctx, t.actor(), reencryptBatch)
		if err != nil || n == 0 {
			return err
		}
	}
	return ctx.Err()
}

// rotateByAge makes a new data-encryption key when the active one is older than the setting allows.
func (t *term) rotateByAge(ctx context.Context) error {
	limit, err := t.Store.Settings.DEKMaxAge(ctx, store.AsLeader)
	if err != nil || limit == 0 {
		return err
	}
	list, err := t.Store.Keys.Generations(ctx, store.Linearisable)
	if err != nil || len(list) == 0 {
		return err
	}
	if age := t.Store.Now().Sub(list[len(list)-1].CreatedAt); age > limit {
		r, err := t.Store.Keys.PrepareDEKRotation(ctx, 0, nil)
		if err != nil {
			return err
		}
		_, err = t.Store.Keys.RotateDEK(ctx, t.actor(), r, "age")
		return err
	}
	return nil
}
