// Package autopilot decides which members of a cluster vote. It is a pure function: it takes observations,
// configuration and the present time and returns the state of the cluster and at most one kind of change. It has no
// clock, starts no goroutine and does no I/O, so every decision can be replayed from JSON.
package autopilot

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration in Go's notation in JSON ("10s").
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d in Go's notation.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes d as a Go duration string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON accepts a Go duration string and nothing else.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("must be a duration such as \"10s\", not %.40s", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("must be a duration such as \"10s\", not %.40q", s)
	}
	*d = Duration(v)
	return nil
}

// Config holds the settings of autopilot.
type Config struct {
	// MaxVoters is 3, 5 or 7. Pinned voters do not count.
	MaxVoters int `json:"maxVoters"`
	// StandBys is the number of members that replicate without a vote, ready to replace a voter.
	StandBys int `json:"standBys"`
	// Stabilization is how long a member must be healthy before it gets a vote.
	Stabilization Duration `json:"stabilization"`
	// LastContactThreshold is the silence after which a server is unhealthy.
	LastContactThreshold Duration `json:"lastContactThreshold"`
	// MaxLagRevisions is the number of revisions that a healthy replica may be behind the leader.
	MaxLagRevisions uint64 `json:"maxLagRevisions"`
	// MaxLagTime is how long the replica of a Raft server may stay at a revision while the leader has newer ones. After
	// that the server counts as unable to store.
	MaxLagTime Duration `json:"maxLagTime"`
	// CleanupDeadMembers allows autopilot to remove members from the cluster after DeadAfter of silence.
	CleanupDeadMembers bool     `json:"cleanupDeadMembers"`
	DeadAfter          Duration `json:"deadAfter"`
	// MinQuorum is the number of healthy voters below which nothing is cleaned up.
	MinQuorum int `json:"minQuorum"`
	// RedundancyZones: each zone gets one voter, and its other members are stand-bys. With fewer than three zones there
	// are three voters all the same.
	RedundancyZones bool `json:"redundancyZones"`
	// UpgradeMigration: members with a newer version get no votes until as many members run it as voters run an older one.
	// Then all votes move to them.
	UpgradeMigration bool `json:"upgradeMigration"`
}

// DefaultConfig returns the configuration of a new cluster.
func DefaultConfig() Config {
	return Config{
		MaxVoters:            5,
		StandBys:             2,
		Stabilization:        Duration(10 * time.Second),
		LastContactThreshold: Duration(2 * time.Second),
		MaxLagRevisions:      10_000,
		MaxLagTime:           Duration(30 * time.Second),
		DeadAfter:            Duration(24 * time.Hour),
		MinQuorum:            2,
	}
}

// Limits of Config.
const (
	maxStandBys      = 16
	maxStabilization = Duration(time.Hour)
	minContact       = Duration(100 * time.Millisecond)
	maxContact       = Duration(10 * time.Minute)
	minDeadAfter     = Duration(time.Minute)
	minLagTime       = Duration(5 * time.Second)
	maxLagTime       = Duration(time.Hour)
)

// Validate returns an error that names the first invalid field and its rule. Decide expects a valid configuration but
// does not panic on another.
func (c Config) Validate() error {
	switch {
	case c.MaxVoters != 3 && c.MaxVoters != 5 && c.MaxVoters != 7:
		return fmt.Errorf("maxVoters must be 3, 5 or 7, not %d", c.MaxVoters)
	case c.StandBys < 0 || c.StandBys > maxStandBys:
		return fmt.Errorf("standBys must be between 0 and %d, not %d", maxStandBys, c.StandBys)
	case c.Stabilization < 0 || c.Stabilization > maxStabilization:
		return fmt.Errorf("stabilization must be between 0s and %v, not %v", maxStabilization, c.Stabilization)
	case c.LastContactThreshold < minContact || c.LastContactThreshold > maxContact:
		return fmt.Errorf("lastContactThreshold must be between %v and %v, not %v", minContact, maxContact,
			c.LastContactThreshold)
	case c.MaxLagRevisions < 1:
		return fmt.Errorf("maxLagRevisions must be at least 1")
	case c.MaxLagTime < minLagTime || c.MaxLagTime > maxLagTime:
		return fmt.Errorf("maxLagTime must be between %v and %v, not %v", minLagTime, maxLagTime, c.MaxLagTime)
	case c.DeadAfter < minDeadAfter || c.DeadAfter <= c.LastContactThreshold:
		return fmt.Errorf("deadAfter must be at least %v and longer than lastContactThreshold, not %v", minDeadAfter,
			c.DeadAfter)
	case c.MinQuorum < 1 || c.MinQuorum > c.MaxVoters:
		return fmt.Errorf("minQuorum must be between 1 and maxVoters (%d), not %d", c.MaxVoters, c.MinQuorum)
	}
	return nil
}
