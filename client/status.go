package client

import (
	"context"

	"muster/api"
)

// Status is what one member says about itself.
type Status = api.Status

// Storing tells whether a member can store, as it finds out by writing to its disk every two seconds.
type Storing = api.Storing

// Disk tells how full a member's disk is, in bytes.
type Disk = api.Disk

// ClusterStatus is a member's view of its cluster.
type ClusterStatus = api.ClusterStatus

// Status asks the member that answers first about itself. It needs no token.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return enveloped[Status](ctx, c, request{method: "GET", path: "/api/v1/status", repeat: always})
}

// OpenAPI returns the description of the API as the member that answers serves it: OpenAPI 3.1 in YAML. It needs no token.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	return c.do(ctx, request{method: "GET", path: "/api/v1/openapi.yaml", repeat: always})
}
