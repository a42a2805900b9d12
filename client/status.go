package client

import (
	"context"
	"time"
)

// Status is what one member says about itself.
type Status struct {
	Version       string         `json:"version"`
	Revision      uint64         `json:"revision"` // of the cluster: raised once per committed change
	Initialized   bool           `json:"initialized"`
	Ready         bool           `json:"ready"`
	Reason        string         `json:"reason,omitempty"` // why it is not ready
	SchemaVersion int            `json:"schemaVersion"`
	Commit        string         `json:"commit,omitempty"`
	Name          string         `json:"name,omitempty"`
	Notices       []string       `json:"notices,omitempty"` // what the operator has to do now, a sentence each
	Storing       *Storing       `json:"storing,omitempty"`
	Disk          *Disk          `json:"disk,omitempty"`
	Cluster       *ClusterStatus `json:"cluster,omitempty"` // nil before the member belongs to a cluster
}

// Storing tells whether a member can store, as it finds out by writing to its disk every two seconds.
type Storing struct {
	OK         bool      `json:"ok"`
	Fault      string    `json:"fault,omitempty"`    // why it cannot, a clause of a sentence
	Since      time.Time `json:"since,omitzero"`     // of the fault
	LastWrite  time.Time `json:"lastWrite,omitzero"` // when a write was last on the disk
	WriteMs    int64     `json:"writeMs"`            // how long that took, in milliseconds
	FreeInodes uint64    `json:"freeInodes"`
	Inodes     uint64    `json:"inodes"` // 0 where the file system has no fixed number
}

// Disk tells how full a member's disk is, in bytes.
type Disk struct {
	FreeBytes    uint64 `json:"freeBytes"`
	TotalBytes   uint64 `json:"totalBytes"`
	ReserveBytes uint64 `json:"reserveBytes"` // what the member keeps
	Low          bool   `json:"low"`          // that is reached: leadership and vote go elsewhere
}

// ClusterStatus is a member's view of its cluster.
type ClusterStatus struct {
	Enabled          bool   `json:"enabled"`
	Role             string `json:"role"` // "Leader" or "Follower"
	NodeID           uint64 `json:"nodeId"`
	IsLeader         bool   `json:"isLeader"`
	LeaderNodeID     uint64 `json:"leaderNodeId"` // 0 when no leader is known
	AppliedIndex     uint64 `json:"appliedIndex"`
	ClusterID        string `json:"clusterId,omitempty"`
	LeaderAPIAddress string `json:"leaderAPIAddress,omitempty"` // URL
}

// Status asks the member that answers first about itself. It needs no token.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return enveloped[Status](ctx, c, request{method: "GET", path: "/api/v1/status", repeat: always})
}
