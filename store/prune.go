package store

import (
	"context"
	"time"
)

// tokenKept is how long a token's record outlives its expiry.
const tokenKept = 30 * 24 * time.Hour

// Prune deletes records that nobody can need any more: join tokens, API tokens and API keys long expired, remembered
// answers, expired leases, enrollments whose certificates expired long ago, and the oldest of what is retired or
// removed.
func (s *Store) Prune(ctx context.Context, actor Actor) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		tokens, err := tx.execCount("DELETE FROM join_tokens WHERE expires_at < ?", tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		answers, err := tx.execCount("DELETE FROM idempotency WHERE created_at < ? OR key LIKE 'auto-%' AND created_at < ?",
			tx.Now.Add(-rememberFor), tx.Now.Add(-rememberAutoFor))
		if err != nil {
			return err
		}
		expired, err := tx.execCount("DELETE FROM api_tokens WHERE expires_at < ?", tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		leases, err := tx.execCount("DELETE FROM leases WHERE expires_at < ?", tx.Now)
		if err != nil {
			return err
		}
		enrollments, err := tx.pruneEnrollments(tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		leaves, err := tx.execCount("DELETE FROM certificates WHERE expires_at < ?", tx.Now.Add(-certificateKept))
		if err != nil {
			return err
		}
		history, err := tx.pruneHistory()
		if err != nil || tokens+answers+expired+leases+enrollments+leaves+history == 0 {
			return err
		}
		return tx.audit("store.prune", "cluster", "")
	})
}
