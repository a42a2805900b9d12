package engine

import (
	"fmt"

	dqlite "github.com/canonical/go-dqlite/v3"
	"github.com/canonical/go-dqlite/v3/client"
)

// Entry names the last entry of a Raft log.
type Entry struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Before reports whether the log that ends with e is behind one that ends with o.
func (e Entry) Before(o Entry) bool { return e.Term < o.Term || e.Term == o.Term && e.Index < o.Index }

func (e Entry) String() string { return fmt.Sprintf("term %d, index %d", e.Term, e.Index) }

// LastEntry reads where the log in a Raft directory ends. No process may use the directory; open segments are closed by
// the reading, which changes nothing of what they hold.
func LastEntry(raftDir string) (Entry, error) {
	info, err := dqlite.ReadLastEntryInfo(raftDir)
	if err != nil {
		return Entry{}, fmt.Errorf("the Raft log cannot be read: %w", err)
	}
	return Entry{Term: info.Term, Index: info.Index}, nil
}

// Reconfigure forces a Raft configuration of just these voters upon a directory that no process uses. It is for a lost
// majority: once, on the most advanced survivor, whose directory then replaces those of the others (the procedure of
// go-dqlite's ReconfigureMembershipExt).
func Reconfigure(raftDir string, voters []uint64) error {
	var list []dqlite.NodeInfo
	for _, id := range voters {
		list = append(list, dqlite.NodeInfo{ID: id, Address: raftName(id), Role: client.Voter})
	}
	if err := dqlite.ReconfigureMembershipExt(raftDir, list); err != nil {
		return fmt.Errorf("the Raft configuration was not changed: %w", err)
	}
	return nil
}
