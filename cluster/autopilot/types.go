package autopilot

import "time"

// Modes, drain states and roles as in the rest of the program.
const (
	ModeFull      = "full"
	ModeReplicate = "replicate"

	DrainActive   = "active"
	DrainDraining = "draining"
	DrainDrained  = "drained"

	RoleVoter   = "voter"
	RoleStandBy = "standby"
	RoleSpare   = "spare"
	RoleOutside = "" // not in the Raft configuration

	StatusAlive   = "alive"
	StatusDown    = "down"    // does not answer, without a goodbye
	StatusLeft    = "left"    // does not answer, after a goodbye
	StatusUnknown = "unknown" // to a leader so young that a silent machine had no time to answer
)

// Observation is what the leader knows about one member or Raft server. Node ids are unique in an Input; of several
// with the same id the first counts.
type Observation struct {
	NodeID     uint64 `json:"nodeId"`
	Name       string `json:"name,omitempty"`
	Mode       string `json:"mode,omitempty"`
	DrainState string `json:"drainState,omitempty"`
	// Zone is the location of the member; members of one zone may be lost together. Members without one share a zone as
	// soon as any member has one.
	Zone string `json:"zone,omitempty"`
	// Pinned: an operator has promoted it.
	Pinned bool `json:"pinned,omitempty"`
	// Role in the present Raft configuration.
	Role string `json:"role,omitempty"`
	// LastContact is the time of the last answered probe; zero if it has not answered this leader.
	LastContact time.Time `json:"lastContact,omitzero"`
	// LeftAt is the time of its goodbye; zero if it has sent none since its last start.
	LeftAt time.Time `json:"leftAt,omitzero"`
	// ProbeInterval is set for a member that is probed less often than Raft servers. It counts as silent after two
	// intervals.
	ProbeInterval Duration `json:"probeInterval,omitempty"`
	RTT           Duration `json:"rtt,omitempty"`
	// Revision of its local replica.
	Revision uint64 `json:"revision,omitempty"`
	Version  string `json:"version,omitempty"`
	// Member: it has a row in the members table. False for an orphan Raft server.
	Member bool `json:"member"`
	// DiskLow: it reports that its disk is nearly full. It then counts as drained, whatever DrainState is.
	DiskLow bool `json:"diskLow,omitempty"`
	// CannotStore is its own reason why it cannot store; empty when it can. It then counts as unhealthy and loses its
	// vote, even if it answers.
	CannotStore string `json:"cannotStore,omitempty"`
	// Stalled is how long, at its last answer, its replica had stayed at a revision although the leader had newer ones.
	Stalled Duration `json:"stalled,omitempty"`
	// IsLeader is read only when Input.LeaderID is zero.
	IsLeader bool `json:"isLeader,omitempty"`
}

// Health is what one round keeps about a node for the next round.
type Health struct {
	Healthy     bool      `json:"healthy"`
	StableSince time.Time `json:"stableSince,omitzero"`
	// Recovering: under this leader it was silent or could not store, and it has not been healthy for Config.Stabilization
	// since. It waits the full time for a vote.
	Recovering bool `json:"recovering,omitempty"`
	// Failed: it recovers from being unable to store.
	Failed bool `json:"failed,omitempty"`
}

// Input is one round of observations by the leader.
type Input struct {
	Members        []Observation `json:"members"`
	LeaderID       uint64        `json:"leaderId"`
	LeaderRevision uint64        `json:"leaderRevision"`
	LeaderSince    time.Time     `json:"leaderSince,omitzero"`
	// Previous is Carry of the last State; empty for a new leader.
	Previous map[uint64]Health `json:"previous,omitempty"`
}

// Stamp is a time in UTC with whole seconds in JSON, as in the documented API. In memory it keeps its full precision.
type Stamp struct{ time.Time }

// MarshalJSON writes RFC 3339 in UTC with whole seconds.
func (s Stamp) MarshalJSON() ([]byte, error) {
	return []byte(`"` + s.UTC().Format(time.RFC3339) + `"`), nil
}

