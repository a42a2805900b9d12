package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	dqlite "github.com/canonical/go-dqlite/v3"
	"github.com/canonical/go-dqlite/v3/client"
	"github.com/google/uuid"
)

// Role is a server's role in the Raft configuration.
type Role string

// Roles, in the words of the members table: voters replicate and vote, stand-bys replicate, spares do neither, and
// RoleNone is a member that is not a Raft server.
const (
	RoleNone    Role = ""
	RoleSpare   Role = "spare"
	RoleStandBy Role = "standby"
	RoleVoter   Role = "voter"
)

// Server is one entry of the Raft configuration.
type Server struct {
	NodeID uint64
	Role   Role
}

func roleOf(r client.NodeRole) Role {
	switch r {
	case client.Voter:
		return RoleVoter
	case client.StandBy:
		return RoleStandBy
	default:
		return RoleSpare
	}
}

func (r Role) dqlite() client.NodeRole {
	switch r {
	case RoleVoter:
		return client.Voter
	case RoleStandBy:
		return client.StandBy
	default:
		return client.Spare
	}
}

// founderID is the id with which dqlite bootstraps an empty directory.
const founderID = 1

// raftName is the address that dqlite has for a node. It is logical, so that a member that moves needs no change of the
// Raft configuration; DialRaft resolves it.
func raftName(id uint64) string { return fmt.Sprintf("node-%d", id) }

// DialRaft opens an authenticated stream to the dqlite port of a member. It blocks until the stream is open or ctx
// ends.
type DialRaft func(ctx context.Context, nodeID uint64) (net.Conn, error)

// node runs the dqlite server of this process and speaks its wire protocol over a private socket.
type node struct {
	id    uint64
	bind  string
	inner *dqlite.Node

	mu  sync.Mutex
	ctl *client.Client // for short questions (leader, configuration); opened when needed
}

func startNode(cfg Config, broken func(nodeID uint64)) (*node, error) {
	// dqlite aborts the process on some errors in the directory, so check for the simple ones first.
	dir := cfg.Dir + "/raft"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory cannot be used: %w", err)
	}
	n := &node{id: cfg.NodeID, bind: "@muster-" + uuid.NewString()}
	snapshots := dqlite.SnapshotParams{Threshold: cfg.SnapshotThreshold, Trailing: cfg.SnapshotTrailing,
		Strategy: dqlite.TrailingStrategyDynamic}
	inner, err := dqlite.New(cfg.NodeID, raftName(cfg.NodeID), dir,
		dqlite.WithBindAddress(n.bind),
		dqlite.WithDialFunc(replicationDial(cfg.Dial, broken)),
		dqlite.WithNetworkLatency(cfg.NetworkLatency),
		dqlite.WithSnapshotParams(snapshots),
		dqlite.WithAutoRecovery(false), // it may delete segments that it cannot read, which loses data
	)
	if err != nil {
		return nil, fmt.Errorf("dqlite refuses the directory: %w", err)
	}
	if err := inner.Start(); err != nil {
		return nil, fmt.Errorf("dqlite does not start: %w", err)
	}
	n.inner = inner
	return n, nil
}

// dialLocal connects to this process's own dqlite node.
func (n *node) dialLocal(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", n.bind)
	if err != nil {
		return nil, err
	}
	return Direct(c), nil
}

// control runs f on the connection for short questions and drops the connection when f fails.
func (n *node) control(ctx context.Context, f func(*client.Client) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctl == nil {
		c, err := client.New(ctx, raftName(n.id), client.WithDialFunc(n.dialLocal))
		if err != nil {
			return err
		}
		n.ctl = c
	}
	err := f(n.ctl)
	if err != nil {
		n.ctl.Close()
		n.ctl = nil
	}
	return err
}

// leader returns the node that this server follows (itself when it leads), 0 for none.
func (n *node) leader(ctx context.Context) (id uint64, err error) {
	err = n.control(ctx, func(c *client.Client) error {
		info, err := c.Leader(ctx)
		if err == nil {
			id = info.ID
		}
		return err
	})
	return id, err
}

