package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"muster/certs"
	"muster/store/foreign"
	"muster/store/sizes"
)

// MirrorMembers reads cluster and members from the mirror of a stopped member.
func MirrorMembers(path string) (Cluster, []Member, error) {
	o, err := openFile(path)
	if err != nil {
		return Cluster{}, nil, err
	}
	defer o.Close()
	v := viewOf(o)
	c, _, err := v.Cluster()
	if err != nil {
		return c, nil, err
	}
	members, err := v.Members()
	return c, members, err
}

// MirrorRemoved reports whether a node was removed, from the mirror of a stopped member.
func MirrorRemoved(path string, nodeID uint64) (removed bool, err error) {
	o, err := openFile(path)
	if err != nil {
		return false, err
	}
	defer o.Close()
	return (viewOf(o)).removed(nodeID)
}

// MirrorRole returns the desired role of a member from the mirror of a stopped member; RoleNone for an unknown one.
func MirrorRole(path string, nodeID uint64) (Role, error) {
	o, err := openFile(path)
	if err != nil {
		return RoleNone, err
	}
	defer o.Close()
	var role Role
	_, err = viewOf(o).get("SELECT raft_role FROM members WHERE raft_node_id = ?", []any{int64(nodeID)},
		(*string)(&role))
	return role, err
}

// MirrorCertKey is Members.CertKey from the mirror of a stopped member.
func MirrorCertKey(path string, nodeID uint64) (key string, err error) {
	o, err := openFile(path)
	if err != nil {
		return "", err
	}
	defer o.Close()
	_, err = (viewOf(o)).get("SELECT cert_key FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, &key)
	return key, err
}

// MirrorSchema returns the schema version of the mirror of a stopped member.
func MirrorSchema(path string) (int64, error) {
	o, err := openFile(path)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	return viewOf(o).SchemaVersion()
}

// CheckMirror checks the integrity of a member's mirror, including the rules of its schema, and returns the schema's
// version.
func CheckMirror(path string) (schema int64, err error) {
	o, err := openFile(path)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	v := viewOf(o)
	var text string
	if _, err := v.get("PRAGMA integrity_check(1)", nil, &text); err != nil {
		return 0, err
	}
	if text != "ok" {
		return 0, fmt.Errorf("the database is damaged: %s", text)
	}
	if schema, err = v.SchemaVersion(); err != nil || schema > LatestSchema() { // a newer one has rules unknown here
		return schema, err
	}
	return schema, v.checkRules(schema)
}

// checkRules returns an error when a row breaks a CHECK constraint of a schema. SQLite's own check skips them in a file
// that is opened for reading.
func (v *View) checkRules(schema int64) error {
	rules, err := foreign.RulesAt(context.Background(), schema)
	if err != nil {
		return err
	}
	for i := range rules {
		var number string
		broken, err := v.get(rules[i].Query, nil, &number)
		if err != nil {
			return err
		}
		if broken {
			why, err := rules[i].Broken(number)
			return cmp.Or(err, fmt.Errorf("the database is damaged: %s", why))
		}
	}
	return nil
}

// What a recovery leaves in the settings: its id, when it came into effect, and the Raft servers that recoveries have
// left out, a list of numbers.
const (
	settingRecovery       = "recovery"
	settingRecoveredSince = "recovered_since"
	settingLeftOut        = "recovery_left_out"
)

// RecoveredSince returns when the cluster first had a leader after its last recovery, as an id that grows with time
// (NewID), or "". Where a recovery was applied on two machines it differs, and its order says which of the two clusters
// came first.
func (ms Members) RecoveredSince(ctx context.Context, c Consistency) (string, error) {
	return recall(ctx, ms.s, c, "recovered-since", []string{"settings"}, func(v *View) (id string, err error) {
		d, err := v.document(settingRecoveredSince)
		if err == nil && len(d.Value) > 0 {
			err = json.Unmarshal(d.Value, &id)
		}
		return id, err
	})
}

// LeftOut returns the members that recoveries have left out. Their logs have gone other ways: they are talked to no
// more. Callers must not modify the list.
func (ms Members) LeftOut(ctx context.Context, c Consistency) ([]uint64, error) {
	return recall(ctx, ms.s, c, "left-out", []string{"settings"}, (*View).leftOut)
}

func (v *View) leftOut() (list []uint64, err error) {
	d, err := v.document(settingLeftOut)
	if err == nil && len(d.Value) > 0 {
		err = json.Unmarshal(d.Value, &list)
	}
	return list, err
}

func (v *View) isLeftOut(nodeID uint64) (bool, error) {
	list, err := v.leftOut()
	return slices.Contains(list, nodeID), err
}

// MirrorLeftOut returns the Raft servers that a member's mirror knows and that are not among the voters of a recovery.
func MirrorLeftOut(path string, voters []uint64) (list []uint64, err error) {
	_, members, err := MirrorMembers(path)
	for i := range members {
		if m := &members[i]; m.Role != RoleNone && !slices.Contains(voters, m.NodeID) {
			list = append(list, m.NodeID)
		}
	}
	return list, err
}

// SettleRecovery makes the members table agree with the Raft configuration that a recovery forced: members that are no
// longer Raft servers lose their roles, keep their rows, and count as left out from then on. It does so once per
// recovery.
func (ms Members) SettleRecovery(ctx context.Context, actor Actor, id string) error {
	servers, err := ms.s.RefreshServers(ctx)
	if err != nil {
		return err
	}
	roles := map[uint64]Role{}
	for _, v := range servers {
		roles[v.NodeID] = v.Role
	}
	value, err := json.Marshal(id)
	if err != nil {
		return err
	}
	since, err := json.Marshal(NewID())
	if err != nil {
		return err
	}
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		last, err := tx.document(settingRecovery)
		if err != nil || string(last.Value) == string(value) {
			return err
		}
		members, err := tx.Members()
		if err != nil {
			return err
		}
		lost := 0
		out, err := tx.leftOut()
		if err != nil {
			return err
		}
		for i := range members {
			m := &members[i]
			if m.Role == roles[m.NodeID] {
				continue
			}
			if roles[m.NodeID] == RoleNone {
				lost++
				out = append(out, m.NodeID)
			}
			if err := tx.exec("UPDATE members SET raft_role = ?, pinned = 0, modified_rev = ? WHERE raft_node_id = ?",
				roles[m.NodeID], tx.Rev, m.NodeID); err != nil {
				return err
			}
		}
		list, err := json.Marshal(slices.Compact(slices.Sorted(slices.Values(out))))
		if err != nil {
			return err
		}
		for _, x := range [][2]string{{settingRecovery, string(value)}, {settingRecoveredSince, string(since)},
			{settingLeftOut, string(list)}} {
			if err := tx.exec(putSetting, x[0], x[1], tx.Rev); err != nil {
				return err
			}
		}
		return tx.audit("cluster.recover", "cluster", fmt.Sprintf("recovery %s: %d members are no longer Raft servers", id,
			lost))
	})
}

