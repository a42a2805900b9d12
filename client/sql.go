package client

import (
	"context"

	"muster/api"
)

// SQLResult is the answer to a query. A value is nil, a json.Number, a string or a bool.
type SQLResult = api.SQLResult

// SQL asks one read-only query of the local mirror of the member that answers. The mirror is at most about a second
// behind the cluster when that is idle; its views v_members, v_tokens, v_peerings and v_keys are made for reading.
func (c *Client) SQL(ctx context.Context, query string) (SQLResult, error) {
	body := map[string]string{"query": query}
	return enveloped[SQLResult](ctx, c, request{method: "POST", path: "/api/v1/sql", body: body, repeat: always})
}
