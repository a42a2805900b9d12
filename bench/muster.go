package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// musterSystem drives the binary from outside, like its users: HTTPS, tokens, one port.
type musterSystem struct {
	program string
	label   string // name in the report; empty: muster
	http2   bool
	keyed   bool          // each write carries an Idempotency-Key, like those of package client
	flags   []string      // additional flags of `serve`
	delay   time.Duration // between the members, one way
	relayed bool          // the members reach each other through relays
}

func (s *musterSystem) name() string { return cmp.Or(s.label, "muster") }

type musterCluster struct {
	system *musterSystem
	dir    string
	apis   []string // HOST:PORT
	procs  []*process
	token  string
	roots  *x509.CertPool
	admin  []*musterConn // one per member, for requests outside the measurements
	ways   *links
}

func (s *musterSystem) start(ctx context.Context, f *fleet) (cluster, error) {
	dir, err := os.MkdirTemp(f.dir, "muster-")
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2 * members)
	if err != nil {
		return nil, err
	}
	c := &musterCluster{system: s, dir: dir, apis: addrs[:members], roots: x509.NewCertPool()}
	if err := c.form(ctx, f, addrs[members:]); err != nil {
		stop(c)
		return nil, err
	}
	return c, nil
}

// form founds the cluster, lets two more members join and waits until all are voters.
func (c *musterCluster) form(ctx context.Context, f *fleet, rafts []string) error {
	flags := c.system.flags
	if c.system.delay > 0 || c.system.relayed { // others find a member behind a relay, at another address
		if c.system.relayed {
			c.ways = newLinks()
		}
		for i, addr := range slices.Concat(c.apis, rafts) {
			_, port, _ := net.SplitHostPort(addr)
			w := way{delay: c.system.delay}
			if c.system.relayed && i >= members {
				w.hold = c.ways.holding(ctx, i-members)
			}
			if err := relay(ctx, net.JoinHostPort(relayHost, port), addr, w); err != nil {
				return err
			}
		}
		flags = append(slices.Clone(flags), "--advertise", relayHost)
	}
	serve := func(i int, more ...string) error {
		name := fmt.Sprintf("n%d", i+1)
		args := append([]string{c.system.program, "serve", "--data", c.dir + "/" + name, "--name", name,
			"--api", c.apis[i], "--raft", rafts[i]}, flags...)
		p, err := f.launch(c.dir, name, append(args, more...)...)
		if err == nil {
			c.procs = append(c.procs, p)
			c.ways.started(p)
		}
		return err
	}
	if err := serve(0); err != nil {
		return err
	}
	if err := eventually(ctx, startLimit, c.credentials); err != nil {
		return err
	}
	for i := range c.apis {
		c.admin = append(c.admin, c.connect(i, false))
	}
	if err := eventually(ctx, startLimit, func(ctx context.Context) error { return c.up(ctx, 0) }); err != nil {
		return fmt.Errorf("the founder: %w", err)
	}
	for i := 1; i < members; i++ {
		var minted struct{ Result struct{ Token string } }
		body := fmt.Sprintf(`{"nodeID":%d}`, i+1)
		if err := c.admin[0].call(ctx, "POST", "/api/v1/cluster/pki/join-tokens", body, "", &minted); err != nil {
			return err
		}
		if err := serve(i, "--join", minted.Result.Token); err != nil {
			return err
		}
	}
	// Raise the limits: refusals are not measured.
	limits := `{"limits.join_tokens":1000000,"limits.answers":1000000,` +
		`"limits.enrollments":1000000,"limits.secrets":1000000}`
	if err := c.admin[0].call(ctx, "PUT", "/api/v1/cluster/settings", limits, "", nil); err != nil {
		return err
	}
	return allCaughtUp(ctx, c)
}

// credentials reads token and CA from the founder's data directory.
func (c *musterCluster) credentials(context.Context) error {
	if err := c.procs[0].gone(); err != nil {
		return err
	}
	token, err := os.ReadFile(c.dir + "/n1/admin.token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.dir + "/n1/ca.crt")
	if err != nil {
		return err
	}
	if c.token = strings.TrimSpace(string(token)); c.token == "" || !c.roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("admin.token or ca.crt in %s/n1 is not complete", c.dir)
	}
	return nil
}

