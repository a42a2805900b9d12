package client

import (
	"context"
	"time"
)

// Autopilot is what the leader thinks of the members' health.
type Autopilot struct {
	Healthy          bool              `json:"healthy"`
	FailureTolerance int               `json:"failureTolerance"` // voters that may fail before the cluster stops
	LeaderNodeID     uint64            `json:"leaderNodeId"`     // 0 when no leader is known
	Voters           []uint64          `json:"voters"`           // ascending
	Servers          []AutopilotServer `json:"servers"`          // every member, by ascending NodeID
}

// AutopilotServer is the health of one member.
type AutopilotServer struct {
	NodeID          uint64    `json:"nodeId"`
	RaftAddress     string    `json:"raftAddress"`
	NodeStatus      string    `json:"nodeStatus"`
	Healthy         bool      `json:"healthy"`
	IsLeader        bool      `json:"isLeader"`
	HasVotingRights bool      `json:"hasVotingRights"`
	StableSince     time.Time `json:"stableSince,omitzero"` // last change of Healthy; zero when unknown
}

// Autopilot reads the leader's view of the members' health.
func (c *Client) Autopilot(ctx context.Context) (Autopilot, error) {
	return enveloped[Autopilot](ctx, c, request{method: "GET", path: "/api/v1/cluster/autopilot", repeat: always})
}
