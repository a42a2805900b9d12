package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdSystem is the yardstick: etcd with its default settings, its own Go client, and plaintext gRPC or, secured, TLS
// everywhere and a user with a password.
type etcdSystem struct {
	program string
	secured bool
	relayed bool // the members reach each other through relays
}

func (s etcdSystem) name() string {
	if s.secured {
		return "etcd-tls"
	}
	return "etcd"
}

type etcdCluster struct {
	endpoints []string // of the clients
	procs     []*process
	admin     []*clientv3.Client // one per member, for requests outside the measurements
	secure    *secure            // nil: plaintext
	user      string             // empty: without authentication
	ways      *links
}

func (s etcdSystem) start(ctx context.Context, f *fleet) (cluster, error) {
	dir, err := os.MkdirTemp(f.dir, "etcd-")
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2 * members)
	if err != nil {
		return nil, err
	}
	c := &etcdCluster{endpoints: addrs[:members]}
	scheme, flags := "http://", []string(nil)
	if s.secured {
		if c.secure, err = newSecure(dir); err != nil {
			return nil, err
		}
		scheme, flags = "https://", c.secure.flags
	}
	reached, err := c.relays(ctx, s.relayed, addrs[members:])
	if err != nil {
		return nil, err
	}
	var initial []string
	for i, peer := range reached {
		initial = append(initial, fmt.Sprintf("n%d=%s%s", i+1, scheme, peer))
	}
	for i, peer := range addrs[members:] {
		name, api := fmt.Sprintf("n%d", i+1), scheme+c.endpoints[i]
		p, err := f.launch(dir, name,
			append([]string{s.program, "--name", name, "--data-dir", dir + "/" + name, "--logger", "zap",
				"--listen-client-urls", api, "--advertise-client-urls", api,
				"--listen-peer-urls", scheme + peer, "--initial-advertise-peer-urls", scheme + reached[i],
				"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new"}, flags...)...)
		if err != nil {
			stop(c)
			return nil, err
		}
		c.procs = append(c.procs, p)
		c.ways.started(p)
		client, err := c.client(i)
		if err != nil {
			stop(c)
			return nil, err
		}
		c.admin = append(c.admin, client)
	}
	err = allCaughtUp(ctx, c)
	if err == nil && s.secured {
		err = c.authenticate(ctx)
	}
	if err != nil {
		stop(c)
		return nil, err
	}
	return c, nil
}

// relays starts a relay before each member, if there are to be any, and returns where the members reach each other.
func (c *etcdCluster) relays(ctx context.Context, wanted bool, peers []string) (reached []string, err error) {
	if !wanted {
		return peers, nil
	}
	c.ways = newLinks()
	for i, peer := range peers {
		_, port, err := net.SplitHostPort(peer)
		if err != nil {
			return nil, err
		}
		at := net.JoinHostPort(relayHost, port)
		if err := relay(ctx, at, peer, way{hold: c.ways.holding(ctx, i)}); err != nil {
			return nil, err
		}
		reached = append(reached, at)
	}
	return reached, nil
}

func (c *etcdCluster) client(member int) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints: []string{c.endpoints[member]}, DialTimeout: 3 * time.Second, Logger: zap.NewNop(),
		// Notice a returning member at once; the default waits up to two minutes between attempts.
		BackoffWaitBetween: 20 * time.Millisecond,
	}
	if c.secure != nil {
		config.TLS = c.secure.tls
	}
	if c.user != "" {
		config.Username, config.Password = c.user, etcdPassword
	}
	return clientv3.New(config)
}

func (c *etcdCluster) processes() []*process { return c.procs }

func (c *etcdCluster) links() *links { return c.ways }

func (c *etcdCluster) leader(ctx context.Context) (int, error) {
	for i, client := range c.admin {
		if c.procs[i].gone() != nil {
			continue
		}
		once, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		status, err := client.Status(once, c.endpoints[i])
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			return i, nil
		}
	}
	return -1, errNoLeader
}

func (c *etcdCluster) caughtUp(ctx context.Context, member int) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	want, err := c.admin[leader].Status(ctx, c.endpoints[leader])
	if err != nil {
		return err
	}
	if _, err := c.admin[member].Get(ctx, "bench"); err != nil { // linearisable: it reaches the leader
		return err
	}
	have, err := c.admin[member].Status(ctx, c.endpoints[member])
	if err == nil && have.RaftAppliedIndex < want.RaftAppliedIndex {
		err = fmt.Errorf("it has applied %d of %d", have.RaftAppliedIndex, want.RaftAppliedIndex)
	}
	return err
}

func (c *etcdCluster) transfer(ctx context.Context, from, to int) error {
	status, err := c.admin[to].Status(ctx, c.endpoints[to])
	if err != nil {
		return err
	}
	_, err = c.admin[from].MoveLeader(ctx, status.Header.MemberId)
	return err
}

func (c *etcdCluster) dial(member int, _ bool) (conn, error) {
	client, err := c.client(member)
	return &etcdConn{client}, err
}

type etcdConn struct{ client *clientv3.Client }

var (
	etcdValue = strings.Repeat("v", 256)
	etcdKeys  atomic.Int64
)

func (c *etcdConn) write(ctx context.Context, key string) error {
	if key == "" {
		key = fmt.Sprintf("bench/%012d", etcdKeys.Add(1)) // a new row, like a new token
	}
	_, err := c.client.Put(ctx, key, etcdValue)
	return err
}

// read gets one key of 256 bytes; the path is ignored.
func (c *etcdConn) read(ctx context.Context, _ string) error {
	answer, err := c.client.Get(ctx, "bench/read")
	if err == nil && len(answer.Kvs) != 1 {
		err = fmt.Errorf("%d keys found instead of 1", len(answer.Kvs))
	}
	return err
}

func (c *etcdConn) close() { c.client.Close() }
