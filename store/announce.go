package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/internal/addr"
)

// Announcement is a member's report about itself at its start.
type Announcement struct {
	NodeID        uint64
	RaftAddress   string
	APIAddress    string
	BinaryVersion string
	MaxSchema     int64
	Name          string `json:",omitempty"` // from its command line; empty: unchanged
	Mode          string `json:",omitempty"`
	Zone          string `json:",omitempty"` // empty: unchanged; NoZone: remove it from its zone

	// Claims reports whether a member is alive at an address; nil: nothing is known about any member.
	Claims func(nodeID uint64, address string) Claim `json:"-"`
	// Evidence proves that the hosts of new addresses belong to the member.
	Evidence HostEvidence `json:"-"`
}

// Claim is what the leader knows about a member whose address or name another member wants.
type Claim int

// The outcomes of Claims.
const (
	ClaimDead    Claim = iota // it does not answer, or is at another address
	ClaimUnknown              // the leader is too new to know
	ClaimAlive
)

// Announce updates a member's addresses, version, name, mode and zone; it writes nothing when they are unchanged. It
// rejects an address or a name that belongs to another live member.
func (ms Members) Announce(ctx context.Context, actor Actor, a Announcement) error {
	if err := a.check(); err != nil {
		return err
	}
	return ms.s.Write(ctx, actor, func(tx *Tx) error { return tx.announce(a) })
}

func (a *Announcement) check() error {
	for _, x := range []string{a.RaftAddress, a.APIAddress} {
		if err := addr.Check(x); err != nil {
			return refuse(Invalid, "the address cannot be used: %s", err)
		}
	}
	a.RaftAddress, a.APIAddress = addr.Canonical(a.RaftAddress), addr.Canonical(a.APIAddress)
	if a.Mode != "" && a.Mode != ModeFull && a.Mode != ModeReplicate {
		return refuse(Invalid, "the mode must be full or replicate")
	}
	if a.Zone != "" {
		return CheckZone(a.Zone)
	}
	return nil
}

func (t *Tx) announce(a Announcement) error {
	same, err := t.get(`SELECT 1 FROM members WHERE raft_node_id = ?1 AND raft_address = ?2 AND api_address = ?3
		AND binary_version = ?4 AND max_schema = ?5 AND (?6 = '' OR name = ?6) AND (?7 = '' OR mode = ?7)`,
		[]any{int64(a.NodeID), a.RaftAddress, a.APIAddress, a.BinaryVersion, a.MaxSchema, a.Name, a.Mode}, new(int))
	if err != nil {
		return err
	}
	back, err := t.comeBack(a.NodeID)
	if err != nil || same && !back && a.Zone == "" {
		return err
	}
	old, err := t.Member(a.NodeID)
	if err != nil || old == nil {
		return err
	}
	zone, err := t.zoneAfter(old, a.Zone)
	if err != nil || same && !back && zone == old.Zone {
		return err
	}
	m := old.movedTo(a.RaftAddress, a.APIAddress)
	m.BinaryVersion, m.MaxSchema = a.BinaryVersion, a.MaxSchema
	if a.Name != "" && a.Name != old.Name {
		if err := CheckMemberName(a.Name); err != nil {
			return err
		}
		m.Name = a.Name
	}
	if a.Mode != "" {
		m.Mode = a.Mode
	}
	moved := m.RaftAddress != old.RaftAddress || m.APIAddress != old.APIAddress
	notes, err := t.unique(&m, moved, m.Name != old.Name, a.claims)
	if err != nil {
		return err
	}
	if moved {
		if err := t.grantMoved(old, &m, a.Evidence); err != nil {
			return err
		}
	}
	if err := t.exec(`UPDATE members SET raft_address = ?, api_address = ?, advertise_addr = ?, binary_version = ?,
		max_schema = ?,
		name = ?, mode = ?, modified_rev = ? WHERE raft_node_id = ?`, m.RaftAddress, m.APIAddress, m.AdvertiseAddr,
		m.BinaryVersion,
		m.MaxSchema, m.Name, m.Mode, t.Rev, m.NodeID); err != nil {
		return err
	}
	if zone != old.Zone {
		if err := t.setZone(m.NodeID, zone); err != nil {
			return err
		}
	}
	m.Zone = zone
	return t.audit("member.announce", nodeObject(a.NodeID), strings.Join(append(m.news(old, back), notes...), "; "))
}

// news says for the audit what an announcement has changed.
func (m *Member) news(old *Member, back bool) []string {
	words := []string{m.RaftAddress, m.APIAddress, m.BinaryVersion}
	if back {
		words = append(words, "it had left")
	}
	if m.Name != old.Name {
		words = append(words, fmt.Sprintf("name %s instead of %s", m.Name, old.Name))
	}
	if m.Mode != old.Mode {
		words = append(words, fmt.Sprintf("mode %s instead of %s", m.Mode, old.Mode))
	}
	if m.Zone != old.Zone {
		words = append(words, fmt.Sprintf("zone %s instead of %s", cmp.Or(m.Zone, NoZone), cmp.Or(old.Zone, NoZone)))
	}
	return words
}

