package autopilot

import "time"

// Modes, drain states and roles as the rest of the program spells them.
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
	StatusDown    = "down"    // does not answer, and has not said why
	StatusLeft    = "left"    // does not answer: its process was ended in order, and had said so
	StatusUnknown = "unknown" // to a leader so young that a silent machine had no time to answer it
)

// Observation is what the leader knows about one member or Raft server.
// Node ids are unique in an Input; of several with the same id the first counts.
type Observation struct {
	NodeID     uint64 `json:"nodeId"`
	Name       string `json:"name,omitempty"`
	Mode       string `json:"mode,omitempty"`
	DrainState string `json:"drainState,omitempty"`
	// Zone is where it stands; members of one zone may be lost together. Members without one count as one zone as soon
	// as any member has one.
	Zone string `json:"zone,omitempty"`
	// Pinned: an operator promoted it by hand.
	Pinned bool `json:"pinned,omitempty"`
	// Role in the Raft configuration that holds now.
	Role string `json:"role,omitempty"`
	// LastContact is the time of the last answered probe; zero when it has not
	// answered since this leader observes.
	LastContact time.Time `json:"lastContact,omitzero"`
	// LeftAt is when it said that its process ends; zero when it has not since it was last started.
	LeftAt time.Time `json:"leftAt,omitzero"`
	// ProbeInterval is set for a member that is probed less often than Raft
	// servers are. It then counts as silent after two intervals.
	ProbeInterval Duration `json:"probeInterval,omitempty"`
	RTT           Duration `json:"rtt,omitempty"`
	// Revision of its local replica.
	Revision uint64 `json:"revision,omitempty"`
	Version  string `json:"version,omitempty"`
	// Member: it has a row in SQL. False for an orphan Raft server.
	Member bool `json:"member"`
	// DiskLow: it says that its disk is nearly full. It then counts as drained, whatever DrainState says.
	DiskLow bool `json:"diskLow,omitempty"`
	// CannotStore is why it cannot store, as it says itself; empty when it can. It then counts as unhealthy and
	// loses its vote, whatever it answers.
	CannotStore string `json:"cannotStore,omitempty"`
	// Stalled is how long its replica had not moved when it last answered, although the leader had more.
	Stalled Duration `json:"stalled,omitempty"`
	// IsLeader is read only when Input.LeaderID is zero.
	IsLeader bool `json:"isLeader,omitempty"`
}

// Health is what one round hands to the next about one node.
type Health struct {
	Healthy     bool      `json:"healthy"`
	StableSince time.Time `json:"stableSince,omitzero"`
	// Recovering: it fell silent or could not store under this leader and has not been healthy
	// for Config.Stabilization since. It waits the full time for a vote.
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

// Stamp is a time that JSON shows in UTC to the second, as the documented API
// does; in memory it keeps its full precision.
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
	// Electable: leadership may go to it. Only voters are; a drained, draining
	// or replicate-only voter is not while a better one answers.
	Electable  bool `json:"electable"`
	Recovering bool `json:"recovering,omitempty"`
	Failed     bool `json:"failed,omitempty"`
	DiskLow    bool `json:"diskLow,omitempty"`
	// CannotStore is why it does not store, a clause for a sentence; empty when it does.
	CannotStore string `json:"cannotStore,omitempty"`
	// Stalled is how long its replica has not moved although there was something to move.
	Stalled Duration `json:"stalled,omitempty"`
	// Lag in revisions behind the leader; 0 for a member without a replica.
	Lag         uint64    `json:"lag"`
	LastContact time.Time `json:"lastContact,omitzero"`
	// DownSince is when a server that is down was last heard of: by this leader, or when this leader began.
	DownSince time.Time `json:"downSince,omitzero"`
	// LeftAt is when one that has left said so.
	LeftAt  time.Time `json:"leftAt,omitzero"`
	RTT     Duration  `json:"rtt,omitempty"`
	Version string    `json:"version,omitempty"`
	// ZoneCost says what its drain or removal costs its zone; empty when nothing.
	ZoneCost string `json:"zoneCost,omitempty"`
	// Reason says in one sentence why it has the role it has and what is next.
	Reason string `json:"reason"`
}

// State is the answer of the autopilot endpoint. Healthy and FailureTolerance
// count Raft voters only: a dead stand-by, or a member outside Raft, costs no
// quorum and so does not make the cluster unhealthy.
type State struct {
	Healthy          bool     `json:"healthy"`
	FailureTolerance int      `json:"failureTolerance"`
	LeaderNodeID     uint64   `json:"leaderNodeId"`
	Voters           []uint64 `json:"voters"`
	Servers          []Server `json:"servers"`
	// Zones in the order of their names, the members without one last; empty while no member has a zone.
	Zones []Zone `json:"zones,omitempty"`
	// Spread says in one sentence which zone the cluster can lose, and what would make it better.
	Spread string `json:"spread,omitempty"`
}

// Zone is what would be lost with one zone.
type Zone struct {
	Name     string `json:"name"` // empty: the members that have no zone
	Members  int    `json:"members"`
	Alive    int    `json:"alive"`
	Eligible int    `json:"eligible"` // members that vote or may get a vote now
	Voters   int    `json:"voters"`
	StandBys int    `json:"standBys"`
	// Survivable: the healthy voters elsewhere are a majority of all.
	Survivable bool   `json:"survivable"`
	Reason     string `json:"reason"`
}

// Kind names what a Change does.
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

// Plan is what to do now, in order. All its changes are of one kind. A caller
// that fails at one of them drops the rest and decides again.
//
// An answer may be older than the machine's death by LastContactThreshold, so
// the caller probes once more right before it acts: before promote, add and
// transfer the node itself; before it takes the vote of a node that answers,
// the other voters, of which a majority must answer.
type Plan []Change

// Gone reports whether a status is that of a member that does not answer, whether it has left or is down.
func Gone(status string) bool { return status == StatusDown || status == StatusLeft }

// Silent is how long a member that does not answer has been gone; 0 for any other.
func (v *Server) Silent(now time.Time) time.Duration {
	switch {
	case v.NodeStatus == StatusLeft:
		return now.Sub(v.LeftAt)
	case v.DownSince.IsZero():
		return 0
	}
	return now.Sub(v.DownSince)
}

// Carry returns what the next round needs as Input.Previous.
func Carry(s State) map[uint64]Health {
	m := make(map[uint64]Health, len(s.Servers))
	for i := range s.Servers {
		v := &s.Servers[i]
		m[v.NodeID] = Health{Healthy: v.Healthy, StableSince: v.StableSince.Time, Recovering: v.Recovering, Failed: v.Failed}
	}
	return m
}
