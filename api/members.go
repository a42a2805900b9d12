package api

import "time"

// The states of Member.DrainState.
const (
	DrainActive   = "active"
	DrainDraining = "draining"
	DrainDrained  = "drained"
)

// Member is one machine of the cluster; the documented fields come first (reference ella_members, section 1.2).
type Member struct {
	NodeID         uint64    `json:"nodeId"`      // the Raft id, 1 … 2^53-1, never reused
	RaftAddress    string    `json:"raftAddress"` // HOST:PORT of the cluster listener
	APIAddress     string    `json:"apiAddress"`  // URL
	BinaryVersion  string    `json:"binaryVersion"`
	Suffrage       string    `json:"suffrage"` // "voter" or "nonvoter"
	IsLeader       bool      `json:"isLeader"`
	DrainState     string    `json:"drainState"`              // DrainActive, DrainDraining or DrainDrained
	DrainUpdatedAt time.Time `json:"drainUpdatedAt,omitzero"` // zero: never drained

	ID        string            `json:"id"` // UUID
	Name      string            `json:"name"`
	Mode      string            `json:"mode"`   // "full", or "replicate" for one that never votes
	Role      string            `json:"role"`   // "voter", "standby", "spare", or "member" when it is not a Raft server
	Status    string            `json:"status"` // "alive", "down", "left" or "unknown"
	OverlayIP string            `json:"overlayIp"`
	SliceCIDR string            `json:"sliceCidr"`
	Labels    map[string]string `json:"labels,omitempty"`
	JoinedAt  time.Time         `json:"joinedAt"`
	DownSince time.Time         `json:"downSince,omitzero"` // last contact with a member that is down
	LeftAt    time.Time         `json:"leftAt,omitzero"`    // when a member that has left said so
	Zone      string            `json:"zone,omitempty"`     // failure domain; empty: not set
	ZoneCost  string            `json:"zoneCost,omitempty"` // what its drain or removal means for its zone, a sentence
	DiskLow   bool              `json:"diskLow,omitempty"`  // it reports that its disk is nearly full
	// CannotStore is why the member cannot write to its disk, a clause of a sentence, from the leader's probes; empty when
	// it can.
	CannotStore string `json:"cannotStore,omitempty"`

	Recipient     string        `json:"recipient,omitempty"`     // the age public key; set when one member is requested
	DrainDeadline string        `json:"drainDeadline,omitempty"` // RFC 3339, while it is draining
	Hooks         []HookOutcome `json:"hooks,omitempty"`         // of the last drain or resume
}

// HookOutcome is the result of one drain or resume hook on its member.
type HookOutcome struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
	Millis  int64  `json:"millis"`
}

// Drain is the answer to a drain; the hooks' results are muster's addition.
type Drain struct {
	DrainState string        `json:"drainState"` // DrainDraining or DrainDrained
	Hooks      []HookOutcome `json:"hooks,omitempty"`
	Deadline   string        `json:"deadline,omitempty"` // RFC 3339, while it is draining
	Warnings   []string      `json:"warnings,omitempty"`
}

// Lease records work that runs on a member; a drain waits for it.
type Lease struct {
	ID        string    `json:"id"`
	NodeID    uint64    `json:"nodeId"`
	Kind      string    `json:"kind,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}
