package api

import "time"

// Workload is software that gets an identity from the members it runs on. A process is that workload when it matches every
// selector that is there.
type Workload struct {
	ID        string    `json:"id"`
	SPIFFEID  string    `json:"spiffeId"` // spiffe://<cluster id><path>
	Path      string    `json:"path"`
	NodeID    uint64    `json:"nodeId,omitempty"` // 0: on any member
	User      string    `json:"user,omitempty"`   // Unix user, name or number
	Group     string    `json:"group,omitempty"`  // Unix group, name or number
	Unit      string    `json:"unit,omitempty"`   // systemd unit
	Hosts     []string  `json:"hosts,omitempty"`  // in its certificates besides the SPIFFE ID
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
}
