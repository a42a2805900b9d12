package client

import (
	"context"

	"muster/api"
)

// Schema says which schema the database has, which one the leader's muster knows, and who keeps it from being applied.
type Schema = api.Schema

// SchemaHolder is a member that cannot work with the newer schema.
type SchemaHolder = api.SchemaHolder

// Schema reads the state of the database's schema.
func (c *Client) Schema(ctx context.Context) (Schema, error) {
	return enveloped[Schema](ctx, c, request{method: "GET", path: "/api/v1/cluster/schema", repeat: always})
}

// MigrateSchema applies the newest schema that the leader knows. Members in exclude do not hold it back, if they do not
// answer. The leader migrates by itself when nobody holds it back.
func (c *Client) MigrateSchema(ctx context.Context, exclude []uint64) (Schema, error) {
	return enveloped[Schema](ctx, c, request{method: "POST", path: "/api/v1/cluster/schema/migrate",
		body: map[string]any{"exclude": exclude}, repeat: on503, slow: true})
}
