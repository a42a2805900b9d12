package client

import (
	"context"
	"encoding/json"

	"muster/api"
)

// Status is one member's report about itself.
type Status = api.Status

// Storing reports whether a member can write to its disk. It tests that every two seconds.
type Storing = api.Storing

// Disk is how full a member's disk is, in bytes.
type Disk = api.Disk

// ClusterStatus is a member's view of its cluster.
type ClusterStatus = api.ClusterStatus

// Status returns the report of the first member that answers. It needs no token.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return enveloped[Status](ctx, c, request{method: "GET", path: "/api/v1/status", repeat: always})
}

// OpenAPI returns the answering member's description of its API: OpenAPI 3.1 in YAML. It needs no token.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	return c.do(ctx, request{method: "GET", path: "/api/v1/openapi.yaml", repeat: always})
}

const settings = "/api/v1/cluster/settings"

// Settings reads the value of every setting of the cluster, as JSON, by its name.
func (c *Client) Settings(ctx context.Context) (map[string]json.RawMessage, error) {
	return enveloped[map[string]json.RawMessage](ctx, c, request{method: "GET", path: settings, repeat: always,
		stale: true})
}

// SetSettings changes the settings named in values, all or none of them, and returns all settings. nil restores a
// default.
func (c *Client) SetSettings(ctx context.Context, values map[string]any) (map[string]json.RawMessage, error) {
	return enveloped[map[string]json.RawMessage](ctx, c, request{method: "PUT", path: settings, body: values,
		repeat: on503})
}

// Schema has the schema versions of the database and of the leader's binary, and the members that block a newer one.
type Schema = api.Schema

// SchemaHolder is a member that blocks the newer schema.
type SchemaHolder = api.SchemaHolder

// Schema reads the state of the database's schema.
func (c *Client) Schema(ctx context.Context) (Schema, error) {
	return enveloped[Schema](ctx, c, request{method: "GET", path: "/api/v1/cluster/schema", repeat: always,
		stale: true})
}

// MigrateSchema applies the newest schema that the leader supports. Members in exclude do not block it if they do not
// answer. Without blocking members the leader migrates by itself.
func (c *Client) MigrateSchema(ctx context.Context, exclude []uint64) (Schema, error) {
	return enveloped[Schema](ctx, c, request{
		method: "POST",
		path:   "/api/v1/cluster/schema/migrate",
		body:   map[string]any{"exclude": exclude},
		repeat: on503,
		slow:   true,
	})
}

// SQLResult is the answer to a query. A value is nil, a json.Number, a string or a bool.
type SQLResult = api.SQLResult

// SQL runs one read-only query on the local mirror of the answering member. In an idle cluster the mirror is at most
// about a second behind; its views v_members, v_tokens, v_peerings and v_keys are made for reading.
func (c *Client) SQL(ctx context.Context, query string) (SQLResult, error) {
	body := map[string]string{"query": query}
	return enveloped[SQLResult](ctx, c, request{method: "POST", path: "/api/v1/sql", body: body, repeat: always})
}
