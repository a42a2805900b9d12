package client

import (
	"context"
	"encoding/json"

	"muster/api"
)

// Status is what one member says about itself.
type Status = api.Status

// Storing reports whether a member can store, as it finds out by writing to its disk every two seconds.
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

const settings = "/api/v1/cluster/settings"

// Settings reads the value of every setting of the cluster, as JSON, by its name.
func (c *Client) Settings(ctx context.Context) (map[string]json.RawMessage, error) {
	return enveloped[map[string]json.RawMessage](ctx, c, request{method: "GET", path: settings, repeat: always,
		stale: true})
}

// SetSettings changes the settings that values names, all or none of them, and returns all. nil stands for the default.
func (c *Client) SetSettings(ctx context.Context, values map[string]any) (map[string]json.RawMessage, error) {
	return enveloped[map[string]json.RawMessage](ctx, c, request{method: "PUT", path: settings, body: values,
		repeat: on503})
}

// Schema says which schema the database has, which one the leader's muster knows, and who keeps it from being applied.
type Schema = api.Schema

// SchemaHolder is a member that cannot work with the newer schema.
type SchemaHolder = api.SchemaHolder

// Schema reads the state of the database's schema.
func (c *Client) Schema(ctx context.Context) (Schema, error) {
	return enveloped[Schema](ctx, c, request{method: "GET", path: "/api/v1/cluster/schema", repeat: always,
		stale: true})
}

// MigrateSchema applies the newest schema that the leader knows. Members in exclude do not hold it back, if they do not
// answer. The leader migrates by itself when nobody holds it back.
func (c *Client) MigrateSchema(ctx context.Context, exclude []uint64) (Schema, error) {
	return enveloped[Schema](ctx, c, request{method: "POST", path: "/api/v1/cluster/schema/migrate",
		body: map[string]any{"exclude": exclude}, repeat: on503, slow: true})
}

// SQLResult is the answer to a query. A value is nil, a json.Number, a string or a bool.
type SQLResult = api.SQLResult

// SQL asks one read-only query of the local mirror of the member that answers. The mirror is at most about a second
// behind the cluster when that is idle; its views v_members, v_tokens, v_peerings and v_keys are made for reading.
func (c *Client) SQL(ctx context.Context, query string) (SQLResult, error) {
	body := map[string]string{"query": query}
	return enveloped[SQLResult](ctx, c, request{method: "POST", path: "/api/v1/sql", body: body, repeat: always})
}
