package datadir

import (
	"errors"
	"fmt"
	"io/fs"

	"muster/store"
)

// CheckLog rejects the directory of a voter whose Raft log is missing, for example after a deletion or an unmounted
// disk. Without its log the member would forget what it has confirmed and for whom it has voted: committed entries
// could be lost, and two leaders elected in one term. Its replica, beside the log, shows that it votes. A stand-by
// receives everything again.
func (d *Dir) CheckLog(n *Node) error {
	role, err := store.MirrorRole(d.file(MirrorFile), n.NodeID)
	if err != nil || role != store.RoleVoter {
		return nil // the mirror is only a copy: without it the start continues
	}
	dir := d.file(RaftDir)
	what := ""
	files, err := store.InspectRaft(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = "the Raft log of this member is gone: there is no " + dir
	case err != nil:
		return nil // dqlite reports it better
	case files.Segments+files.Open+files.Snapshots == 0:
		what = "the Raft log of this member is gone: nothing is in " + dir
	default:
		lost := store.LostVotes(dir)
		if lost == "" {
			return nil
		}
		what = "the term and the vote of this member are gone: " + lost + " in " + dir
	}
	return fmt.Errorf("%s. It votes, and would forget what it has confirmed: put the files back if they were moved; "+
		"else run \"muster member remove %d --force\" on another member, and join with an empty directory", what, n.NodeID)
}
