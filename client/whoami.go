package client

import (
	"context"

	"muster/api"
)

// WhoAmI is what the cluster knows of the Client's token.
type WhoAmI = api.Whoami

// WhoAmI says whose token the Client shows and what it allows. It fails with an *Error of status 401 when the cluster does not
// know it.
func (c *Client) WhoAmI(ctx context.Context) (WhoAmI, error) {
	return enveloped[WhoAmI](ctx, c, request{method: "GET", path: "/api/v1/whoami", repeat: always, stale: true})
}
