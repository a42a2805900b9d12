package api

import "time"

// History is what a member remembers. The columns have a value for each entry of At, null where nothing is known.
type History struct {
	NodeID       uint64          `json:"nodeId"` // whose memory it is
	Since        time.Time       `json:"since"`
	EverySeconds int             `json:"everySeconds"`
	At           []int64         `json:"at"` // seconds since 1970
	Commits      []*uint64       `json:"commits"`
	CommitMs     []*float64      `json:"commitMs"`
	Servers      []ServerHistory `json:"servers"` // Raft servers
	Leaders      []LeaderChange  `json:"leaders"` // the first says who led when the memory begins
	Health       []HealthChange  `json:"health"`
}

// ServerHistory is the figures of one Raft server.
type ServerHistory struct {
	NodeID uint64     `json:"nodeId"`
	Lag    []*uint64  `json:"lag"` // revisions behind the leader
	RTTMs  []*float64 `json:"rttMs"`
}

// LeaderChange is from when on a member led; 0 is nobody, as far as the member that remembers knew.
type LeaderChange struct {
	At     time.Time `json:"at"`
	NodeID uint64    `json:"nodeId"`
}

// HealthChange is from when on a member was noted as healthy, or was not.
type HealthChange struct {
	At      time.Time `json:"at"`
	NodeID  uint64    `json:"nodeId"`
	Healthy bool      `json:"healthy"`
}
