package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

// Autopilot is what the leader thinks of the members' health.
type Autopilot struct {
	Healthy          bool              `json:"healthy"`
	FailureTolerance int               `json:"failureTolerance"` // voters that may fail before the cluster stops
	LeaderNodeID     uint64            `json:"leaderNodeId"`     // 0 when no leader is known
	Voters           []uint64          `json:"voters"`           // ascending
	Servers          []AutopilotServer `json:"servers"`          // every member, by ascending NodeID
	Zones            []AutopilotZone   `json:"zones,omitempty"`  // by name; empty while no member has a zone
	Spread           string            `json:"spread,omitempty"` // a sentence: which zone may be lost, and what would help
}

// AutopilotZone is what would be lost with one zone.
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
	Recovering  bool      `json:"recovering,omitempty"`  // it fell silent or could not store, and is not trusted again yet
	Failed      bool      `json:"failed,omitempty"`      // it recovers from being unable to store
	DiskLow     bool      `json:"diskLow,omitempty"`     // it has said that its disk is nearly full
	CannotStore string    `json:"cannotStore,omitempty"` // why it does not store, a clause of a sentence
	DownSince   time.Time `json:"downSince,omitzero"`    // when one that is down last answered
	LeftAt      time.Time `json:"leftAt,omitzero"`       // when one that has left said so
	Lag         uint64    `json:"lag"`                   // revisions behind the leader
	Stalled     string    `json:"stalled,omitempty"`     // how long its replica has not moved though the leader had more
	LastContact time.Time `json:"lastContact,omitzero"`
	RTT         string    `json:"rtt,omitempty"`
	Version     string    `json:"version,omitempty"`
	Reason      string    `json:"reason"` // why it has this role and what is next
}

// AutopilotConfig is what an operator can set. Durations are Go duration strings ("10s").
type AutopilotConfig struct {
	MaxVoters            int    `json:"maxVoters"` // 3, 5 or 7
	StandBys             int    `json:"standBys"`
	Stabilization        string `json:"stabilization"`
	LastContactThreshold string `json:"lastContactThreshold"`
	MaxLagRevisions      uint64 `json:"maxLagRevisions"`
	MaxLagTime           string `json:"maxLagTime"` // a replica may stand still for so long though the leader has more
	CleanupDeadMembers   bool   `json:"cleanupDeadMembers"`
	DeadAfter            string `json:"deadAfter"`
	MinQuorum            int    `json:"minQuorum"`
	RedundancyZones      bool   `json:"redundancyZones"`  // one voter in each zone is enough
	UpgradeMigration     bool   `json:"upgradeMigration"` // votes move to a newer version when enough members run it
}

// Upgrade says who runs which muster, whom to restart next, and why nobody may be restarted now.
type Upgrade struct {
	Target       string          `json:"target"`         // the version to come to
	Schema       int64           `json:"schema"`         // that the database has
	NewestSchema int64           `json:"newestSchema"`   // that the target knows; 0: nobody runs it yet
	Done         bool            `json:"done"`           // everybody runs the target, and its schema is applied
	Summary      string          `json:"summary"`        // a sentence
	Next         uint64          `json:"next,omitempty"` // 0: nobody may be restarted now
	Wait         []string        `json:"wait"`           // why, sentences
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

// Upgrade asks the leader for the state of an upgrade to a version; empty: the newest that runs.
func (c *Client) Upgrade(ctx context.Context, version string) (Upgrade, error) {
	path := "/api/v1/cluster/upgrade"
	if version != "" {
		path += "?version=" + url.QueryEscape(version)
	}
	return enveloped[Upgrade](ctx, c, request{method: "GET", path: path, repeat: always, stale: true})
}

// Difference is one point on which the Raft configuration does not agree with the members table.
type Difference = api.Difference

// AutopilotConfig reads autopilot's settings.
func (c *Client) AutopilotConfig(ctx context.Context) (AutopilotConfig, error) {
	return enveloped[AutopilotConfig](ctx, c, request{method: "GET", path: "/api/v1/cluster/autopilot/config",
		repeat: always, stale: true})
}

// SetAutopilotConfig changes the settings that fields names, with values as JSON has them, and returns all of them.
func (c *Client) SetAutopilotConfig(ctx context.Context, fields map[string]any) (AutopilotConfig, error) {
	return enveloped[AutopilotConfig](ctx, c, request{method: "PUT", path: "/api/v1/cluster/autopilot/config",
		body: fields, repeat: on503})
}

// RaftDiff lists where the Raft configuration does not agree with the members table; usually nowhere.
func (c *Client) RaftDiff(ctx context.Context) ([]Difference, error) {
	return enveloped[[]Difference](ctx, c, request{method: "GET", path: "/api/v1/cluster/raft/diff", repeat: always,
		stale: true})
}

// Autopilot reads the leader's view of the members' health.
func (c *Client) Autopilot(ctx context.Context) (Autopilot, error) {
	return enveloped[Autopilot](ctx, c, request{method: "GET", path: "/api/v1/cluster/autopilot", repeat: always,
		stale: true})
}
