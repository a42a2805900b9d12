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

// How much is kept of what is over, for those who look back: nobody can make these rows without end.
const (
	retiredKept = 1_000   // data-encryption keys, join keys of a purpose, authorities of a kind
	removedKept = 100_000 // removed members: their numbers and identities are not given out again
)

// pruneHistory deletes the oldest of what is over beyond what is kept. The newest of each table always stays: the next
// number follows from it.
func (t *Tx) pruneHistory() (deleted int64, err error) {
	for _, q := range []struct {
		query string
		keep  int
	}{
		{`DELETE FROM authorities WHERE state = 'retired'
			AND generation <= (SELECT max(b.generation) FROM authorities b WHERE b.kind = authorities.kind) - ?`, retiredKept},
		{`DELETE FROM dek_generations WHERE state = 'retired' AND generation <= (SELECT max(generation)
			FROM dek_generations) - ?
			AND generation NOT IN (SELECT dek_generation FROM authorities)`, retiredKept},
		// a retired authority has no key, but names one
		{`DELETE FROM cluster_keys WHERE state = 'retired'
			AND epoch <= (SELECT max(k.epoch) FROM cluster_keys k WHERE k.purpose = cluster_keys.purpose) - ?`, retiredKept},
	} {
		n, err := t.execCount(q.query, q.keep)
		if err != nil {
			return deleted, err
		}
		deleted += n
	}
	var oldest uint64
	more, err := t.get("SELECT raft_node_id FROM removed_members ORDER BY raft_node_id DESC LIMIT 1 OFFSET ?",
		[]any{removedKept}, &oldest)
	if err != nil || !more {
		return deleted, err
	}
	n, err := t.execCount("DELETE FROM removed_members WHERE raft_node_id <= ?", oldest)
	return deleted + n, err
}
