package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Modes of members.
const (
	ModeFull      = "full"      // may vote
	ModeReplicate = "replicate" // never votes
)

// Drain states.
const (
	DrainActive   = "active"
	DrainDraining = "draining"
	DrainDrained  = "drained"
)

// Member is a machine of the cluster. Its Raft role is the desired one; Store.Servers returns the actual ones.
type Member struct {
	NodeID         uint64            `json:"nodeId"`
	ID             string            `json:"id"` // UUID
	Name           string            `json:"name"`
	Mode           string            `json:"mode"`
	Zone           string            `json:"zone"` // empty: none
	Role           Role              `json:"role"`
	Pinned         bool              `json:"pinned"` // promoted by an operator
	RaftAddress    string            `json:"raftAddress"`
	APIAddress     string            `json:"apiAddress"` // host:port
	AdvertiseAddr  string            `json:"advertiseAddr"`
	OverlayPort    uint16            `json:"overlayPort"`
	WGPublicKey    string            `json:"wgPublicKey"`
	Recipient      string            `json:"recipient"` // age1…; empty when the member holds no keys
	BinaryVersion  string            `json:"binaryVersion"`
	MaxSchema      int64             `json:"maxSchema"`
	OS             string            `json:"os"`
	Arch           string            `json:"arch"`
	Resources      json.RawMessage   `json:"resources,omitempty"`
	Labels         map[string]string `json:"labels"`
	DrainState     string            `json:"drainState"`
	DrainUpdatedAt *time.Time        `json:"drainUpdatedAt,omitempty"`
	DrainGen       uint64            `json:"drainGeneration"`
	DrainDeadline  *time.Time        `json:"drainDeadline,omitempty"`
	HooksPending   string            `json:"hooksPending"` // "", "drain" or "resume"
	Hooks          []HookOutcome     `json:"hooks"`        // of the last drain or resume
	JoinedAt       time.Time         `json:"joinedAt"`
	LeftAt         *time.Time        `json:"leftAt,omitempty"` // time of its goodbye; nil since it has come back
	JoinTokenID    string            `json:"joinTokenId"`
	CertKey        string            `json:"certKey"` // SHA-256 of the public key in its transport certificate, lower hex
	OverlayIP      string            `json:"overlayIp"`
	SliceCIDR      string            `json:"sliceCidr"`
	CreatedRev     uint64            `json:"createdRev"`
	ModifiedRev    uint64            `json:"modifiedRev"`
}

// Hosts lists the hosts of a member's addresses, without duplicates.
func (m *Member) Hosts() []string {
	var list []string
	seen := map[string]bool{"": true}
	for _, a := range []string{m.APIAddress, m.RaftAddress, net.JoinHostPort(m.AdvertiseAddr, "0")} {
		host, _, err := net.SplitHostPort(a)
		if err == nil && !seen[host] {
			seen[host] = true
			list = append(list, host)
		}
	}
	return list
}

const selectMembers = `SELECT m.raft_node_id, m.id, m.name, m.mode, m.raft_role, m.pinned, m.raft_address,
	m.api_address, m.advertise_addr,
	m.overlay_port, m.wg_public_key, m.recipient, m.binary_version, m.max_schema, m.os, m.arch, m.resources, m.labels,
	m.drain_state, m.drain_updated_at, m.drain_generation, m.drain_deadline, m.hooks_pending, m.hooks_outcome,
	m.joined_at, m.join_token_id, m.cert_key, m.created_rev, m.modified_rev, h.slot, s.slot
	FROM members m
	LEFT JOIN overlay_allocations h ON h.raft_node_id = m.raft_node_id AND h.kind = 'host'
	LEFT JOIN overlay_allocations s ON s.raft_node_id = m.raft_node_id AND s.kind = 'slice'`

func memberScanner(p overlayPlan) func(*sql.Rows) (Member, error) {
	return func(rows *sql.Rows) (m Member, err error) {
		var recipient, drained, deadline, token sql.NullString
		var host, slice sql.NullInt64
		var labels, resources, joined, hooks string
		err = rows.Scan(&m.NodeID, &m.ID, &m.Name, &m.Mode, (*string)(&m.Role), &m.Pinned, &m.RaftAddress, &m.APIAddress,
			&m.AdvertiseAddr,
			&m.OverlayPort, &m.WGPublicKey, &recipient, &m.BinaryVersion, &m.MaxSchema, &m.OS, &m.Arch, &resources, &labels,
			&m.DrainState, &drained, &m.DrainGen, &deadline, &m.HooksPending, &hooks, &joined, &token, &m.CertKey,
			&m.CreatedRev, &m.ModifiedRev, &host, &slice)
		if err != nil {
			return m, err
		}
		m.Recipient, m.JoinTokenID, m.DrainUpdatedAt, m.JoinedAt = recipient.String, token.String, nullTime(drained),
			parseTime(joined)
		m.DrainDeadline, m.Resources = nullTime(deadline), json.RawMessage(resources)
		if hooks != "[]" {
			if err := json.Unmarshal([]byte(hooks), &m.Hooks); err != nil {
				return m, err
			}
		}
		if host.Valid {
			m.OverlayIP = p.host(uint64(host.Int64)).String()
		}
		if slice.Valid {
			m.SliceCIDR = p.slice(uint64(slice.Int64)).String()
		}
		if labels == "{}" {
			return m, nil
		}
		return m, json.Unmarshal([]byte(labels), &m.Labels)
	}
}

