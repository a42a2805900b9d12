package api

import "time"

// Workload is software that gets an identity from the members it runs on. A process belongs to the workload when it
// matches every selector that is set.
type Workload struct {
	ID        string    `json:"id"`
	SPIFFEID  string    `json:"spiffeId"` // spiffe://<cluster id><path>
	Path      string    `json:"path"`
	NodeID    uint64    `json:"nodeId,omitempty"` // 0: on any member
	User      string    `json:"user,omitempty"`   // Unix user, name or uid
	Group     string    `json:"group,omitempty"`  // Unix group, name or gid
	Unit      string    `json:"unit,omitempty"`   // systemd unit
	Hosts     []string  `json:"hosts,omitempty"`  // further names in its certificates
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
}
