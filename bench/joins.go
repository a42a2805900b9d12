package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// joins redeems one token many times, each time as another machine, and asks for the full answer (wrapped key, JWT).
// These members never run: what is measured is the leader's work. The cluster is one of its own, and dropped.
func (b *bench) joins(ctx context.Context) {
	if b.muster == nil {
		return
	}
	const clients = 64
	v, c, err := b.join(ctx, clients)
	if c != nil {
		defer stop(c)
	}
	if err != nil {
		b.report.add("joins", "/s", false, outcome{"muster": {Error: err.Error()}}, nil)
		return
	}
	b.report.add(fmt.Sprintf("joins: full answer, %d clients", clients), "/s", false, outcome{"muster": &v}, &goal{
		text: "≥ 1000/s, p99 < 150 ms", met: func(v value, _ float64) bool { return v.Value >= 1000 && v.P99 < 150 }})
	b.list(ctx, c, v.N)
}

func (b *bench) join(ctx context.Context, clients int) (value, *musterCluster, error) {
	system := *b.muster
	// Every member gets an address and a slice: a small default network would end the measurement early.
	if help, _ := exec.CommandContext(ctx, system.program, "serve", "--help").CombinedOutput(); strings.Contains(string(help), "--overlay-cidr") {
		system.flags = append(system.flags, "--overlay-cidr", "10.0.0.0/8")
	}
	started, err := system.start(ctx, b.fleet)
	if err != nil {
		return value{}, nil, err
	}
	c := started.(*musterCluster)
	leader, err := findLeader(ctx, c)
	if err != nil {
		return value{}, c, err
	}
	var minted struct{ Result struct{ Token string } }
	request := fmt.Sprintf(`{"ttlSeconds":3600,"maxUses":%d}`, b.maxJoins)
	if err := c.admin[leader].call(ctx, "POST", "/api/v1/cluster/join-tokens", request, "", &minted); err != nil {
		return value{}, c, err
	}
	conns := make([]*musterConn, clients)
	for i := range conns {
		conns[i] = c.connect(leader, system.http2)
		defer conns[i].close()
	}
	var bodies []string // made beforehand: keys cost time, and that is the joining machine's
	for i := range b.maxJoins {
		bodies = append(bodies, joinRequest(minted.Result.Token, i))
	}
	var next atomic.Int64
	one := func(ctx context.Context, client int) error {
		var answer struct {
			NodeID     string `json:"node_id"`
			WrappedDEK []int  `json:"wrapped_dek"`
		}
		i := next.Add(1) - 1
		if i >= int64(len(bodies)) {
			return fmt.Errorf("all %d joins are used up", len(bodies))
		}
		err := conns[client].call(ctx, "POST", "/api/v1/cluster/join", bodies[i], "", &answer)
		if err == nil && (answer.NodeID == "" || len(answer.WrappedDEK) == 0) {
			err = fmt.Errorf("the answer has no node_id or no wrapped_dek")
		}
		return err
	}
	warm := int64(min(clients, b.maxJoins/10))
	load(ctx, clients, time.Second, warm, one)
	cpu := totalCPU(c.procs)
	s := load(ctx, clients, b.duration, int64(b.maxJoins)-warm, one)
	s.cpu = totalCPU(c.procs) - cpu
	return s.value(), c, nil
}

// joinRequest is what machine number i sends.
func joinRequest(token string, i int) string {
	key, _ := ecdh.X25519().GenerateKey(rand.Reader)
	var public []int // on this wire, bytes are an array of numbers
	for _, b := range key.PublicKey().Bytes() {
		public = append(public, int(b))
	}
	body, _ := json.Marshal(map[string]any{
		"token": token, "advertise_addr": fmt.Sprintf("127.%d.%d.%d", 1+i>>16, i>>8&255, i&255),
		"overlay_port": 51420, "raft_port": 9000, "api_port": 3669, "mode": "full", "os": "linux", "arch": "amd64",
		"wg_public_key": base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), "secrets_pubkey": public,
	})
	return string(body)
}

// list reads the members that have joined, and looks at the memory they cost.
func (b *bench) list(ctx context.Context, c *musterCluster, joined int) {
	leader, err := findLeader(ctx, c)
	if err != nil {
		b.report.note("list of members: %v", err)
		return
	}
	var times []time.Duration
	var count int
	for range 20 {
		var answer struct{ Result []json.RawMessage }
		begin := time.Now()
		if err := c.admin[leader].call(ctx, "GET", "/api/v1/cluster/members", "", "", &answer); err != nil {
			b.report.note("list of members: %v", err)
			return
		}
		times = append(times, time.Since(begin))
		count = len(answer.Result)
	}
	v := value{}
	v.latencies(times)
	v.Value = v.P50
	var bytes float64
	for _, p := range c.procs {
		bytes = max(bytes, p.rss())
	}
	b.report.add(fmt.Sprintf("list of %d members", count), "ms", true, outcome{"muster": &v}, below(60, "ms"))
	b.report.add(fmt.Sprintf("RSS of the largest server, %d members", count), "MB", true, outcome{"muster": {Value: bytes / 1e6}}, below(150, "MB"))
	if count < 10000 {
		b.report.note("the goals for the list and the memory are about 10000 members: these are %d (see -joins and -d)", count)
	}
}
