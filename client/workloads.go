package client

import (
	"context"
	"net/url"

	"muster/api"
)

const workloads = "/api/v1/workloads"

// Workload is software that gets an identity from the members it runs on.
type Workload = api.Workload

// WorkloadRequest describes a workload: processes that match every given selector. At least one of User, Group and Unit
// is required.
type WorkloadRequest struct {
	Path   string   `json:"path"`             // of its SPIFFE ID, such as /billing/api
	NodeID uint64   `json:"nodeId,omitempty"` // the member that it runs on; 0: any
	User   string   `json:"user,omitempty"`
	Group  string   `json:"group,omitempty"`
	Unit   string   `json:"unit,omitempty"`
	Hosts  []string `json:"hosts,omitempty"` // additional names in its certificates
}

// CreateWorkload registers a workload. A repeated request returns the same registration.
func (c *Client) CreateWorkload(ctx context.Context, r WorkloadRequest) (Workload, error) {
	return enveloped[Workload](ctx, c, request{method: "POST", path: workloads, body: r, repeat: alwaysKeyed})
}

// Workloads lists the registered workloads by path.
func (c *Client) Workloads(ctx context.Context) ([]Workload, error) {
	return enveloped[[]Workload](ctx, c, request{method: "GET", path: workloads, repeat: always, stale: true})
}

// Workload returns one registration.
func (c *Client) Workload(ctx context.Context, id string) (Workload, error) {
	return enveloped[Workload](ctx, c, request{method: "GET", path: workloads + "/" + url.PathEscape(id), repeat: always,
		stale: true})
}

// DeleteWorkload deletes a registration.
func (c *Client) DeleteWorkload(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: workloads + "/" + url.PathEscape(id), repeat: on503})
	return err
}
