package client

import (
	"context"
	"encoding/json"
)

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