// FoundingSettings are the settings that are fixed when a cluster is founded.
type FoundingSettings struct {
	Datacenter, OverlayCIDR, OverlaySlice string
}

// MirrorFounding reads them from the mirror of a stopped member.
func MirrorFounding(path string) (f FoundingSettings, err error) {
	o, err := openFile(path)
	if err != nil {
		return f, err
	}
	defer o.Close()
	v := viewOf(o)
	for name, into := range map[string]*string{settingDatacenter: &f.Datacenter, settingOverlayCIDR: &f.OverlayCIDR,
		settingSliceBits: &f.OverlaySlice} {
		if *into, err = v.setting(name); err != nil {
			return f, err
		}
	}
	if f.Datacenter == "" {
		f.Datacenter = DefaultDatacenter
	}
	return f, nil
}

// Refounding turns the state of an archive into the state of a cluster of one new member that continues the old
// cluster: same cluster id, authorities and contents. The old members are removed: their ids and keys are refused, and
// the keys that they knew are replaced.
type Refounding struct {
	ClusterID string
	NodeID    uint64 // of the new member, never used before
	Revision  uint64 // of the archive
	Issuers   map[certs.Kind]Issuer

	x    *scratch
	deks map[uint64]certs.DEK
}

// OpenRefounding opens a copy of an archive's state with the identity of an old member or of a recipient of the
// archive.
func OpenRefounding(ctx context.Context, a *Archive, identities []*age.X25519Identity) (r *Refounding, err error) {
	r = &Refounding{Issuers: map[certs.Kind]Issuer{}}
	if r.deks, err = a.Unlock(ctx, identities...); err != nil {
		return nil, err
	}
	if r.x, err = openScratch(ctx, a, LatestSchema()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.x.close()
		}
	}()
	v := view(r.x.s.View(time.Time{}))
	c, _, err := v.Cluster()
	if err != nil {
		return nil, err
	}
	r.ClusterID, r.Revision = c.ID, c.Revision
	if _, err := v.get(`SELECT 1 + max((SELECT value FROM sequences WHERE name = 'raft_node_id'),
		(SELECT coalesce(max(raft_node_id), 0) FROM members), (SELECT coalesce(max(raft_node_id), 0)
		FROM removed_members))`, nil, &r.NodeID); err != nil {
		return nil, err
	}
	ring := &keyring{deks: r.deks}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		issuer, err := v.issuer(ring, kind)
		if errors.Is(err, errNoKey) {
			return nil, errors.New("the archive cannot be opened with this identity: give the node.key of a member that it " +
				"names, or the identity that it was saved for")
		}
		if err != nil {
			return nil, err
		}
		r.Issuers[kind] = issuer
	}
	return r, nil
}

