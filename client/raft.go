package client

import (
	"context"
	"net/url"
)

const raft = "/v1/operator/raft"

// RaftConfiguration is the set of servers that Raft knows.
type RaftConfiguration struct {
	Index   uint64
	Servers []RaftServer
}

// RaftServer is one server of the Raft configuration. Members outside Raft are not included.
type RaftServer struct {
	Address      string // HOST:PORT of the cluster listener
	ID           string // the member's UUID
	Leader       bool
	Node         string // the member's name, "(unknown)" for a server without a member
	RaftProtocol string // "3"
	Voter        bool
}

// RaftConfiguration reads the Raft configuration.
func (c *Client) RaftConfiguration(ctx context.Context) (RaftConfiguration, error) {
	return plain[RaftConfiguration](ctx, c, request{method: "GET", path: raft + "/configuration", repeat: always,
		stale: true})
}

// TransferLeadership transfers leadership to the server with this UUID, and blocks until it leads.
func (c *Client) TransferLeadership(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "PUT", path: raft + "/transfer-leadership", query: url.Values{"id": {id}},
		repeat: on503})
	return err
}

// RemoveRaftPeer removes a server, given by its UUID or its Raft id, from the Raft configuration.
func (c *Client) RemoveRaftPeer(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{
		method: "DELETE",
		path:   raft + "/peer",
		query:  url.Values{"id": {id}},
		repeat: on503,
		slow:   true,
	})
	return err
}