const relayHost = "127.0.0.2"

type musterStatus struct {
	Result struct {
		Ready    bool
		Revision uint64
		Cluster  struct{ IsLeader bool }
	}
}

func (c *musterCluster) status(ctx context.Context, member int) (musterStatus, error) {
	var s musterStatus
	err := c.procs[member].gone()
	if err == nil {
		err = c.admin[member].call(ctx, "GET", "/api/v1/status", "", "", &s)
	}
	return s, err
}

func (c *musterCluster) up(ctx context.Context, member int) error {
	s, err := c.status(ctx, member)
	if err == nil && !s.Result.Ready {
		err = fmt.Errorf("it is not ready")
	}
	return err
}

type raftConfiguration struct {
	Servers []struct {
		ID, Node string
		Voter    bool
	}
}

// find returns the server of a member; Node is its name, maybe with a region after it ("n1.global").
func (r raftConfiguration) find(member int) (id string, voter bool) {
	for _, s := range r.Servers {
		if name, _, _ := strings.Cut(s.Node, "."); name == fmt.Sprintf("n%d", member+1) {
			return s.ID, s.Voter
		}
	}
	return "", false
}

func (c *musterCluster) configuration(ctx context.Context, via int) (r raftConfiguration, err error) {
	return r, c.admin[via].call(ctx, "GET", "/v1/operator/raft/configuration", "", "", &r)
}

func (c *musterCluster) processes() []*process { return c.procs }

func (c *musterCluster) links() *links { return c.ways }

func (c *musterCluster) leader(ctx context.Context) (int, error) {
	for i := range c.procs {
		if s, err := c.status(ctx, i); err == nil && s.Result.Cluster.IsLeader {
			return i, nil
		}
	}
	return -1, errNoLeader
}

func (c *musterCluster) caughtUp(ctx context.Context, member int) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	want, err := c.status(ctx, leader)
	if err != nil {
		return err
	}
	raft, err := c.configuration(ctx, member) // linearisable: it reaches the leader
	if err != nil {
		return err
	}
	_, voter := raft.find(member)
	have, err := c.status(ctx, member)
	switch {
	case err != nil:
		return err
	case !voter:
		return fmt.Errorf("it is not a voter: %+v", raft.Servers)
	case !have.Result.Ready || have.Result.Revision < want.Result.Revision:
		return fmt.Errorf("ready: %v, revision %d of %d", have.Result.Ready, have.Result.Revision, want.Result.Revision)
	}
	return nil
}

func (c *musterCluster) transfer(ctx context.Context, from, to int) error {
	raft, err := c.configuration(ctx, from)
	if err != nil {
		return err
	}
	id, _ := raft.find(to)
	return c.admin[from].call(ctx, "PUT", "/v1/operator/raft/transfer-leadership?id="+id, "", "", nil)
}

func (c *musterCluster) dial(member int, shared bool) (conn, error) {
	return c.connect(member, shared || c.system.http2), nil
}

// connect makes a new transport: one connection with HTTP/2, with HTTP/1.1 one for each concurrent request.
func (c *musterCluster) connect(member int, http2 bool) *musterConn {
	t := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: http2,
	}
	return &musterConn{base: "https://" + c.apis[member], token: "Bearer " + c.token, keyed: c.system.keyed, http: t}
}

type musterConn struct {
	base, token string
	keyed       bool
	http        *http.Transport
}

// call makes one request and decodes the answer into the value that into points to, unless that is nil; a *[]byte gets
// the answer unchanged.
func (c *musterConn) call(ctx context.Context, method, path, body, key string, into any) error {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", c.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, bytes.TrimSpace(answer))
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = answer
		return nil
	default:
		return json.Unmarshal(answer, into)
	}
}

// write mints a join token.
func (c *musterConn) write(ctx context.Context, key string) error {
	if key == "" && c.keyed {
		key = newKey()
	}
	return c.call(ctx, "POST", "/api/v1/cluster/join-tokens", `{"ttlSeconds":3600,"maxUses":1}`, key, nil)
}

// read gets a path.
func (c *musterConn) read(ctx context.Context, path string) error {
	return c.call(ctx, "GET", path, "", "", nil)
}

func (c *musterConn) close() { c.http.CloseIdleConnections() }
