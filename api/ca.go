package api

import "time"

// CAKind is everything about the certificate authorities of one kind.
type CAKind struct {
	Kind            string         `json:"kind"`        // "http", "transport" or "workload"
	Generations     []CAGeneration `json:"generations"` // the oldest first
	Rotation        *CARotation    `json:"rotation,omitempty"`
	RotationAdvised string         `json:"rotationAdvised,omitempty"` // why the CA should be rotated
}

// CAGeneration is one certificate authority.
type CAGeneration struct {
	Generation  uint64    `json:"generation"`
	State       string    `json:"state"`  // "prepared", "active", "trusted" or "retired"
	Origin      string    `json:"origin"` // "muster", or "operator" for an imported one
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	DaysLeft    int       `json:"daysLeft"`
	CreatedAt   time.Time `json:"createdAt"`
	Certificate string    `json:"certificate"` // PEM; an operator's CA with its chain
}

// CARotation is a running rotation.
type CARotation struct {
	Phase      string      `json:"phase"` // "trust", "issue" or "overlap"
	Old        uint64      `json:"old"`   // generation that is to go
	New        uint64      `json:"new"`
	RolledBack bool        `json:"rolledBack"`
	StartedAt  time.Time   `json:"startedAt"`
	StartedBy  string      `json:"startedBy"`
	PhaseSince time.Time   `json:"phaseSince"`
	Overlap    string      `json:"overlap"` // a Go duration
	DropAt     *time.Time  `json:"dropAt,omitempty"`
	Pending    []CAPending `json:"pending"` // members it waits for, or has stopped waiting for
}

// CAPending is a member that a rotation waits for.
type CAPending struct {
	NodeID uint64 `json:"nodeId"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// CAChange is the effect of a CARequest, done or planned.
type CAChange struct {
	DryRun   bool     `json:"dryRun"`
	Steps    []string `json:"steps"`
	Warnings []string `json:"warnings"`
}

// Certificate is a leaf that the cluster has issued.
type Certificate struct {
	Serial    string     `json:"serial"` // lower hex
	Kind      string     `json:"kind"`
	NodeID    uint64     `json:"nodeId,omitempty"`
	Node      string     `json:"node,omitempty"`      // name of the member; empty when it was removed
	Authority uint64     `json:"authority,omitempty"` // generation of the CA of that kind
	IssuedAt  time.Time  `json:"issuedAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
	DaysLeft  int        `json:"daysLeft"`
	RevokedAt *time.Time `json:"revokedAt,omitempty"`
	Current   bool       `json:"current"` // the newest of its kind that the member has
}