// servers returns this server's Raft configuration.
func (n *node) servers(ctx context.Context) (list []Server, err error) {
	err = n.control(ctx, func(c *client.Client) error {
		infos, err := c.Cluster(ctx)
		for _, i := range infos {
			list = append(list, Server{NodeID: i.ID, Role: roleOf(i.Role)})
		}
		return err
	})
	return list, err
}

// change runs one change of the Raft configuration on a connection of its own, because it may take long: a new voter
// must catch up first. The connection is closed at the deadline, which dqlite ignores.
func (n *node) change(ctx context.Context, f func(context.Context, *client.Client) error) error {
	c, err := client.New(ctx, raftName(n.id), client.WithDialFunc(n.dialLocal))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoConnection, err)
	}
	defer c.Close()
	return f(ctx, c)
}

var errNoConnection = errors.New("no connection to the local Raft server can be opened")

// transfer asks Raft to hand leadership to a voter. Without free file descriptors it uses the connection for short
// questions.
func (n *node) transfer(ctx context.Context, id uint64) error {
	err := n.change(ctx, func(ctx context.Context, c *client.Client) error { return c.Transfer(ctx, id) })
	if errors.Is(err, errNoConnection) && ctx.Err() == nil {
		err = n.control(ctx, func(c *client.Client) error { return c.Transfer(ctx, id) })
	}
	return err
}

func (n *node) close() error {
	n.mu.Lock()
	if n.ctl != nil {
		n.ctl.Close()
		n.ctl = nil
	}
	n.mu.Unlock()
	return n.inner.Close()
}

// bootstrap prepares an empty Raft directory for a founder that does not have founderID: dqlite bootstraps the log, and
// the configuration is then changed to the one server.
func bootstrap(dir string, id uint64) error {
	raft := dir + "/raft"
	if err := os.MkdirAll(raft, 0o700); err != nil {
		return err
	}
	n, err := dqlite.New(founderID, raftName(founderID), raft, dqlite.WithBindAddress("@muster-"+uuid.NewString()),
		dqlite.WithAutoRecovery(false))
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := n.Start(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := n.Close(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return Reconfigure(raft, []uint64{id})
}

// Servers returns the Raft configuration as last read from the local server. It does not block.
func (e *Engine) Servers() []Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Server(nil), e.servers...)
}

// RefreshServers reads the Raft configuration from the local server. It blocks for at most controlTimeout.
func (e *Engine) RefreshServers(ctx context.Context) ([]Server, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	list, err := e.node.servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the Raft configuration: %w", err)
	}
	e.mu.Lock()
	e.servers, e.read = list, time.Now()
	e.mu.Unlock()
	return list, nil
}

// OwnServers returns the Raft configuration of the local server. If the server does not answer, because its disk hangs,
// it returns the one that was last read.
func (e *Engine) OwnServers(ctx context.Context) []Server {
	if list, err := e.RefreshServers(ctx); err == nil {
		return list
	}
	return e.Servers()
}

func (e *Engine) serversAge() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.read)
}

// Assign adds a node to the Raft configuration with a role, or changes its role. It blocks until the change is
// committed or ctx ends; a new voter must catch up first. It fails on members that do not lead.
func (e *Engine) Assign(ctx context.Context, id uint64, role Role) error {
	have := RoleNone
	for _, v := range e.Servers() {
		if v.NodeID == id {
			have = v.Role
		}
	}
	otherVoter := func(v Server) bool { return v.NodeID != id && v.Role == RoleVoter }
	if role != RoleVoter && have == RoleVoter && !slices.ContainsFunc(e.Servers(), otherVoter) {
		return fmt.Errorf("node %d is the last voter of the Raft configuration, which must not be without one", id)
	}
	err := e.node.change(ctx, func(ctx context.Context, c *client.Client) error {
		switch {
		case role == RoleNone:
			return c.Remove(ctx, id)
		case have == RoleNone:
			if err := c.Add(ctx, client.NodeInfo{ID: id, Address: raftName(id), Role: client.Spare}); err != nil {
				return err
			}
			if role == RoleSpare {
				return nil
			}
			return c.Assign(ctx, id, role.dqlite())
		case have == role:
			return nil
		default:
			return c.Assign(ctx, id, role.dqlite())
		}
	})
	if _, e := e.RefreshServers(context.WithoutCancel(ctx)); e != nil && err == nil {
		err = e
	}
	return err
}
