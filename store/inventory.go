package store

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

// Inventory is what the database holds, in numbers.
type Inventory struct {
	Revision   uint64
	Epoch      uint64
	Members    map[[2]string]int // by Raft role ("" outside) and drain state
	Unhealthy  int
	Tokens     map[[2]string]int // by kind and state
	Peerings   map[string]int    // by state
	Leases     int
	AuditRows  uint64
	Generation uint64 // active data-encryption key
	Total      int    // values that were to be re-encrypted when it became active
	Remaining  int    // of those, still sealed under an older one

	Authorities  map[string]time.Time    // earliest expiry of those in use, by kind
	Certificates map[[2]string]time.Time // earliest expiry of the newest leaf of each member, by kind, and whose: "own" or "any"
}

// inventoryAge is how old an inventory may be although nothing has changed: tokens expire by themselves.
const inventoryAge = 15 * time.Second

type inventories struct {
	mu   sync.Mutex
	last *Inventory
	at   time.Time
}

// Inventory counts what the database holds: on the leader as of now, elsewhere as of the local mirror. What has not
// changed is not counted again for 15 s. It asks nobody and returns ErrNoLeader where there is no mirror yet.
func (s *Store) Inventory(ctx context.Context) (*Inventory, error) {
	c := &s.inventories
	c.mu.Lock()
	defer c.mu.Unlock()
	rev := s.Mirror.Revision()
	if s.Leading() {
		rev = s.Revision()
	}
	if c.last != nil && c.last.Revision == rev && time.Since(c.at) < inventoryAge {
		return c.last, nil
	}
	var in *Inventory
	err := s.local(ctx, func(v *View) (err error) {
		in, err = v.inventory(s.cfg.NodeID)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.last, c.at = in, time.Now()
	return in, nil
}

const (
	countMembers    = "SELECT raft_role, drain_state, count(*) FROM members GROUP BY raft_role, drain_state"
	countJoinTokens = `SELECT 'join', CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.uses >= t.max_uses THEN 'used'
		WHEN t.expires_at < ? THEN 'expired' WHEN ` + superseded + ` THEN 'superseded' ELSE 'valid' END AS state, count(*)
		FROM join_tokens t GROUP BY state`
	countAPITokens = `SELECT 'api', CASE WHEN expires_at <= ? THEN 'expired' ELSE 'valid' END AS state, count(*) FROM api_tokens GROUP BY state`
	countPeerings  = "SELECT state, '', count(*) FROM peerings GROUP BY state"
	// A member's newest leaf of a kind is the one that it uses; those of removed members are revoked.
	expiringLeaves = `SELECT kind, min(newest) FROM (SELECT kind, max(expires_at) AS newest FROM certificates
		WHERE revoked_at IS NULL AND raft_node_id IN (SELECT raft_node_id FROM members) GROUP BY raft_node_id, kind) GROUP BY kind`
	ownLeaves            = "SELECT kind, max(expires_at) FROM certificates WHERE revoked_at IS NULL AND raft_node_id = ? GROUP BY kind"
	expiringAuthorities  = "SELECT kind, min(expires_at) FROM authorities WHERE state <> 'retired' GROUP BY kind"
	activeGeneration     = "SELECT generation, rows_total FROM dek_generations WHERE state = 'active'"
	countUnhealthy       = "SELECT count(*) FROM unhealthy_members"
	countLeases          = "SELECT count(*) FROM leases WHERE expires_at > ?"
	selectRevisionEpoch  = "SELECT revision, epoch FROM cluster"
	generationInProgress = "SELECT 1 FROM dek_generations WHERE state = 're-encrypting'"
)

func (v *View) inventory(self uint64) (*Inventory, error) {
	in := &Inventory{}
	now := rfc3339(v.Now)
	var err error
	try := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	one := func(query string, args []any, dest ...any) {
		try(func() error {
			_, err := v.get(query, args, dest...)
			return err
		})
	}
	one(selectRevisionEpoch, nil, &in.Revision, &in.Epoch)
	one(countUnhealthy, nil, &in.Unhealthy)
	one(countLeases, []any{now}, &in.Leases)
	one(activeGeneration, nil, &in.Generation, &in.Total)
	try(func() (err error) { in.AuditRows, err = v.auditRows(); return err })
	try(func() error {
		moving, err := v.get(generationInProgress, nil, new(int))
		if err == nil && moving {
			_, err = v.get(countSealed, []any{int64(in.Generation)}, &in.Remaining)
		}
		return err
	})
	try(func() (err error) { in.Members, err = v.counts(countMembers); return err })
	try(func() (err error) { in.Tokens, err = v.counts(countJoinTokens, now, now); return err })
	try(func() error {
		api, err := v.counts(countAPITokens, now)
		for k, n := range api {
			in.Tokens[k] = n
		}
		return err
	})
	try(func() error {
		list, err := v.counts(countPeerings)
		in.Peerings = map[string]int{}
		for k, n := range list {
			in.Peerings[k[0]] = n
		}
		return err
	})
	try(func() (err error) { in.Authorities, err = v.times(expiringAuthorities); return err })
	in.Certificates = map[[2]string]time.Time{}
	for whose, find := range map[string]func() (map[string]time.Time, error){
		"any": func() (map[string]time.Time, error) { return v.times(expiringLeaves) },
		"own": func() (map[string]time.Time, error) { return v.times(ownLeaves, int64(self)) },
	} {
		try(func() error {
			list, err := find()
			for kind, t := range list {
				in.Certificates[[2]string{kind, whose}] = t
			}
			return err
		})
	}
	return in, err
}

func (v *View) counts(query string, args ...any) (map[[2]string]int, error) {
	rows, err := v.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[[2]string]int{}
	for rows.Next() {
		var a, b string
		var n int
		if err := rows.Scan(&a, &b, &n); err != nil {
			return nil, err
		}
		m[[2]string{a, b}] = n
	}
	return m, rows.Err()
}

func (v *View) times(query string, args ...any) (map[string]time.Time, error) {
	rows, err := v.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[string]time.Time{}
	for rows.Next() {
		var kind string
		var at sql.NullString
		if err := rows.Scan(&kind, &at); err != nil {
			return nil, err
		}
		if at.Valid {
			m[kind] = parseTime(at.String)
		}
	}
	return m, rows.Err()
}
