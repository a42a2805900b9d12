package store

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"sync"
	"time"

	"muster/certs"
)

// Rotation is a new data-encryption key with everything that can be prepared outside a transaction: wraps for the
// members that there were, and the keys that get a new epoch with it.
type DEKRotation struct {
	DEK   certs.DEK
	Wraps map[uint64][]byte // by raft node id
	Keys  []NewKey
}

// PrepareRotation wraps a new key for every member that holds keys, except one. It takes about 0.1 ms per member.
func (s *Store) PrepareRotation(ctx context.Context, without uint64, keys []NewKey) (*DEKRotation, error) {
	members, err := s.Members.List(ctx, AsLeader)
	if err != nil {
		return nil, err
	}
	r := &DEKRotation{DEK: certs.NewDEK(), Wraps: make(map[uint64][]byte, len(members)), Keys: keys}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	work := make(chan *Member)
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for m := range work {
				wrap, err := certs.Wrap(r.DEK[:], m.Recipient)
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("wrap for node %d: %w", m.NodeID, err)
				}
				r.Wraps[m.NodeID] = wrap
				mu.Unlock()
			}
		}()
	}
	for i := range members {
		if m := &members[i]; m.Recipient != "" && m.NodeID != without {
			work <- m
		}
	}
	close(work)
	wg.Wait()
	return r, failed
}

// rotateDEK makes a new generation the active one. The old ones stay readable until everything is re-encrypted.
func (t *Tx) rotateDEK(r *DEKRotation, reason string) (generation uint64, err error) {
	var total int
	if _, err := t.get("SELECT coalesce(max(generation), 0) + 1 FROM dek_generations", nil, &generation); err != nil {
		return 0, err
	}
	if _, err := t.get(countSealed, []any{int64(generation)}, &total); err != nil {
		return 0, err
	}
	if err := t.exec("UPDATE dek_generations SET state = 're-encrypting' WHERE state = 'active'"); err != nil {
		return 0, err
	}
	if err := t.exec("INSERT INTO dek_generations (generation, state, reason, rows_total, created_at, created_rev) VALUES (?, 'active', ?, ?, ?, ?)",
		generation, reason, total, t.Now, t.Rev); err != nil {
		return 0, err
	}
	members, err := t.Members()
	if err != nil {
		return 0, err
	}
	for i := range members {
		m := &members[i]
		if m.Recipient == "" {
			continue
		}
		wrap := r.Wraps[m.NodeID]
		if wrap == nil { // it joined since
			if wrap, err = certs.Wrap(r.DEK[:], m.Recipient); err != nil {
				return 0, err
			}
		}
		if err := t.exec(insertWrap, generation, m.NodeID, wrap, t.Rev); err != nil {
			return 0, err
		}
	}
	seal := func(name string, plain []byte) ([]byte, uint64, error) {
		sealed, err := r.DEK.Seal(name, generation, plain)
		return sealed, generation, err
	}
	return generation, t.rotateKeys(r.Keys, nil, seal)
}

const countSealed = `SELECT (SELECT count(*) FROM secrets WHERE dek_generation < ?1) + (SELECT count(*) FROM sealed_secrets WHERE dek_generation < ?1)
	+ (SELECT count(*) FROM authorities WHERE dek_generation < ?1 AND state <> 'retired') + (SELECT count(*) FROM idempotency WHERE dek_generation < ?1)
	+ (SELECT count(*) FROM peering_secrets WHERE dek_generation < ?1) + (SELECT count(*) FROM peering_tombstones WHERE dek_generation < ?1)`

// RotateDEK makes a new data-encryption key for the members that there are, and returns its generation.
func (s *Store) RotateDEK(ctx context.Context, actor Actor, r *DEKRotation, reason string) (uint64, error) {
	return makeOnce(ctx, s, actor, func(tx *Tx) (generation uint64, err error) {
		if generation, err = tx.rotateDEK(r, reason); err != nil {
			return 0, err
		}
		s.keys.expect(generation, r.DEK)
		tx.tx.OnCommit(func() { s.keys.adopt(generation, r.DEK) })
		return generation, tx.audit("dek.rotate", fmt.Sprintf("dek/%d", generation), reason)
	})
}

// Generation is one data-encryption key.
type Generation struct {
	Generation uint64
	State      string
	Reason     string
	CreatedAt  time.Time
	Holders    int // members that have a wrap
	Total      int // values that were to be re-encrypted when it became active
	Remaining  int // of those, still sealed under an older one; for the active generation
}

// Generations lists the generations of the data-encryption key, oldest first.
func (s *Store) Generations(ctx context.Context, c Consistency) (list []Generation, err error) {
	err = s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (g Generation, err error) {
			var created string
			err = rows.Scan(&g.Generation, &g.State, &g.Reason, &created, &g.Total, &g.Holders)
			g.CreatedAt = parseTime(created)
			return g, err
		}, `SELECT g.generation, g.state, g.reason, g.created_at, g.rows_total, (SELECT count(*) FROM dek_wraps w WHERE w.generation = g.generation)
			FROM dek_generations g ORDER BY g.generation`)
		for i := range list {
			if err == nil && list[i].State == "active" {
				_, err = v.get(countSealed, []any{int64(list[i].Generation)}, &list[i].Remaining)
			}
		}
		return err
	})
	return list, err
}

