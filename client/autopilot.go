package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

// Autopilot is the leader's view of the members' health.
type Autopilot struct {
	Healthy          bool              `json:"healthy"`
	FailureTolerance int               `json:"failureTolerance"` // voters that may fail before the cluster stops
	LeaderNodeID     uint64            `json:"leaderNodeId"`     // 0 when no leader is known
	Voters           []uint64          `json:"voters"`           // ascending
	Servers          []AutopilotServer `json:"servers"`          // every member, by ascending NodeID
	Zones            []AutopilotZone   `json:"zones,omitempty"`  // by name; empty while no member has a zone
	Spread           string            `json:"spread,omitempty"` // a sentence: which zone may be lost, and what would help
}

// AutopilotZone describes one zone and the effect of its loss.
type AutopilotZone struct {
	Name       string `json:"name"` // empty: the members that have no zone
	Members    int    `json:"members"`
	Alive      int    `json:"alive"`
	Eligible   int    `json:"eligible"` // members that vote or may get a vote now
	Voters     int    `json:"voters"`
	StandBys   int    `json:"standBys"`
	Survivable bool   `json:"survivable"` // the healthy voters elsewhere are a majority of all
	Reason     string `json:"reason"`
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

	Name        string    `json:"name,omitempty"`
	Role        string    `json:"role,omitempty"` // voter, standby, spare; empty outside Raft
	Mode        string    `json:"mode,omitempty"`
	Zone        string    `json:"zone,omitempty"`
	ZoneCost    string    `json:"zoneCost,omitempty"` // what its drain or removal costs its zone, a sentence
	DrainState  string    `json:"drainState,omitempty"`
	Pinned      bool      `json:"pinned,omitempty"` // promoted by an operator
	Electable   bool      `json:"electable"`
	Recovering  bool      `json:"recovering,omitempty"`  // it fell silent or could not store, and is on probation
	Failed      bool      `json:"failed,omitempty"`      // it recovers from being unable to store
	DiskLow     bool      `json:"diskLow,omitempty"`     // it reports a nearly full disk
	CannotStore string    `json:"cannotStore,omitempty"` // why it does not store, a clause of a sentence
	DownSince   time.Time `json:"downSince,omitzero"`    // last answer of a member that is down
	LeftAt      time.Time `json:"leftAt,omitzero"`       // when the member announced its exit
	Lag         uint64    `json:"lag"`                   // revisions behind the leader
	Stalled     string    `json:"stalled,omitempty"`     // how long its replica has stalled although the leader has more
	LastContact time.Time `json:"lastContact,omitzero"`
	RTT         string    `json:"rtt,omitempty"`
	Version     string    `json:"version,omitempty"`
	Reason      string    `json:"reason"` // why it has this role, and the next change
}

// AutopilotConfig is autopilot's settings. Durations are Go duration strings ("10s").
type AutopilotConfig struct {
	MaxVoters            int    `json:"maxVoters"` // 3, 5 or 7
	StandBys             int    `json:"standBys"`
	Stabilization        string `json:"stabilization"`
	LastContactThreshold string `json:"lastContactThreshold"`
	MaxLagRevisions      uint64 `json:"maxLagRevisions"`
	MaxLagTime           string `json:"maxLagTime"` // how long a replica may stall although the leader has more
	CleanupDeadMembers   bool   `json:"cleanupDeadMembers"`
	DeadAfter            string `json:"deadAfter"`
	MinQuorum            int    `json:"minQuorum"`
	RedundancyZones      bool   `json:"redundancyZones"`  // one voter in each zone is enough
	UpgradeMigration     bool   `json:"upgradeMigration"` // votes move to a newer version when enough members run it
}

// Upgrade describes the state of an upgrade: versions, the next member to restart, reasons to wait.
type Upgrade struct {
	Target       string          `json:"target"`         // the target version
	Schema       int64           `json:"schema"`         // of the database
	NewestSchema int64           `json:"newestSchema"`   // of the target version; 0: no member runs it yet
	Done         bool            `json:"done"`           // every member runs the target version, and its schema is applied
	Summary      string          `json:"summary"`        // a sentence
	Next         uint64          `json:"next,omitempty"` // 0: no member may be restarted now
	Wait         []string        `json:"wait"`           // the reasons, a sentence each
	Members      []UpgradeMember `json:"members"`        // in the order of restarts
}

// UpgradeMember is one member in the order of restarts.
type UpgradeMember struct {
	NodeID     uint64    `json:"nodeId"`
	Name       string    `json:"name"`
	Zone       string    `json:"zone,omitempty"`
	Role       string    `json:"role,omitempty"` // voter, standby, spare; empty outside Raft
	IsLeader   bool      `json:"isLeader"`
	NodeStatus string    `json:"nodeStatus"`
	DownSince  time.Time `json:"downSince,omitzero"`
	Healthy    bool      `json:"healthy"`
	Version    string    `json:"version"`
	MaxSchema  int64     `json:"maxSchema"`
	State      string    `json:"state"`          // upgraded, next, waiting, or down
	Note       string    `json:"note,omitempty"` // what to know before its restart
}

// Upgrade returns the leader's view of an upgrade to a version; empty: the newest running one.
func (c *Client) Upgrade(ctx context.Context, version string) (Upgrade, error) {
	path := "/api/v1/cluster/upgrade"
	if version != "" {
		path += "?version=" + url.QueryEscape(version)
	}
	return enveloped[Upgrade](ctx, c, request{method: "GET", path: path, repeat: always, stale: true})
}

// Difference is one difference between the Raft configuration and the members table.
type Difference = api.Difference

// AutopilotConfig reads autopilot's settings.
func (c *Client) AutopilotConfig(ctx context.Context) (AutopilotConfig, error) {
	return enveloped[AutopilotConfig](ctx, c, request{method: "GET", path: "/api/v1/cluster/autopilot/config",
		repeat: always, stale: true})
}

// SetAutopilotConfig changes the settings named in fields and returns all settings. Values are JSON values.
func (c *Client) SetAutopilotConfig(ctx context.Context, fields map[string]any) (AutopilotConfig, error) {
	return enveloped[AutopilotConfig](ctx, c, request{method: "PUT", path: "/api/v1/cluster/autopilot/config",
		body: fields, repeat: on503})
}

// RaftDiff lists the differences between the Raft configuration and the members table; usually none.
func (c *Client) RaftDiff(ctx context.Context) ([]Difference, error) {
	return enveloped[[]Difference](ctx, c, request{method: "GET", path: "/api/v1/cluster/raft/diff", repeat: always,
		stale: true})
}

// Autopilot reads the leader's view of the members' health.
func (c *Client) Autopilot(ctx context.Context) (Autopilot, error) {
	return enveloped[Autopilot](ctx, c, request{method: "GET", path: "/api/v1/cluster/autopilot", repeat: always,
		stale: true})
}
