package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"sort"
	"strings"
	"time"

	"muster/store/sizes"
)

// States of peerings (reference consul_peering, section 4). The state is stored, so it survives a change of leader and
// a restart.
const (
	PeeringPending      = "PENDING"      // a token was created but not used yet
	PeeringEstablishing = "ESTABLISHING" // the secrets are exchanged, but there is no stream yet
	PeeringActive       = "ACTIVE"
	PeeringFailing      = "FAILING"
	PeeringDeleting     = "DELETING"   // deleted here; imported members are being removed
	PeeringTerminated   = "TERMINATED" // deleted by the other cluster
)

// Peering is a connection to another cluster.
type Peering struct {
	ID               string
	Name             string
	State            string
	Dialer           bool   // this cluster has used the token, and dials
	PeerID           string // at a dialer: the acceptor's ID of the peering
	ServerName       string
	ServerAddresses  []string
	ManualAddresses  []string
	CAPems           []string
	Meta             map[string]string
	RemoteDatacenter string
	StatusReason     string // why it is FAILING or TERMINATED
	StatusSince      time.Time
	DeletedAt        *time.Time
	CreatedRev       uint64
	ModifiedRev      uint64
}

// Addresses lists the addresses that a dialer tries: the operator's, or else the acceptor's.
func (p *Peering) Addresses() []string {
	if len(p.ManualAddresses) > 0 {
		return p.ManualAddresses
	}
	return p.ServerAddresses
}

// Ended reports whether the peering can no longer have a stream.
func (p *Peering) Ended() bool { return p.State == PeeringDeleting || p.State == PeeringTerminated }

// PeerMember is a member of another cluster.
type PeerMember struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	NodeID      uint64 `json:"nodeId"`
	RaftAddress string `json:"raftAddress"`
	APIAddress  string `json:"apiAddress"`
	Health      string `json:"health"` // "alive", "down", "left" or "unknown", as reported by its own cluster
}

// Size returns the length of the texts in bytes.
func (m *PeerMember) Size() int {
	return len(m.ID) + len(m.Name) + len(m.RaftAddress) + len(m.APIAddress) + len(m.Health)
}

const selectPeerings = `SELECT id, name, state, dialer, peer_id, server_name, server_addresses, manual_addresses,
	ca_pems, meta,
	remote_datacenter, status_reason, status_since, deleted_at, created_rev, modified_rev FROM peerings`

