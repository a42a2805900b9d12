package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// tokenKept is how long the record of a token is kept after its expiry.
const tokenKept = 30 * 24 * time.Hour

// Prune deletes records that are no longer needed: tokens, keys and enrollments that expired long ago, remembered
// answers, expired leases, and the oldest retired keys and removed members.
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
		return tx.audit("store.prune", "cluster", made("join_tokens", uint64(tokens), "answers", uint64(answers),
			"api_tokens", uint64(expired), "leases", uint64(leases), "enrollments", uint64(enrollments),
			"certificates", uint64(leaves), "history", uint64(history)))
	})
}

// The maximum numbers of historical rows.
const (
	retiredKept = 1_000   // data-encryption keys, join keys of a purpose, authorities of a kind
	removedKept = 100_000 // removed members, whose ids and keys are never accepted again
)

// pruneHistory deletes the oldest historical rows beyond these numbers. It keeps the newest row of each table, from
// which the next number is derived.
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

// sequencePruned is the revision up to which audit rows of operators and members may have been deleted. Rows of refused
// attempts and of other clusters have their own retention; a reader that resumes at a position is not told of deleted
// ones.
const sequencePruned = "audit_pruned"

func (v *View) prunedRevision() (rev uint64, err error) {
	_, err = v.get("SELECT value FROM sequences WHERE name = ?", []any{sequencePruned}, &rev)
	return rev, err
}

// pruneStep is the maximum number of rows that one transaction deletes, unless a single revision has more.
const pruneStep = 1000

// Prune deletes the oldest audit rows beyond the retention in one bounded step; more reports whether another step is
// needed. It deletes whole revisions, and only when a row is too old or there are over a hundredth too many, because
// each step writes an audit row itself.
func (au Audit) Prune(ctx context.Context, actor Actor) (more bool, err error) {
	keep, err := au.s.Settings.AuditRetention(ctx, AsLeader)
	if err != nil {
		return false, err
	}
	for _, c := range []auditClass{{true, keep.MaxAge, keep.MaxRows}, {false, keep.OthersAge, keep.OthersRows}} {
		left, err := au.pruneClass(ctx, actor, c)
		if err != nil {
			return false, err
		}
		more = more || left
	}
	return more, nil
}

// auditClass is a class of audit rows with its own retention: rows with the outcome "ok", or all others.
type auditClass struct {
	ok      bool
	maxAge  time.Duration
	maxRows uint64
}

func (c auditClass) String() string {
	if c.ok {
		return "rows"
	}
	return "rows of refusals, replays and other clusters"
}

func (au Audit) pruneClass(ctx context.Context, actor Actor, c auditClass) (more bool, err error) {
	var until uint64 // the newest revision to delete
	err = au.s.Read(ctx, AsLeader, func(v *View) error {
		until, err = v.pruneUntil(c)
		return err
	})
	if err != nil || until == 0 {
		return false, err
	}
	err = au.s.Write(ctx, actor, func(tx *Tx) error {
		step := until
		var last uint64
		found, err := tx.get("SELECT revision FROM audit WHERE (outcome = 'ok') = ? ORDER BY revision, seq LIMIT 1 OFFSET ?",
			[]any{c.ok, int64(pruneStep)}, &last)
		if err != nil {
			return err
		}
		if more = found && last <= until; more {
			var first uint64
			if _, err := tx.get("SELECT min(revision) FROM audit WHERE (outcome = 'ok') = ?", []any{c.ok}, &first); err != nil {
				return err
			}
			step = max(last-1, first)
		}
		n, err := tx.execCount("DELETE FROM audit WHERE revision <= ? AND (outcome = 'ok') = ?", step, c.ok)
		if err != nil || n == 0 {
			return err
		}
		if c.ok {
			if err := tx.setSequence(sequencePruned, step); err != nil {
				return err
			}
		}
		return tx.audit("audit.prune", "cluster", fmt.Sprintf("%d %v up to revision %d", n, c, step))
	})
	return more, err
}

// pruneUntil returns the newest revision to delete; 0: none.
func (v *View) pruneUntil(keep auditClass) (until uint64, err error) {
	if keep.maxAge > 0 {
		type row struct {
			revision uint64
			at       string
		}
		oldest, err := collect(v, func(rows *sql.Rows) (r row, err error) { return r, rows.Scan(&r.revision, &r.at) },
			auditOldest, keep.ok, int64(2*pruneStep))
		if err != nil {
			return 0, err
		}
		limit := rfc3339(v.Now.Add(-keep.maxAge))
		for _, r := range oldest {
			if r.at >= limit {
				break
			}
			until = r.revision
		}
	}
	over := false
	if over, err = v.get(auditNewestOf, []any{keep.ok, int64(keep.maxRows + keep.maxRows/100)},
		new(uint64)); err != nil || !over {
		return until, err
	}
	var first uint64
	if _, err := v.get(auditNewestOf, []any{keep.ok, int64(keep.maxRows)}, &first); err != nil {
		return 0, err
	}
	return max(until, first), nil
}

// rejoinings limits the audit rows of members that join again, which can present a used token any number of times.
// Further rows are pruned like those of repeated answers.
type rejoinings struct {
	mu sync.Mutex
	m  map[uint64]*rate.Limiter
}

const (
	rejoinsPerHour = 60      // of one member
	maxRejoining   = 100_000 // members that are remembered
)

func (x *rejoinings) may(nodeID uint64, now time.Time) bool {
	if x == nil {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.m[nodeID]
	if l == nil {
		if x.m == nil || len(x.m) >= maxRejoining {
			x.m = map[uint64]*rate.Limiter{}
		}
		l = rate.NewLimiter(rate.Every(time.Hour/rejoinsPerHour), rejoinsPerHour)
		x.m[nodeID] = l
	}
	return l.AllowN(now, 1)
}
