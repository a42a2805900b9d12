package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"muster/certs"
	"muster/store"
)

// NewClusterKey makes a key for a purpose: an Ed25519 seed, 32 random bytes, or their hexadecimal text.
func NewClusterKey(purpose string) (k store.NewKey, err error) {
	k = store.NewKey{Purpose: purpose, Secret: make([]byte, 32)}
	if _, err := rand.Read(k.Secret); err != nil {
		return k, err
	}
	switch purpose {
	case store.KeyJoinSigning, store.KeyJWT:
		k.Public = ed25519.NewKeyFromSeed(k.Secret).Public().(ed25519.PublicKey)
		k.KID = certs.KeyID(ed25519.PublicKey(k.Public))
	case store.KeyJoinSecret:
		k.Secret = []byte(hex.EncodeToString(k.Secret))
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	case store.KeyJoinHMAC:
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	default:
		return k, fmt.Errorf("there is no key for %q", purpose)
	}
	return k, nil
}

// reencryptBatch is how many values move to a new generation in one transaction; others write in between.
const reencryptBatch = 500

// NewJoinKeys makes the next epoch of what join tokens are signed with.
func NewJoinKeys() ([]store.NewKey, error) {
	return newKeys(store.KeyJoinHMAC, store.KeyJoinSigning)
}

func newKeys(purposes ...string) (list []store.NewKey, err error) {
	for _, p := range purposes {
		k, err := NewClusterKey(p)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// PrepareRemoval makes the new data-encryption key and the new epochs of every key that a removed member could open.
func (c *Cluster) PrepareRemoval(ctx context.Context, nodeID uint64) (*store.Rotation, error) {
	keys, err := newKeys(store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT)
	if err != nil {
		return nil, err
	}
	return c.Store.PrepareRotation(ctx, nodeID, keys)
}

// rekey moves what is sealed under old generations to the active one, a batch at a time, and rotates by age.
func (c *Cluster) rekey(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := c.Store.Reencrypt(ctx, c.actor(), reencryptBatch)
		if err != nil || n == 0 {
			return err
		}
	}
	return ctx.Err()
}

// rotateByAge makes a new data-encryption key when the active one is older than the setting allows.
func (c *Cluster) rotateByAge(ctx context.Context) error {
	limit, err := c.Store.KeyRotation(ctx)
	if err != nil || limit == 0 {
		return err
	}
	list, err := c.Store.Generations(ctx, store.Linearisable)
	if err != nil || len(list) == 0 {
		return err
	}
	if age := c.Store.Now().Sub(list[len(list)-1].CreatedAt); age > limit {
		r, err := c.Store.PrepareRotation(ctx, 0, nil)
		if err != nil {
			return err
		}
		_, err = c.Store.RotateDEK(ctx, c.actor(), r, "age")
		return err
	}
	return nil
}