// leftSchema is the schema step since which members that have left are told from those that are down.
const leftSchema = 6

// SayGoodbye records that a member's process ends in order. Its next announcement takes that back. Under a schema
// without the column it does nothing.
func (ms Members) SayGoodbye(ctx context.Context, actor Actor, nodeID uint64) error {
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		if n, err := tx.SchemaVersion(); err != nil || n < leftSchema {
			return err
		}
		n, err := tx.execCount("UPDATE members SET left_at = ?, modified_rev = ? WHERE raft_node_id = ?",
			tx.Now, tx.Rev, int64(nodeID))
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("member.left", nodeObject(nodeID), "its process ends in order")
	})
}

// comeBack takes a member's goodbye back, and reports whether there was one.
func (t *Tx) comeBack(nodeID uint64) (bool, error) {
	if n, err := t.SchemaVersion(); err != nil || n < leftSchema {
		return false, err
	}
	back, err := t.get("SELECT 1 FROM members WHERE raft_node_id = ? AND left_at IS NOT NULL",
		[]any{int64(nodeID)}, new(int))
	if err != nil || !back {
		return false, err
	}
	return true, t.exec("UPDATE members SET left_at = NULL WHERE raft_node_id = ?", int64(nodeID))
}

func (a *Announcement) claims(nodeID uint64, _ Role, address string) Claim {
	if a.Claims == nil {
		return ClaimDead
	}
	return a.Claims(nodeID, address)
}

// claims converts the probes' state of a member. A member outside Raft with unknown state counts as dead: a member that
// joined by HTTP only never answers probes.
func (j *Joiner) claims(nodeID uint64, role Role, _ string) Claim {
	status := ""
	if j.Alive != nil {
		status = j.Alive(nodeID)
	}
	switch {
	case status == "alive":
		return ClaimAlive
	case status == "unknown" && role != RoleNone:
		return ClaimUnknown
	}
	return ClaimDead
}

// CheckMemberName rejects a name that could not be typed or displayed, or that could mean another member.
func CheckMemberName(name string) error {
	if name == "" || len(name) > 64 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) ||
		strings.TrimSpace(name) != name {
		return refuse(Invalid, "the name must be 1 to 64 bytes of UTF-8, without control characters or white space around it")
	}
	if _, err := strconv.ParseInt(name, 10, 64); err == nil {
		return refuse(Invalid, "the name must not be a whole number: %s means the member with that number", name)
	}
	return nil
}

// selectHolders finds the members other than ?1 with one of the addresses ?2 and ?3, if ?6, or with the name ?5, if ?4.
// Each part has an index: one WHERE with all of them would read every member for each join.
const selectHolders = `SELECT raft_node_id, raft_role, name, raft_address, api_address FROM members
	WHERE raft_node_id <> ?1 AND raft_node_id IN (
		SELECT raft_node_id FROM members WHERE ?4 AND name = ?5
		UNION ALL SELECT raft_node_id FROM members WHERE ?4 AND raft_role > ''
			AND rtrim(name, '.') = rtrim(?5, '.') COLLATE NOCASE
		UNION ALL SELECT raft_node_id FROM members WHERE ?6 AND raft_address IN (?2, ?3)
		UNION ALL SELECT raft_node_id FROM members WHERE ?6 AND api_address IN (?2, ?3))
	ORDER BY raft_role = '', raft_node_id LIMIT 100`

// unique rejects addresses and a name that another live member has. Names that differ only by case or a trailing dot
// are equal, as for host names. It returns warnings about dead members with the same address or name, which keep their
// rows.
func (t *Tx) unique(m *Member, addresses, name bool,
	claims func(uint64, Role, string) Claim) (notes []string, err error) {
	type holder struct {
		id              uint64
		role            Role
		name, raft, api string
	}
	if m.RaftAddress != "" && m.RaftAddress == m.APIAddress {
		return nil, refuse(Invalid, "the API and the cluster listener cannot share the address %s", m.RaftAddress)
	}
	if addresses {
		if err := t.reachable(m); err != nil {
			return nil, err
		}
	}
	rows, err := collect(&t.View, func(r *sql.Rows) (h holder, err error) {
		err = r.Scan(&h.id, (*string)(&h.role), &h.name, &h.raft, &h.api)
		return h, err
	}, selectHolders, int64(m.NodeID), m.RaftAddress, m.APIAddress, name, m.Name, addresses)
	if err != nil {
		return nil, err
	}
	for _, h := range rows {
		what, way := "the address "+m.RaftAddress, "give this machine another one with --raft, --api or --advertise"
		address := m.RaftAddress
		switch {
		case addresses && (h.raft == m.RaftAddress || h.api == m.RaftAddress):
		case addresses && (h.raft == m.APIAddress || h.api == m.APIAddress):
			what, address = "the address "+m.APIAddress, m.APIAddress
		default:
			what, way, address = "the name "+m.Name, "give this machine another one with --name", ""
		}
		switch claims(h.id, h.role, address) {
		case ClaimAlive:
			return nil, refuse(Conflict, "%s belongs to node %d (%s), which is alive: %s", what, h.id, h.name, way)
		case ClaimUnknown:
			return nil, refuse(Conflict,
				"%s belongs to node %d (%s), and it is not known yet whether that is alive: try again "+
					"in a few seconds, or %s", what, h.id, h.name, way)
		}
		notes = append(notes,
			fmt.Sprintf("node %d (%s), which does not answer, has %s too; if this machine has taken its place, "+
				"remove node %d by its number", h.id, h.name, what, h.id))
	}
	return notes[:min(len(notes), 3)], nil
}

