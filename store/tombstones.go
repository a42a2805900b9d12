package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// tombstoneKept is how long a cluster that was away can still learn that its peering was deleted.
const tombstoneKept = 90 * 24 * time.Hour

// Tombstone is a peering that a dialer has deleted and of which the acceptor does not know yet.
type Tombstone struct {
	ID         string
	Name       string
	PeerID     string
	ServerName string
	Addresses  []string
	CAPems     []string
	Secret     string // of the stream
	DeletedAt  time.Time
}

// bury keeps of a peering what it takes to tell the other side that it was deleted.
func (t *Tx) bury(p *Peering, x peeringSecrets) error {
	addresses, err := jsonText(p.Addresses(), "[]")
	if err != nil {
		return err
	}
	pems, err := jsonText(p.CAPems, "[]")
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO peering_tombstones (id, name, dialer, peer_id, server_name, addresses, ca_pems, pending_hash, active_hash, sealed, dek_generation, deleted_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		p.ID, p.Name, p.Dialer, p.PeerID, p.ServerName, addresses, pems, x.pending, x.active, x.sealed, optional(x.generation), t.Now)
}

// Farewells lists the deletions that an acceptor has yet to be told, as the leader has them.
func (ps Peerings) Farewells(ctx context.Context, c Consistency) ([]Tombstone, error) {
	return recall(ctx, ps.s, c, "farewells", []string{"peering_tombstones"}, func(v *View) ([]Tombstone, error) {
		return collect(v, func(rows *sql.Rows) (k Tombstone, err error) {
			var addresses, pems, deleted string
			var sealed []byte
			var generation uint64
			if err := rows.Scan(&k.ID, &k.Name, &k.PeerID, &k.ServerName, &addresses, &pems, &sealed, &generation, &deleted); err != nil {
				return k, err
			}
			k.DeletedAt = parseTime(deleted)
			if err := json.Unmarshal([]byte(addresses), &k.Addresses); err != nil {
				return k, err
			}
			if err := json.Unmarshal([]byte(pems), &k.CAPems); err != nil {
				return k, err
			}
			plain, err := ps.s.keys.open(peeringSeal(k.ID), generation, sealed)
			k.Secret = string(plain)
			return k, err
		}, `SELECT id, name, peer_id, server_name, addresses, ca_pems, sealed, dek_generation, deleted_at FROM peering_tombstones
			WHERE dialer = 1 AND sealed IS NOT NULL ORDER BY id`)
	})
}

// FarewellSaid forgets a deletion of which the acceptor knows now.
func (ps Peerings) FarewellSaid(ctx context.Context, actor Actor, id, outcome string) error {
	return ps.s.Write(ctx, actor, func(tx *Tx) error {
		var name string
		found, err := tx.get("SELECT name FROM peering_tombstones WHERE id = ?", []any{id}, &name)
		if err != nil || !found {
			return err
		}
		if err := tx.exec("DELETE FROM peering_tombstones WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("peering.farewell", peeringObject(name), outcome)
	})
}

// PrunePeerings forgets deletions that nobody has asked about for long.
func (ps Peerings) Prune(ctx context.Context, actor Actor) error {
	return ps.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM peering_tombstones WHERE deleted_at < ?", tx.Now.Add(-tombstoneKept))
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("peering.prune", "cluster", "")
	})
}
