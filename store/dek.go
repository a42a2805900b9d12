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
func (ks Keys) PrepareRotation(ctx context.Context, without uint64, keys []NewKey) (*DEKRotation, error) {
	members, err := ks.s.Members.List(ctx, AsLeader)
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

// RotateDEK makes a new data-encryption key for the members that there are, and returns its generation.
func (ks Keys) RotateDEK(ctx context.Context, actor Actor, r *DEKRotation, reason string) (uint64, error) {
	return makeOnce(ctx, ks.s, actor, func(tx *Tx) (generation uint64, err error) {
		if generation, err = tx.rotateDEK(r, reason); err != nil {
			return 0, err
		}
		ks.s.keys.expect(generation, r.DEK)
		tx.tx.OnCommit(func() { ks.s.keys.adopt(generation, r.DEK) })
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
func (ks Keys) Generations(ctx context.Context, c Consistency) (list []Generation, err error) {
	err = ks.s.Read(ctx, c, func(v *View) error {
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

// Reencrypt moves up to limit values to the active generation, in one transaction, and retires the old generations when
// nothing is left. It returns how many it has moved; 0 means that all is done. Any leader can go on where another stopped.
func (ks Keys) Reencrypt(ctx context.Context, actor Actor, limit int) (moved int, err error) {
	pending, err := recall(ctx, ks.s, AsLeader, "dek/pending", []string{"dek_generations"}, func(v *View) (bool, error) {
		return v.get("SELECT 1 FROM dek_generations WHERE state = 're-encrypting'", nil, new(int))
	})
	if err != nil || !pending {
		return 0, err
	}
	err = ks.s.Write(ctx, actor, func(tx *Tx) error {
		var active uint64
		if _, err := tx.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
			return err
		}
		var err error
		if moved, err = moveSealed(tx, &ks.s.keys, &ks.s.keys, active, active, limit); err != nil {
			return err
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