// reachable rejects a loopback address of a member when this one is not on loopback: it would dial itself there.
func (t *Tx) reachable(m *Member) error {
	for _, x := range []struct{ field, address string }{
		{"the Raft address", m.RaftAddress}, {"the API address", m.APIAddress}} {
		if !addr.OnLoopback(x.address) {
			continue
		}
		self, err := t.Member(t.self)
		if err != nil || self == nil || addr.OnLoopback(self.RaftAddress) {
			return err
		}
		return refuse(Invalid, "%s %s is on loopback, and node %d at %s is not: give an address that it can dial",
			x.field, x.address, t.self, self.RaftAddress)
	}
	return nil
}

// freeName generates a name for a member without one.
func (t *Tx) freeName(nodeID uint64, uuid string) (string, error) {
	name := fmt.Sprintf("node-%d", nodeID)
	taken, err := t.get("SELECT 1 FROM members WHERE name = ?", []any{name}, new(int))
	if taken {
		name += "-" + uuid[len(uuid)-6:]
	}
	return name, err
}

// zonesSchema is the schema step that added zones.
const zonesSchema = 4

// NoZone in an announcement removes a member from its zone.
const NoZone = "none"

var zoneName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckZone rejects an invalid zone name: it must be at most 63 lower-case letters, digits, dots, underscores and
// dashes, with a letter or digit at both ends. NoZone passes.
func CheckZone(name string) error {
	if !zoneName.MatchString(name) {
		return refuse(Invalid, "the zone must be 1 to 63 lower-case letters, digits, dots, underscores or dashes, with a "+
			"letter or digit at both ends, not %.80q", name)
	}
	return nil
}

// addLater sets the fields of members that later schema steps added: zones, and the time they left.
func (v *View) addLater(list []Member) error {
	n, err := v.SchemaVersion()
	if err != nil || n < zonesSchema || len(list) == 0 {
		return err
	}
	query := "SELECT raft_node_id, zone, NULL FROM members WHERE zone <> ''"
	if n >= leftSchema {
		query = "SELECT raft_node_id, zone, left_at FROM members WHERE (zone <> '' OR left_at IS NOT NULL)"
	}
	type later struct {
		id   uint64
		zone string
		left sql.NullString
	}
	scan := func(r *sql.Rows) (x later, err error) {
		err = r.Scan(&x.id, &x.zone, &x.left)
		return x, err
	}
	first, last := int64(list[0].NodeID), int64(list[len(list)-1].NodeID)
	rows, err := collect(v, scan, query+" AND raft_node_id BETWEEN ? AND ? ORDER BY raft_node_id", min(first, last),
		max(first, last))
	if err != nil {
		return err
	}
	for i := range list {
		at, ok := slices.BinarySearchFunc(rows, list[i].NodeID,
			func(x later, id uint64) int { return cmp.Compare(x.id, id) })
		if ok {
			list[i].Zone, list[i].LeftAt = rows[at].zone, nullTime(rows[at].left)
		}
	}
	return nil
}

// zoneAfter returns a member's zone after an announcement of zone; empty keeps it. Without the schema step of zones it
// is empty.
func (t *Tx) zoneAfter(m *Member, zone string) (string, error) {
	n, err := t.SchemaVersion()
	switch {
	case err != nil || n < zonesSchema || zone == "":
		return m.Zone, err
	case zone == NoZone:
		return "", nil
	}
	return zone, nil
}

// setZone stores the zone of a member, if the schema has zones.
func (t *Tx) setZone(nodeID uint64, zone string) error {
	n, err := t.SchemaVersion()
	if err != nil || n < zonesSchema {
		return err
	}
	return t.exec("UPDATE members SET zone = ? WHERE raft_node_id = ?", zone, int64(nodeID))
}
