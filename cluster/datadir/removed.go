package datadir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"muster/store"
)

// A directory whose member was removed is marked, so that it is never again taken for a part of the cluster: neither
// started nor made the start of a recovery, which would be a second cluster of the same identity.

const (
	removedFile = "removed.json"
)

// removedMark is the contents of DIR/removed.json.
type removedMark struct {
	ClusterID string    `json:"clusterId"`
	NodeID    uint64    `json:"nodeId"`
	At        time.Time `json:"at"` // when this machine learned of it
}

// MarkRemoved notes that this directory belongs to a removed member.
func (d *Dir) MarkRemoved(n *Node) error {
	if _, err := d.read(removedFile); err == nil {
		return nil
	}
	data, err := json.MarshalIndent(removedMark{n.ClusterID, n.NodeID, time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return err
	}
	return d.write(removedFile, append(data, '\n'), 0o644)
}

// CheckRemoved returns ErrRemoved for the directory of a removed member: one that is marked, or whose own replica says
// so. The replica is only looked into while no process uses it.
func (d *Dir) CheckRemoved(n *Node) error {
	if _, err := d.read(removedFile); err == nil {
		return ErrRemoved
	} else if !errors.Is(err, fs.ErrNotExist) {
		return dirError(d.Path, err)
	}
	if removed, err := store.MirrorRemoved(d.file(MirrorFile), n.NodeID); err != nil || !removed {
		return nil // the mirror is only a copy: it must not stand in the way
	}
	if err := d.MarkRemoved(n); err != nil {
		return err
	}
	return ErrRemoved
}

// ErrRemoved is why a member stops by itself.
var ErrRemoved = errors.New("this node has been removed from the cluster; to join again, start with an empty data " +
	"directory and a new token")
