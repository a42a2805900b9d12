package client

import "context"

// OpenAPI returns the description of the API as the member that answers serves it: OpenAPI 3.1 in YAML. It needs no token.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	return c.do(ctx, request{method: "GET", path: "/api/v1/openapi.yaml", repeat: always})
}