func scanPeering(rows *sql.Rows) (p Peering, err error) {
	var servers, manual, pems, meta, since string
	var deleted sql.NullString
	if err := rows.Scan(&p.ID, &p.Name, &p.State, &p.Dialer, &p.PeerID, &p.ServerName, &servers, &manual, &pems, &meta,
		&p.RemoteDatacenter, &p.StatusReason, &since, &deleted, &p.CreatedRev, &p.ModifiedRev); err != nil {
		return p, err
	}
	p.StatusSince, p.DeletedAt = parseTime(since), nullTime(deleted)
	for _, x := range []struct {
		text string
		into any
	}{{servers, &p.ServerAddresses}, {manual, &p.ManualAddresses}, {pems, &p.CAPems}, {meta, &p.Meta}} {
		if err := json.Unmarshal([]byte(x.text), x.into); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (v *View) peeringBy(query string, args ...any) (*Peering, error) {
	list, err := collect(v, scanPeering, query, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// PeeringByName returns one peering, or nil. Names are lower case.
func (v *View) PeeringByName(name string) (*Peering, error) {
	return v.peeringBy(selectPeerings+" WHERE name = ?", strings.ToLower(name))
}

// PeeringByID returns one peering by its ID, or nil.
func (v *View) PeeringByID(id string) (*Peering, error) {
	return v.peeringBy(selectPeerings+" WHERE id = ?", id)
}

func (v *View) peerings() ([]Peering, error) {
	return collect(v, scanPeering, selectPeerings+" ORDER BY name")
}

// List lists the peerings by name. Callers must not modify the list.
func (ps Peerings) List(ctx context.Context, c Consistency) ([]Peering, error) {
	return recall(ctx, ps.s, c, "peerings", []string{"peerings"}, (*View).peerings)
}

// ByName returns one peering by name, or nil. Callers must not modify it.
func (ps Peerings) ByName(ctx context.Context, c Consistency, name string) (*Peering, error) {
	list, err := ps.List(ctx, c)
	if err != nil {
		return nil, err
	}
	name = strings.ToLower(name)
	i := sort.Search(len(list), func(i int) bool { return list[i].Name >= name })
	if i == len(list) || list[i].Name != name {
		return nil, nil
	}
	return &list[i], nil
}

// ByID returns one peering by ID, or nil.
func (ps Peerings) ByID(ctx context.Context, c Consistency, id string) (*Peering, error) {
	list, err := ps.List(ctx, c)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(p Peering) bool { return p.ID == id }); i >= 0 {
		return &list[i], nil
	}
	return nil, nil
}

// Tables, for AwaitChange.
const (
	TablePeerings  = "peerings"
	TableAPITokens = "api_tokens"
	TableAPIKeys   = "api_keys"
)

// Members lists the members that another cluster exports, by name. Callers must not modify the list.
func (ps Peerings) Members(ctx context.Context, c Consistency, peeringID string) ([]PeerMember, error) {
	return recall(ctx, ps.s, c, "peer_members/"+peeringID, []string{"peer_members"}, func(v *View) ([]PeerMember, error) {
		return v.peerMembers(peeringID)
	})
}

func (v *View) peerMembers(peeringID string) ([]PeerMember, error) {
	return collect(v, func(rows *sql.Rows) (m PeerMember, err error) {
		return m, rows.Scan(&m.ID, &m.Name, &m.NodeID, &m.RaftAddress, &m.APIAddress, &m.Health)
	}, "SELECT id, name, raft_node_id, raft_address, api_address, health FROM peer_members "+
		"WHERE peering_id = ? ORDER BY name, id", peeringID)
}

const peeringAddresses = 16 // maximum number of addresses sent to a dialer; Raft servers come first

// PeeringAddresses lists the addresses for other clusters to dial: any member works; Raft servers come first.
func PeeringAddresses(members []Member) (list []string) {
	for _, raft := range []bool{true, false} {
		for i := range members {
			if m := &members[i]; (m.Role != RoleNone) == raft && len(list) < peeringAddresses {
				list = append(list, m.RaftAddress)
			}
		}
	}
	return list
}

func peeringObject(name string) string { return "peering/" + name }

// jsonText encodes a list or map for a JSON column; nil becomes none ("[]" or "{}").
func jsonText[T []string | map[string]string](v T, none string) (string, error) {
	if len(v) == 0 {
		return none, nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// putPeering writes the whole row of a peering and raises its revision.
func (t *Tx) putPeering(p *Peering) error {
	var texts [4]string
	var err error
	for i, list := range [][]string{p.ServerAddresses, p.ManualAddresses, p.CAPems} {
		if texts[i], err = jsonText(list, "[]"); err != nil {
			return err
		}
	}
	if texts[3], err = jsonText(p.Meta, "{}"); err != nil {
		return err
	}
	row, had := 0, 0
	for _, text := range texts {
		row += len(text)
	}
	if row >= largeRow && p.CreatedRev != 0 {
		if _, err := t.get(boundOfPeerings.sum()+" WHERE id = ?", []any{p.ID}, &had); err != nil {
			return err
		}
	}
	if err := t.boundBytes(&boundOfPeerings, "", had, row); err != nil {
		return err
	}
	p.ModifiedRev = t.Rev
	if p.CreatedRev == 0 {
		p.CreatedRev = t.Rev
		return t.exec(`INSERT INTO peerings (id, name, state, dialer, peer_id, server_name, server_addresses,
			manual_addresses, ca_pems, meta,
			remote_datacenter, status_reason, status_since, deleted_at, created_rev, modified_rev)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			p.ID, p.Name, p.State, p.Dialer, p.PeerID, p.ServerName, texts[0], texts[1], texts[2], texts[3],
			p.RemoteDatacenter, p.StatusReason, p.StatusSince, p.DeletedAt, p.CreatedRev, p.ModifiedRev)
	}
	return t.exec(`UPDATE peerings SET state = ?, peer_id = ?, server_name = ?, server_addresses = ?,
		manual_addresses = ?, ca_pems = ?, meta = ?,
		remote_datacenter = ?, status_reason = ?, status_since = ?, deleted_at = ?, modified_rev = ? WHERE id = ?`,
		p.State, p.PeerID, p.ServerName, texts[0], texts[1], texts[2], texts[3],
		p.RemoteDatacenter, p.StatusReason, p.StatusSince, p.DeletedAt, p.ModifiedRev, p.ID)
}

// turn sets the state and reason; StatusSince changes only with the state.
func (p *Peering) turn(state, reason string, now time.Time) {
	if p.State != state {
		p.StatusSince = now
	}
	p.State, p.StatusReason = state, sizes.Cut("peerings", "status_reason", reason)
}

// tombstoneKept is how long a disconnected cluster can still learn that its peering was deleted.
const tombstoneKept = 90 * 24 * time.Hour

// Tombstone is a peering deleted by a dialer, of which the acceptor does not know yet.
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

// bury writes the tombstone of a peering: the data needed to tell the other cluster that the peering was deleted.
func (t *Tx) bury(p *Peering, x peeringSecrets) error {
	addresses, err := jsonText(p.Addresses(), "[]")
	if err != nil {
		return err
	}
	pems, err := jsonText(p.CAPems, "[]")
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO peering_tombstones (id, name, dialer, peer_id, server_name, addresses, ca_pems,
		pending_hash, active_hash, sealed, dek_generation, deleted_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		p.ID, p.Name, p.Dialer, p.PeerID, p.ServerName, addresses, pems, x.pending, x.active, x.sealed,
		optional(x.generation), t.Now)
}

// Farewells lists the deletions that the acceptors do not know of yet.
func (ps Peerings) Farewells(ctx context.Context, c Consistency) ([]Tombstone, error) {
	return recall(ctx, ps.s, c, "farewells", []string{"peering_tombstones"}, func(v *View) ([]Tombstone, error) {
		return collect(v, func(rows *sql.Rows) (k Tombstone, err error) {
			var addresses, pems, deleted string
			var sealed []byte
			var generation uint64
			if err := rows.Scan(&k.ID, &k.Name, &k.PeerID, &k.ServerName, &addresses, &pems, &sealed, &generation,
				&deleted); err != nil {
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
		}, `SELECT id, name, peer_id, server_name, addresses, ca_pems, sealed, dek_generation, deleted_at
			FROM peering_tombstones
			WHERE dialer = 1 AND sealed IS NOT NULL ORDER BY id`)
	})
}

// FarewellSaid deletes the tombstone of a deletion that the acceptor knows. outcome goes into the audit.
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

// Prune deletes old tombstones.
func (ps Peerings) Prune(ctx context.Context, actor Actor) error {
	return ps.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM peering_tombstones WHERE deleted_at < ?", tx.Now.Add(-tombstoneKept))
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("peering.prune", "cluster", made("departures", uint64(n)))
	})
}

const newsShown = 4 // addresses or authorities of a peer in one audit row

// newsDetail describes, for the audit, a change that a peer's news have made. was is the state before.
func newsDetail(action, was string, p *Peering) string {
	switch action {
	case "peering.trust":
		var list []string
		for _, root := range p.CAPems[:min(len(p.CAPems), newsShown)] {
			list = append(list, fingerprintPEM(root))
		}
		return made("authorities", len(p.CAPems), "sha256", list)
	case "peering.addresses":
		return made("addresses", p.ServerAddresses[:min(len(p.ServerAddresses), newsShown)], "of", len(p.ServerAddresses))
	case "peering.active":
		return made("id", p.ID, "was", was, "datacenter", p.RemoteDatacenter)
	}
	return p.StatusReason
}
