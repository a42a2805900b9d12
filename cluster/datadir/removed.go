package datadir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"muster/store"
)

// The directory of a removed member is marked, so that it is never used again as a part of the cluster: it is neither
// started nor the basis of a recovery, which would make a second cluster with the same identity.

const (
	removedFile = "removed.json"
)

// removedMark is the content of DIR/removed.json.
type removedMark struct {
	ClusterID string    `json:"clusterId"`
	NodeID    uint64    `json:"nodeId"`
	At        time.Time `json:"at"` // when this machine learned of it
}

// MarkRemoved marks this directory as that of a removed member.
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

// CheckRemoved returns ErrRemoved for the directory of a removed member: one that is marked, or whose replica shows the
// removal. The replica is read only while no process uses it.
func (d *Dir) CheckRemoved(n *Node) error {
	switch removed, err := d.removed(n); {
	case err != nil:
		return dirError(d.Path, err)
	case !removed:
		return nil
	}
	if err := d.MarkRemoved(n); err != nil {
		return err
	}
	return ErrRemoved
}

// removed reports whether the directory is marked, or its replica shows the removal.
func (d *Dir) removed(n *Node) (bool, error) {
	_, err := d.read(removedFile)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	removed, err := store.MirrorRemoved(d.file(MirrorFile), n.NodeID)
	return err == nil && removed, nil // the mirror is only a copy: without it the start continues
}

// ErrRemoved: the member was removed, and stops.
var ErrRemoved = errors.New("this node has been removed from the cluster; to join again, start with an empty data " +
	"directory and a new token")