// Server is one line of State. The documented fields come first.
type Server struct {
	NodeID uint64 `json:"nodeId"`
	// RaftAddress is filled in by the caller.
	RaftAddress     string `json:"raftAddress"`
	NodeStatus      string `json:"nodeStatus"`
	Healthy         bool   `json:"healthy"`
	IsLeader        bool   `json:"isLeader"`
	HasVotingRights bool   `json:"hasVotingRights"`
	StableSince     Stamp  `json:"stableSince,omitzero"`

	Name       string `json:"name,omitempty"`
	Role       string `json:"role,omitempty"`
	Mode       string `json:"mode,omitempty"`
	Zone       string `json:"zone,omitempty"`
	DrainState string `json:"drainState,omitempty"`
	Pinned     bool   `json:"pinned,omitempty"`
	// Electable: leadership may go to it. Only voters are electable; a drained, draining or replicate-only voter is not
	// while a better one answers.
	Electable  bool `json:"electable"`
	Recovering bool `json:"recovering,omitempty"`
	Failed     bool `json:"failed,omitempty"`
	DiskLow    bool `json:"diskLow,omitempty"`
	// CannotStore is why it cannot store, as a clause; empty when it can.
	CannotStore string `json:"cannotStore,omitempty"`
	// Stalled is how long its replica has stayed at a revision although the leader has newer ones.
	Stalled Duration `json:"stalled,omitempty"`
	// Lag in revisions behind the leader; 0 for a member without a replica.
	Lag         uint64    `json:"lag"`
	LastContact time.Time `json:"lastContact,omitzero"`
	// DownSince is when a server that is down last answered this leader, or when this leader began.
	DownSince time.Time `json:"downSince,omitzero"`
	// LeftAt is the time of its goodbye.
	LeftAt  time.Time `json:"leftAt,omitzero"`
	RTT     Duration  `json:"rtt,omitempty"`
	Version string    `json:"version,omitempty"`
	// ZoneCost is the cost of its drain or removal for its zone; empty without one.
	ZoneCost string `json:"zoneCost,omitempty"`
	// Reason is one sentence about its role and its next change.
	Reason string `json:"reason"`
}

// State is the answer of the autopilot endpoint. Healthy and FailureTolerance count Raft voters only: a dead stand-by,
// or a member outside Raft, costs no quorum.
type State struct {
	Healthy          bool     `json:"healthy"`
	FailureTolerance int      `json:"failureTolerance"`
	LeaderNodeID     uint64   `json:"leaderNodeId"`
	Voters           []uint64 `json:"voters"`
	Servers          []Server `json:"servers"`
	// Zones by name, the members without a zone last; empty while no member has a zone.
	Zones []Zone `json:"zones,omitempty"`
	// Spread is one sentence about the zones that the cluster can lose, and the next improvement.
	Spread string `json:"spread,omitempty"`
}

// Zone describes the effect of losing one zone.
type Zone struct {
	Name     string `json:"name"` // empty: the members without a zone
	Members  int    `json:"members"`
	Alive    int    `json:"alive"`
	Eligible int    `json:"eligible"` // members that vote or may get a vote now
	Voters   int    `json:"voters"`
	StandBys int    `json:"standBys"`
	// Survivable: the healthy voters elsewhere are a majority of all.
	Survivable bool   `json:"survivable"`
	Reason     string `json:"reason"`
}

// Kind is the effect of a Change.
type Kind string

// The kinds of change.
const (
	KindPromote  Kind = "promote"  // stand-by (or spare, when pinned) to voter
	KindTransfer Kind = "transfer" // hand leadership to NodeID
	KindDemote   Kind = "demote"   // voter to stand-by
	KindStandBy  Kind = "standby"  // spare to stand-by
	KindAdd      Kind = "add"      // from outside Raft to stand-by
	KindRemove   Kind = "remove"   // out of the Raft configuration; a member row stays
	KindCleanup  Kind = "cleanup"  // out of the cluster: row, keys and Raft server
)

// Change is one step of a Plan; Role is the role that NodeID has afterwards.
type Change struct {
	Kind   Kind   `json:"kind"`
	NodeID uint64 `json:"nodeId"`
	Role   string `json:"role,omitempty"`
	Reason string `json:"reason"`
}

// Plan lists the next changes, in order. All of them are of one kind. After a failed change the caller drops the rest
// and decides again.
//
// An answer may be older than the machine's death by LastContactThreshold, so the caller probes once more right before
// it acts: before promote, add and transfer the node itself; before it takes the vote of a node that answers, the other
// voters, of which a majority must answer.
type Plan []Change

// Gone reports whether a status is that of a member that does not answer: left or down.
func Gone(status string) bool { return status == StatusDown || status == StatusLeft }

// Silent returns how long a member that does not answer has been gone; 0 for others.
func (v *Server) Silent(now time.Time) time.Duration {
	switch {
	case v.NodeStatus == StatusLeft:
		return now.Sub(v.LeftAt)
	case v.DownSince.IsZero():
		return 0
	}
	return now.Sub(v.DownSince)
}

// Carry returns Input.Previous for the next round.
func Carry(s State) map[uint64]Health {
	m := make(map[uint64]Health, len(s.Servers))
	for i := range s.Servers {
		v := &s.Servers[i]
		m[v.NodeID] = Health{Healthy: v.Healthy, StableSince: v.StableSince.Time, Recovering: v.Recovering, Failed: v.Failed}
	}
	return m
}
