package store

import (
	"context"
	"encoding/json"
	"fmt"
)

// MirrorMembers reads cluster and members from the mirror of a member that does not run.
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

// MirrorRemoved reports whether the mirror of a member that does not run says that a node was removed.
func MirrorRemoved(path string, nodeID uint64) (removed bool, err error) {
	o, err := openFile(path)
	if err != nil {
		return false, err
	}
	defer o.Close()
	return (viewOf(o)).removed(nodeID)
}

// MirrorCertKey is Store.CertKey from the mirror of a member that does not run.
func MirrorCertKey(path string, nodeID uint64) (key string, err error) {
	o, err := openFile(path)
	if err != nil {
		return "", err
	}
	defer o.Close()
	_, err = (viewOf(o)).get("SELECT cert_key FROM members WHERE raft_node_id = ?", []any{int64(nodeID)}, &key)
	return key, err
}

// CheckMirror looks for damage inside the mirror of a member.
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
	return v.SchemaVersion()
}

const settingRecovery = "recovery"

// SettleRecovery makes the members table agree with a Raft configuration that was forced by a recovery: members that
// are no Raft servers any more keep their rows and lose their roles. It does so once for each recovery.
func (s *Store) SettleRecovery(ctx context.Context, actor Actor, id string) error {
	servers, err := s.RefreshServers(ctx)
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
	return s.Write(ctx, actor, func(tx *Tx) error {
		last, err := tx.document(settingRecovery)
		if err != nil || string(last.Value) == string(value) {
			return err
		}
		members, err := tx.Members()
		if err != nil {
			return err
		}
		lost := 0
		for i := range members {
			m := &members[i]
			if m.Role == roles[m.NodeID] {
				continue
			}
			if roles[m.NodeID] == RoleNone {
				lost++
			}
			if err := tx.exec("UPDATE members SET raft_role = ?, pinned = 0, modified_rev = ? WHERE raft_node_id = ?", roles[m.NodeID], tx.Rev, m.NodeID); err != nil {
				return err
			}
		}
		if err := tx.exec("INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value, modified_rev = excluded.modified_rev",
			settingRecovery, string(value), tx.Rev); err != nil {
			return err
		}
		return tx.audit("cluster.recover", "cluster", fmt.Sprintf("recovery %s: %d members are no Raft servers any more", id, lost))
	})
}

// FoundingSettings is what is fixed when a cluster is founded.
type FoundingSettings struct {
	Datacenter, OverlayCIDR, OverlaySlice string
}

// MirrorFounding reads it from a member's mirror.
func MirrorFounding(path string) (f FoundingSettings, err error) {
	o, err := openFile(path)
	if err != nil {
		return f, err
	}
	defer o.Close()
	v := viewOf(o)
	for name, into := range map[string]*string{settingDatacenter: &f.Datacenter, settingOverlayCIDR: &f.OverlayCIDR, settingSliceBits: &f.OverlaySlice} {
		if *into, err = v.setting(name); err != nil {
			return f, err
		}
	}
	if f.Datacenter == "" {
		f.Datacenter = DefaultDatacenter
	}
	return f, nil
}
