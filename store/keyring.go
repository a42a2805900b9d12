package store

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"filippo.io/age"

	"muster/certs"
)

// keyring holds the generations of the data-encryption key that this member can open. Everything sealed in the
// database goes through it; the keys live in memory only.
type keyring struct {
	mu       sync.RWMutex
	identity *age.X25519Identity
	nodeID   uint64
	deks     map[uint64]certs.DEK
	active   uint64
	expected map[uint64]certs.DEK // of rotations that this leader has begun: committed perhaps, not yet adopted
}

func (k *keyring) init(identity *age.X25519Identity, nodeID uint64) {
	k.identity, k.nodeID, k.deks, k.expected = identity, nodeID, map[uint64]certs.DEK{}, map[uint64]certs.DEK{}
}

// load opens the wraps that are addressed to this member.
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
	clear(k.expected) // another leader may have given these numbers to other keys
	return nil
}

// expect takes a generation that is about to be committed: others read it from the moment of the commit on, which is before
// whoever has asked for it learns of that and adopts it. A number that was not committed is given, and expected, again.
func (k *keyring) expect(generation uint64, dek certs.DEK) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expected == nil {
		k.expected = map[uint64]certs.DEK{}
	}
	k.expected[generation] = dek
}

// adopt takes a generation that this leader has just committed.
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

func (k *keyring) open(name string, generation uint64, sealed []byte) ([]byte, error) {
	k.mu.RLock()
	dek, ok := k.deks[generation]
	if !ok {
		dek, ok = k.expected[generation]
	}
	k.mu.RUnlock()
	if !ok {
		return nil, errNoKey
	}
	return dek.Open(name, generation, sealed)
}

// ActiveDEK returns the data-encryption key and its generation, for the joiner that is to hold it too.
func (s *Store) ActiveDEK() (certs.DEK, uint64, error) {
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	dek, ok := s.keys.deks[s.keys.active]
	if !ok {
		return certs.DEK{}, 0, errNoKey
	}
	return dek, s.keys.active, nil
}
