package api

import "time"

// History is the recent past as one member recorded it. Columns have a value for each entry of At, null where unknown.
type History struct {
	NodeID       uint64          `json:"nodeId"` // the member that recorded it
	Since        time.Time       `json:"since"`
	EverySeconds int             `json:"everySeconds"`
	At           []int64         `json:"at"` // seconds since 1970
	Commits      []*uint64       `json:"commits"`
	CommitMs     []*float64      `json:"commitMs"`
	Servers      []ServerHistory `json:"servers"` // Raft servers
	Leaders      []LeaderChange  `json:"leaders"` // the first entry is the leader at the beginning
	Health       []HealthChange  `json:"health"`
}

// ServerHistory has the figures of one Raft server.
type ServerHistory struct {
	NodeID uint64     `json:"nodeId"`
	Lag    []*uint64  `json:"lag"` // revisions behind the leader
	RTTMs  []*float64 `json:"rttMs"`
}

// LeaderChange is when a member began to lead; node 0 means that no leader was known.
type LeaderChange struct {
	At     time.Time `json:"at"`
	NodeID uint64    `json:"nodeId"`
}

// HealthChange is when a member became healthy or unhealthy.
type HealthChange struct {
	At      time.Time `json:"at"`
	NodeID  uint64    `json:"nodeId"`
	Healthy bool      `json:"healthy"`
}
