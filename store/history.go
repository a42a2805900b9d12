package store

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
