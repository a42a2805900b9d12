// Package api has the wire types of muster's own endpoints, shared by server and client. It has no behaviour.
package api

import "time"

// Status is one member's report about itself.
type Status struct {
	Version       string         `json:"version"`
	Revision      uint64         `json:"revision"` // of the cluster: raised once per committed change
	Initialized   bool           `json:"initialized"`
	Ready         bool           `json:"ready"`
	Reason        string         `json:"reason,omitempty"` // why it is not ready
	SchemaVersion int64          `json:"schemaVersion"`    // the newest that the member's binary knows
	Commit        string         `json:"commit"`
	Name          string         `json:"name"`
	Cluster       *ClusterStatus `json:"cluster,omitempty"`
	Notices       []string       `json:"notices,omitempty"` // what the operator should do now, a sentence each
	Storing       *Storing       `json:"storing,omitempty"`
	Disk          *Disk          `json:"disk,omitempty"`
	Raft          *RaftFiles     `json:"raft,omitempty"` // nil outside Raft
}

// RaftFiles is what a member has of Raft on its disk, as of a second ago at most.
type RaftFiles struct {
	Term          uint64     `json:"term"`
	LogIndex      uint64     `json:"logIndex"`    // last index in a finished segment or snapshot
	LogSegments   int        `json:"logSegments"` // finished ones
	LogBytes      int64      `json:"logBytes"`    // open segments are as large as they may become
	Bytes         int64      `json:"bytes"`       // with snapshots
	Snapshots     int        `json:"snapshots"`
	SnapshotIndex uint64     `json:"snapshotIndex"` // of the newest; 0 for none
	SnapshotAt    *time.Time `json:"snapshotAt,omitempty"`
	SyncMs        int64      `json:"syncMs"` // how long the last small write beside the log took, synced and read again
}

// ClusterStatus is a member's view of its cluster.
type ClusterStatus struct {
	Enabled              bool   `json:"enabled"`
	Role                 string `json:"role"` // "Leader", "Follower", or "Candidate" while it knows no leader
	NodeID               uint64 `json:"nodeId"`
	IsLeader             bool   `json:"isLeader"`
	LeaderNodeID         uint64 `json:"leaderNodeId"` // 0 when no leader is known
	AppliedIndex         uint64 `json:"appliedIndex"`
	Term                 uint64 `json:"term,omitempty"` // Raft's; 0 outside Raft
	ClusterID            string `json:"clusterId,omitempty"`
	LeaderAPIAddress     string `json:"leaderAPIAddress,omitempty"` // URL
	AppliedSchemaVersion int64  `json:"appliedSchemaVersion"`       // of the database
}

// Storing reports whether a member can write to its disk. It tests that every two seconds.
type Storing struct {
	OK         bool      `json:"ok"`
	Fault      string    `json:"fault,omitempty"`    // why it cannot, a clause of a sentence
	Since      time.Time `json:"since,omitzero"`     // of the fault
	LastWrite  time.Time `json:"lastWrite,omitzero"` // when a test write was last synced and read back
	WriteMs    int64     `json:"writeMs"`            // how long that took, in milliseconds
	FreeInodes uint64    `json:"freeInodes"`
	Inodes     uint64    `json:"inodes"` // 0 where the file system has no fixed number
}

// Disk is how full a member's disk is, in bytes.
type Disk struct {
	FreeBytes    uint64 `json:"freeBytes"`
	TotalBytes   uint64 `json:"totalBytes"`
	ReserveBytes uint64 `json:"reserveBytes"` // free space that the member keeps
	Low          bool   `json:"low"`          // the reserve is reached: leadership and vote move elsewhere
}
