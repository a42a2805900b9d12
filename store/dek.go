package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"filippo.io/age"

	"muster/certs"
)

// DEKRotation is a new data-encryption key with everything that is prepared outside the transaction: wraps for the
// members, and new epochs of other keys.
type DEKRotation struct {
	DEK   certs.DEK
	Wraps map[uint64][]byte // by raft node id
	Keys  []NewKey
}

// PrepareDEKRotation generates a key and wraps it for every member that holds keys, except one (0: none). It takes
// about 0.1 ms per member.
func (ks Keys) PrepareDEKRotation(ctx context.Context, without uint64, keys []NewKey) (*DEKRotation, error) {
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

// rotateDEK makes a new generation active. The old ones stay readable until re-encryption is complete.
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
	if err := t.exec("INSERT INTO dek_generations (generation, state, reason, rows_total, created_at, created_rev) "+
		"VALUES (?, 'active', ?, ?, ?, ?)",
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
		if wrap == nil { // it joined after the preparation
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

// RotateDEK makes a prepared data-encryption key active and returns its generation.
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

// Generation is one generation of the data-encryption key.
type Generation struct {
	Generation uint64
	State      string
	Reason     string
	CreatedAt  time.Time
	Holders    int // members with a wrap
	Total      int // values to re-encrypt when it became active
	Remaining  int // of those, still under an older generation; for the active one
}

// Generations lists the generations of the data-encryption key, oldest first.
func (ks Keys) Generations(ctx context.Context, c Consistency) (list []Generation, err error) {
	err = ks.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (g Generation, err error) {
			var created string
			err = rows.Scan(&g.Generation, &g.State, &g.Reason, &created, &g.Total, &g.Holders)
			g.CreatedAt = parseTime(created)
			return g, err
		}, `SELECT g.generation, g.state, g.reason, g.created_at, g.rows_total, (SELECT count(*) FROM dek_wraps w
			WHERE w.generation = g.generation)
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

// Reencrypt re-encrypts up to limit values under the active generation, in one transaction, and retires the old
// generations when none is left. It returns the number of values; 0 means that re-encryption is complete. Any leader
// can continue it.
func (ks Keys) Reencrypt(ctx context.Context, actor Actor, limit int) (moved int, err error) {
	pending, err := recall(ctx, ks.s, AsLeader, "dek/pending", []string{"dek_generations"}, func(v *View) (bool, error) {
		return v.get("SELECT 1 FROM dek_generations WHERE state = 're-encrypting'", nil, new(int))
	})
	if err != nil || !pending {
		return 0, err
	}
	err = ks.s.Write(ctx, actor, func(tx *Tx) (err error) {
		moved, err = tx.reencrypt(&ks.s.keys, limit)
		return err
	})
	return moved, err
}

// reencrypt is one step of Reencrypt. The rotation may be in the same batch, in which case its key is expected but not
// yet adopted: it seals values under that key, but does not retire the old generations, because other transactions of
// the batch may still seal under them.
func (t *Tx) reencrypt(ring *keyring, limit int) (moved int, err error) {
	var active uint64
	if _, err := t.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
		return 0, err
	}
	if moved, err = moveSealed(t, ring, ring, active, active, limit); err != nil {
		return 0, err
	}
	if moved > 0 {
		return moved, t.audit("dek.reencrypt", fmt.Sprintf("dek/%d", active), fmt.Sprintf("%d values", moved))
	}
	if !ring.seals(active) {
		return 0, nil
	}
	n, err := t.execCount("UPDATE dek_generations SET state = 'retired' WHERE state = 're-encrypting'")
	if err != nil || n == 0 {
		return 0, err
	}
	if err := t.exec("DELETE FROM dek_wraps WHERE generation < ?", active); err != nil {
		return 0, err
	}
	return 0, t.audit("dek.retire", fmt.Sprintf("dek/%d", active-1), made("active", active, "retired", uint64(n)))
}

// keyring holds the generations of the data-encryption key that this member can open. It seals and opens all sealed
// values of the database. The keys are in memory only.
type keyring struct {
	mu       sync.RWMutex
	identity *age.X25519Identity
	nodeID   uint64
	deks     map[uint64]certs.DEK
	active   uint64
	expected map[uint64]certs.DEK // of this leader's rotations that may be committed but are not adopted yet
}

func (k *keyring) init(identity *age.X25519Identity, nodeID uint64) {
	k.identity, k.nodeID, k.deks, k.expected = identity, nodeID, map[uint64]certs.DEK{}, map[uint64]certs.DEK{}
}

// load opens this member's wraps.
func (k *keyring) load(v *View) error {
	type wrap struct {
		generation uint64
		data       []byte
	}
	wraps, err := collect(v, func(rows *sql.Rows) (w wrap, err error) { return w, rows.Scan(&w.generation, &w.data) },
		"SELECT generation, wrap FROM dek_wraps WHERE raft_node_id = ? ORDER BY generation", int64(k.nodeID))
	if err != nil {
		return err
	}
	var active uint64
	if _, err := v.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range wraps {
		if _, ok := k.deks[w.generation]; ok {
			continue
		}
		plain, err := certs.Unwrap(w.data, k.identity)
		if err != nil {
			return fmt.Errorf("unwrap generation %d: %w", w.generation, err)
		}
		if len(plain) != len(certs.DEK{}) {
			return fmt.Errorf("generation %d is not a data-encryption key", w.generation)
		}
		k.deks[w.generation] = certs.DEK(plain)
	}
	if _, ok := k.deks[active]; !ok {
		return fmt.Errorf("no wrap of generation %d is addressed to node %d", active, k.nodeID)
	}
	k.active = active
	clear(k.expected) // another leader may have used these generations for other keys
	return nil
}

// expect adds a generation that is about to be committed: other requests can read it as soon as it is committed, which
// is before the rotation returns and adopts it. A generation whose commit failed is used, and expected, again.
func (k *keyring) expect(generation uint64, dek certs.DEK) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expected == nil {
		k.expected = map[uint64]certs.DEK{}
	}
	k.expected[generation] = dek
}

// adopt makes a committed generation the one that new values are sealed under.
func (k *keyring) adopt(generation uint64, dek certs.DEK) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deks[generation] = dek
	k.active = max(k.active, generation)
	delete(k.expected, generation)
}

var errNoKey = errors.New("store: this member does not hold the data-encryption key")

func (k *keyring) seal(name string, plain []byte) (sealed []byte, generation uint64, err error) {
	k.mu.RLock()
	dek, ok := k.deks[k.active]
	generation = k.active
	k.mu.RUnlock()
	if !ok {
		return nil, 0, errNoKey
	}
	sealed, err = dek.Seal(name, generation, plain)
	return sealed, generation, err
}

// sealUnder seals under a generation in the database, adopted or expected.
func (k *keyring) sealUnder(generation uint64, name string, plain []byte) ([]byte, error) {
	dek, ok := k.held(generation)
	if !ok {
		return nil, errNoKey
	}
	return dek.Seal(name, generation, plain)
}

// seals reports whether new values are sealed under a generation.
func (k *keyring) seals(generation uint64) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.active == generation
}

func (k *keyring) held(generation uint64) (dek certs.DEK, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if dek, ok = k.deks[generation]; !ok {
		dek, ok = k.expected[generation]
	}
	return dek, ok
}

func (k *keyring) open(name string, generation uint64, sealed []byte) ([]byte, error) {
	dek, ok := k.held(generation)
	if !ok {
		return nil, errNoKey
	}
	return dek.Open(name, generation, sealed)
}

// ActiveDEK returns the active data-encryption key and its generation, to wrap it for a joiner.
func (ks Keys) ActiveDEK() (certs.DEK, uint64, error) {
	ks.s.keys.mu.RLock()
	defer ks.s.keys.mu.RUnlock()
	dek, ok := ks.s.keys.deks[ks.s.keys.active]
	if !ok {
		return certs.DEK{}, 0, errNoKey
	}
	return dek, ks.s.keys.active, nil
}