// Members returns all members by node id.
func (v *View) Members() ([]Member, error) {
	p, err := v.overlayPlan()
	if err != nil {
		return nil, err
	}
	list, err := collect(v, memberScanner(p), selectMembers+" ORDER BY m.raft_node_id")
	if err != nil {
		return nil, err
	}
	return list, v.addLater(list)
}

// Member returns one member, or nil.
func (v *View) Member(nodeID uint64) (*Member, error) {
	return v.memberBy(selectMembers+" WHERE m.raft_node_id = ?", int64(nodeID))
}

func (v *View) memberBy(query string, args ...any) (*Member, error) {
	list, err := v.membersBy(query, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func (v *View) membersBy(query string, args ...any) ([]Member, error) {
	p, err := v.overlayPlan()
	if err != nil {
		return nil, err
	}
	list, err := collect(v, memberScanner(p), query, args...)
	if err != nil {
		return nil, err
	}
	return list, v.addLater(list)
}

var memberTables = []string{"members", "overlay_allocations"}

// List lists the members by node id. Callers must not modify the list.
func (ms Members) List(ctx context.Context, c Consistency) ([]Member, error) {
	return recall(ctx, ms.s, c, "members", memberTables, (*View).Members)
}

// IDs lists the members' node ids. Callers must not modify the list.
func (ms Members) IDs(ctx context.Context, c Consistency) ([]uint64, error) {
	return recall(ctx, ms.s, c, "member-ids", []string{"members"}, func(v *View) ([]uint64, error) {
		return collect(v, func(rows *sql.Rows) (id uint64, err error) {
			err = rows.Scan(&id)
			return id, err
		}, "SELECT raft_node_id FROM members ORDER BY raft_node_id")
	})
}

func (t *Tx) insertMember(m *Member, g hostGrants) (err error) {
	labels, err := json.Marshal(m.Labels)
	if err != nil {
		return err
	}
	if m.Labels == nil {
		labels = []byte("{}")
	}
	resources := string(m.Resources)
	if resources == "" {
		resources = "{}"
	}
	m.JoinedAt, m.CreatedRev, m.ModifiedRev = t.Now, t.Rev, t.Rev
	args := []any{m.NodeID, m.ID, m.Name, m.Mode, m.Role, m.RaftAddress, m.APIAddress, m.AdvertiseAddr, m.OverlayPort,
		m.WGPublicKey, optional(m.Recipient), m.BinaryVersion, m.MaxSchema, m.OS, m.Arch, resources, string(labels),
		m.JoinedAt, optional(m.JoinTokenID), m.CertKey, t.Rev, t.Rev}
	hosts, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := t.boundBytes(&boundOfMembers, "", 0, len(resources)+len(labels)); err != nil {
		return err
	}
	schema, err := t.SchemaVersion()
	if err != nil {
		return err
	}
	if schema < hostsSchema {
		err = t.exec(`INSERT INTO members (raft_node_id, id, name, mode, raft_role, raft_address, api_address,
			advertise_addr, overlay_port,
			wg_public_key, recipient, binary_version, max_schema, os, arch, resources, labels, joined_at, join_token_id,
			cert_key, created_rev,
			modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, args...)
	} else {
		err = t.exec(`INSERT INTO members (raft_node_id, id, name, mode, raft_role, raft_address, api_address,
			advertise_addr, overlay_port,
			wg_public_key, recipient, binary_version, max_schema, os, arch, resources, labels, joined_at, join_token_id,
			cert_key, created_rev,
			modified_rev, hosts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, append(args,
			string(hosts))...)
	}
	if err != nil {
		return err
	}
	m.OverlayIP, m.SliceCIDR, err = t.allocateOverlay(m.NodeID)
	return err
}

// RoleChange is autopilot's decision about the role of one member.
type RoleChange struct {
	NodeID uint64
	Role   Role
	Reason string
}

// SetRoles records the desired Raft roles of members; the reconcile loop applies them.
func (ms Members) SetRoles(ctx context.Context, actor Actor, changes []RoleChange) error {
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		for _, c := range changes {
			n, err := tx.execCount("UPDATE members SET raft_role = ?, modified_rev = ? "+
				"WHERE raft_node_id = ? AND raft_role <> ?",
				c.Role, tx.Rev, c.NodeID, c.Role)
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			role := string(c.Role)
			if role == "" {
				role = "member"
			}
			if err := tx.audit("member.role", nodeObject(c.NodeID), role+": "+c.Reason); err != nil {
				return err
			}
		}
		return nil
	})
}

// Get returns one member, or nil.
func (ms Members) Get(ctx context.Context, c Consistency, nodeID uint64) (m *Member, err error) {
	err = ms.s.Read(ctx, c, func(v *View) error {
		m, err = v.Member(nodeID)
		return err
	})
	return m, err
}

// Raft lists the members whose desired role is that of a Raft server. Callers must not modify the list.
func (ms Members) Raft(ctx context.Context, c Consistency) ([]Member, error) {
	return recall(ctx, ms.s, c, "raft-members", memberTables, func(v *View) ([]Member, error) {
		return v.membersBy(selectMembers + " WHERE m.raft_role <> '' ORDER BY m.raft_node_id")
	})
}

// Others lists at most limit members that are not Raft servers. Callers must not modify the list.
func (ms Members) Others(ctx context.Context, c Consistency, limit int) ([]Member, error) {
	return recall(ctx, ms.s, c, fmt.Sprintf("other-members/%d", limit), memberTables, func(v *View) ([]Member, error) {
		return v.membersBy(selectMembers+" WHERE m.raft_role = '' ORDER BY m.raft_node_id LIMIT ?", int64(limit))
	})
}

// ErrNotMember matches errors about a node that is not, or no longer, a member.
var ErrNotMember = errors.New("not a current cluster member")

// ErrLeftOut means that a recovery left this member out.
var ErrLeftOut = errors.New("this member was left out when the cluster was recovered, and its log is not that of " +
	"the cluster any more: stop it, and let the machine join with an empty data directory and a new token")

// NotMember returns the error for a node that is not a member. removed means that it was removed, which is final.
func NotMember(nodeID uint64, removed bool) error { return &goneError{nodeID, removed} }

// goneError is the error for a node that must not be talked to.
type goneError struct {
	nodeID  uint64
	removed bool
}

func (e *goneError) Error() string {
	return fmt.Sprintf("node-id %d is not a current cluster member", e.nodeID)
}

func (e *goneError) Is(target error) bool { return target == ErrNotMember }

// WasRemoved reports whether an error of Fence means that the node was removed. That is final: ids are never reused.
func WasRemoved(err error) bool {
	var gone *goneError
	return errors.As(err, &gone) && gone.removed
}

// Fence returns an error for a node that must not be talked to: ErrNotMember, or another error when membership cannot
// be read now. The leader accepts members only. Other members, whose replica may be slightly old, accept every node
// that has not been removed. Before the first replica every node passes.
func (ms Members) Fence(ctx context.Context, nodeID uint64) error {
	type standing struct{ known, removed, leftOut bool }
	key := "fence/" + strconv.FormatUint(nodeID, 10)
	tables := []string{"members", "removed_members", "settings"}
	is, err := recall(ctx, ms.s, AsLeader, key, tables, func(v *View) (is standing, err error) {
		is.known, err = v.get("SELECT 1 FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, new(int))
		if err == nil && !is.known {
			is.removed, err = v.removed(nodeID)
		} else if err == nil {
			is.leftOut, err = v.isLeftOut(nodeID)
		}
		return is, err
	})
	if err == nil {
		switch {
		case !is.known:
			return &goneError{nodeID, is.removed}
		case is.leftOut:
			return ErrLeftOut
		}
		return nil
	}
	err = ms.s.Read(ctx, Stale, func(v *View) (err error) {
		if is.removed, err = v.removed(nodeID); err == nil {
			is.leftOut, err = v.isLeftOut(nodeID)
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("whether node-id %d is a member cannot be read: %w", nodeID, err)
	case is.removed:
		return &goneError{nodeID, true}
	case is.leftOut:
		return ErrLeftOut
	}
	return nil
}

func (v *View) removed(nodeID uint64) (bool, error) {
	return v.get("SELECT 1 FROM removed_members WHERE raft_node_id = ?", []any{int64(nodeID)}, new(int))
}

// CertKey returns the SHA-256 of the public key in a member's transport certificates, in lower hex, from the leader's
// working copy or the local replica; "" when it is not known.
func (ms Members) CertKey(ctx context.Context, nodeID uint64) (key string) {
	find := func(v *View) error {
		_, err := v.get("SELECT cert_key FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, &key)
		return err
	}
	if ms.s.Read(ctx, AsLeader, find) != nil && ms.s.Read(ctx, Stale, find) != nil {
		return ""
	}
	return key
}

// ConfirmedFence returns a node's membership, confirmed by a majority after the call began. It blocks for at most a
// second and returns ErrNotLeader on members that do not lead.
func (ms Members) ConfirmedFence(ctx context.Context, nodeID uint64) (member, removed bool, err error) {
	err = ms.s.Read(ctx, Linearisable, func(v *View) (err error) {
		if member, err = v.get("SELECT 1 FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, new(int)); err == nil &&
			!member {
			removed, err = v.removed(nodeID)
		}
		return err
	})
	return member, removed, err
}

// RaftAddress returns the address of a member's cluster listener, from the leader's working copy or the local replica.
func (ms Members) RaftAddress(ctx context.Context, nodeID uint64) (address string, ok bool) {
	find := func(v *View) (err error) {
		ok, err = v.get("SELECT raft_address FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, &address)
		return err
	}
	err := ms.s.Read(ctx, AsLeader, find)
	if err != nil {
		err = ms.s.Read(ctx, Stale, find)
	}
	return address, err == nil && ok
}