// sealedTable is a table with values under the data-encryption key; name computes what their seal is bound to.
var sealedTables = []struct{ find, update string }{
	{"SELECT 'secret/' || name || '/' || version, name, '', sealed, dek_generation FROM secrets WHERE dek_generation < ? ORDER BY name LIMIT ?",
		"UPDATE secrets SET sealed = ?1, dek_generation = ?2 WHERE name = ?3 AND ?4 = '' AND dek_generation = ?5"},
	{"SELECT name, name, '', sealed, dek_generation FROM sealed_secrets WHERE dek_generation < ? ORDER BY name LIMIT ?",
		"UPDATE sealed_secrets SET sealed = ?1, dek_generation = ?2 WHERE name = ?3 AND ?4 = '' AND dek_generation = ?5"},
	{"SELECT 'authority/' || kind || '/' || generation, kind, cast(generation AS TEXT), sealed_key, dek_generation FROM authorities WHERE dek_generation < ? AND state <> 'retired' ORDER BY kind, generation LIMIT ?",
		"UPDATE authorities SET sealed_key = ?1, dek_generation = ?2 WHERE kind = ?3 AND generation = cast(?4 AS INTEGER) AND dek_generation = ?5"},
	{"SELECT 'idempotency/' || accessor || '/' || key, accessor, key, sealed, dek_generation FROM idempotency WHERE dek_generation < ? ORDER BY accessor, key LIMIT ?",
		"UPDATE idempotency SET sealed = ?1, dek_generation = ?2 WHERE accessor = ?3 AND key = ?4 AND dek_generation = ?5"},
	{"SELECT 'peering/' || peering_id, peering_id, '', sealed, dek_generation FROM peering_secrets WHERE dek_generation < ? ORDER BY peering_id LIMIT ?",
		"UPDATE peering_secrets SET sealed = ?1, dek_generation = ?2 WHERE peering_id = ?3 AND ?4 = '' AND dek_generation = ?5"},
	{"SELECT 'peering/' || id, id, '', sealed, dek_generation FROM peering_tombstones WHERE dek_generation < ? ORDER BY id LIMIT ?",
		"UPDATE peering_tombstones SET sealed = ?1, dek_generation = ?2 WHERE id = ?3 AND ?4 = '' AND dek_generation = ?5"},
}

// Reencrypt moves up to limit values to the active generation, in one transaction, and retires the old generations when
// nothing is left. It returns how many it has moved; 0 means that all is done. Any leader can go on where another stopped.
func (s *Store) Reencrypt(ctx context.Context, actor Actor, limit int) (moved int, err error) {
	pending, err := memo(ctx, s, "dek/pending", []string{"dek_generations"}, func(v *View) (bool, error) {
		return v.get("SELECT 1 FROM dek_generations WHERE state = 're-encrypting'", nil, new(int))
	})
	if err != nil || !pending {
		return 0, err
	}
	err = s.Write(ctx, actor, func(tx *Tx) error {
		var active uint64
		if _, err := tx.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
			return err
		}
		moved = 0
		for _, table := range sealedTables {
			n, err := moveSealed(tx, &s.keys, &s.keys, table.find, table.update, active, active, limit-moved)
			if err != nil {
				return err
			}
			if moved += n; moved >= limit {
				break
			}
		}
		if moved > 0 {
			return tx.audit("dek.reencrypt", fmt.Sprintf("dek/%d", active), fmt.Sprintf("%d values", moved))
		}
		n, err := tx.execCount("UPDATE dek_generations SET state = 'retired' WHERE state = 're-encrypting'")
		if err != nil || n == 0 {
			return err
		}
		if err := tx.exec("DELETE FROM dek_wraps WHERE generation < ?", active); err != nil {
			return err
		}
		return tx.audit("dek.retire", fmt.Sprintf("dek/%d", active-1), "")
	})
	return moved, err
}

// moveSealed opens up to limit values of a generation below one with one keyring and seals them under the active
// generation of another.
func moveSealed(tx *Tx, from, to *keyring, find, update string, below, active uint64, limit int) (moved int, err error) {
	type row struct {
		name, a, b string
		sealed     []byte
		generation uint64
	}
	list, err := collect(&tx.View, func(rows *sql.Rows) (r row, err error) {
		err = rows.Scan(&r.name, &r.a, &r.b, &r.sealed, &r.generation)
		return r, err
	}, find, int64(below), int64(limit))
	if err != nil {
		return 0, err
	}
	for _, r := range list {
		plain, err := from.open(r.name, r.generation, r.sealed)
		if err != nil {
			return moved, fmt.Errorf("re-encrypt %s: %w", r.name, err)
		}
		sealed, generation, err := to.seal(r.name, plain)
		clear(plain)
		if err != nil {
			return moved, err
		}
		if generation != active {
			return moved, fmt.Errorf("re-encrypt %s: this leader holds generation %d, not %d", r.name, generation, active)
		}
		if err := tx.exec(update, sealed, active, r.a, r.b, r.generation); err != nil {
			return moved, err
		}
		moved++
	}
	return moved, nil
}