// Close releases the copy, with or without a Write.
func (r *Refounding) Close() { r.x.close() }

// Refounder is the only member of the new cluster.
type Refounder struct {
	Member       Member
	Certificates []Certificate
	Rotation     DEKRotation // without wraps: Write wraps it for the only member
	AdminTokenID string
	AdminHash    string
}

// Write changes the state and writes it to a file.
func (r *Refounding) Write(f Refounder, now time.Time, path string) error {
	actor := Actor{Name: "muster", NodeID: r.NodeID, RequestID: newRequestID()}
	t := newTx(r.x.s.View(now).Offline(r.Revision+1, sizes.CheckStatement), actor)
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := t.execAll(r.leaveMembers(t.Rev, now)); err != nil {
		return err
	}
	if err := t.insertMember(&f.Member, hostGrants{Proven: canonicalHosts(&f.Member)}); err != nil {
		return err
	}
	for _, c := range f.Certificates {
		if err := t.insertCertificate(c); err != nil {
			return err
		}
	}
	generation, err := t.rotateDEK(&f.Rotation, "founded from a backup")
	if err != nil {
		return err
	}
	r.deks[generation] = f.Rotation.DEK
	if err := reseal(t, r.deks, f.Rotation.DEK, generation); err != nil {
		return err
	}
	if err := t.exec("UPDATE dek_generations SET state = 'retired' WHERE state = 're-encrypting'"); err != nil {
		return err
	}
	scopes, err := json.Marshal([]string{ScopeManagement})
	if err != nil {
		return err
	}
	if err := t.exec(insertAPIToken, f.AdminTokenID, "admin", f.AdminHash, string(scopes), "muster", now, nil,
		t.Rev); err != nil {
		return err
	}
	if err := t.audit("cluster.refound", "cluster/"+r.ClusterID,
		fmt.Sprintf("from revision %d, as node %d", r.Revision, r.NodeID)); err != nil {
		return err
	}
	if err := t.exec("COMMIT"); err != nil {
		return err
	}
	r.x.close()
	return os.Rename(r.x.path, path)
}

// leaveMembers turns the members of the old cluster into removed ones and ends what they were in the middle of.
func (r *Refounding) leaveMembers(rev uint64, now time.Time) []statement {
	return []statement{
		{query: "UPDATE cluster SET revision = ?, batch_id = ?, leader_node_id = ?",
			args: []any{rev, uuid.NewString(), r.NodeID}},
		{query: "INSERT INTO removed_members (raft_node_id, id, name, recipient, removed_at, " +
			"removed_rev) SELECT raft_node_id, id, name, recipient, ?, ? FROM members", args: []any{now, rev}},
		{query: "DELETE FROM members"},
		{query: "DELETE FROM unhealthy_members"},
		{query: "DELETE FROM leases"},
		{query: "DELETE FROM idempotency"},
		{query: "DELETE FROM dek_wraps"},
		{query: "UPDATE operations SET state = 'done', updated_at = ?, modified_rev = ? WHERE state = 'running'",
			args: []any{now, rev}},
		{query: "UPDATE overlay_allocations SET raft_node_id = NULL, released_at = ? WHERE raft_node_id IS NOT NULL",
			args: []any{now}},
		{query: "UPDATE certificates SET revoked_at = ? WHERE raft_node_id IS NOT NULL AND revoked_at IS NULL",
			args: []any{now}},
		{query: updateSequence, args: []any{r.NodeID, "raft_node_id"}},
	}
}
