package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

const (
	joinClients = 64
	fillLimit   = 45 * time.Second // for growing the cluster to -members
)

// joins redeems one token many times, each time as another machine, and requests the full answer (wrapped key, JWT).
// Then the cluster grows to -members, and the joins and the list of members are measured again. The machines do not
// exist: only the servers' work is measured. The cluster is discarded afterwards.
func (b *bench) joins(ctx context.Context) {
	if b.muster == nil {
		return
	}
	j, err := b.newJoiner(ctx)
	if err != nil {
		b.add(ctx, "joins", "/s", false, outcome{"muster": {Error: err.Error()}}, nil)
		return
	}
	defer j.close()
	j.run(ctx, time.Second, joinClients) // warm up
	if missing := j.missing(); len(missing) > 0 {
		b.report.note("joins: the answers are not complete, so their figures flatter: without %s",
			strings.Join(missing, ", "))
	}
	measured := j.run(ctx, b.duration, b.maxJoins)
	full := fmt.Sprintf("joins: full answer, %d clients", joinClients)
	b.add(ctx, full, "/s", false, outcome{"muster": &measured}, &goal{
		text: "≥ 1000/s, p99 < 150 ms", met: func(v value, _ float64) bool { return v.Value >= 1000 && v.P99 < 150 }})
	if missing := b.members - int(j.done.Load()) - members; missing > 0 {
		j.run(ctx, fillLimit, missing)
	}
	count := int(j.done.Load()) + members
	if count < b.members {
		b.report.note("the cluster has %d members instead of %d: more did not join within %v", count, b.members, fillLimit)
	}
	j.list(ctx, b, count)
	again := j.run(ctx, min(b.duration, 2*time.Second), b.maxJoins)
	if last := j.last.Load(); last != nil {
		var answer struct{ Peers []json.RawMessage }
		json.Unmarshal(*last, &answer)
		b.report.note("joins: with %d members, the answer to one is %d kB long and lists %d peers",
			count, len(*last)/1000, len(answer.Peers))
	}
	b.add(ctx, fmt.Sprintf("joins: from %d members on", count), "/s", false, outcome{"muster": &again}, &goal{
		text: "as from 3 on", met: func(v value, _ float64) bool { return v.Value >= 0.9*measured.Value }})
}

// joiner simulates many machines that join one cluster through its leader.
type joiner struct {
	cluster *musterCluster
	leader  int
	conns   []*musterConn
	token   string
	next    atomic.Int64           // number of the next machine
	done    atomic.Int64           // answered joins
	last    atomic.Pointer[[]byte] // the last answer
}

func (b *bench) newJoiner(ctx context.Context) (*joiner, error) {
	system := *b.muster
	// Every member gets an address and a slice: a small network would be full too early.
	help, _ := exec.CommandContext(ctx, system.program, "serve", "--help").CombinedOutput()
	if strings.Contains(string(help), "--overlay-cidr") {
		system.flags = append(system.flags, "--overlay-cidr", "10.0.0.0/8")
	}
	started, err := system.start(ctx, b.fleet)
	if err != nil {
		return nil, err
	}
	j := &joiner{cluster: started.(*musterCluster)}
	if j.leader, err = findLeader(ctx, j.cluster); err == nil {
		var minted struct{ Result struct{ Token string } }
		request := fmt.Sprintf(`{"ttlSeconds":3600,"maxUses":%d}`, joinClients+2*b.maxJoins+b.members)
		err = j.cluster.admin[j.leader].call(ctx, "POST", "/api/v1/cluster/join-tokens", request, "", &minted)
		j.token = minted.Result.Token
	}
	if err != nil {
		j.close()
		return nil, err
	}
	for range joinClients {
		j.conns = append(j.conns, j.cluster.connect(j.leader, system.http2))
	}
	return j, nil
}

func (j *joiner) close() {
	for _, c := range j.conns {
		c.close()
	}
	stop(j.cluster)
}

// run lets at most limit machines join, for at most d.
func (j *joiner) run(ctx context.Context, d time.Duration, limit int) value {
	cpu := totalCPU(j.cluster.procs)
	s := load(ctx, joinClients, d, int64(limit), j.one)
	s.cpu = totalCPU(j.cluster.procs) - cpu
	return s.value()
}

func (j *joiner) one(ctx context.Context, client int) error {
	var answer []byte
	err := j.conns[client].call(ctx, "POST", "/api/v1/cluster/join", j.request(int(j.next.Add(1))), "", &answer)
	if err != nil {
		return err
	}
	j.done.Add(1)
	j.last.Store(&answer) // not decoded: with thousands of peers in it, that would be the greater part of the load here
	return nil
}

// missing returns the documented fields that the last answer lacks.
func (j *joiner) missing() (fields []string) {
	var answer map[string]json.RawMessage
	if last := j.last.Load(); last == nil || json.Unmarshal(*last, &answer) != nil {
		return nil
	}
	for _, f := range []string{"node_id", "raft_node_id", "overlay_ip", "slice_cidr", "peers", "role", "node_jwt",
		"wrapped_dek", "dek_generation", "join_secret"} {
		if answer[f] == nil {
			fields = append(fields, f)
		}
	}
	return fields
}

// request is the body of machine number i. Any 255 bits are an X25519 public key; making a real one would cost the
// joining machine's time.
func (j *joiner) request(i int) string {
	key := make([]byte, 32)
	rand.Read(key)
	key[31] &= 127
	numbers := make([]int, len(key)) // on this wire, bytes are an array of numbers
	for n, b := range key {
		numbers[n] = int(b)
	}
	body, _ := json.Marshal(map[string]any{
		"token": j.token, "advertise_addr": fmt.Sprintf("127.%d.%d.%d", 1+i>>16, i>>8&255, i&255),
		"overlay_port": 51420, "raft_port": 9000, "api_port": 3669, "mode": "full", "os": "linux", "arch": "amd64",
		"wg_public_key": base64.StdEncoding.EncodeToString(key), "secrets_pubkey": numbers,
	})
	return string(body)
}

// list reads all members twenty times, and measures their memory.
func (j *joiner) list(ctx context.Context, b *bench, count int) {
	var times []time.Duration
	v := value{}
	for range 20 {
		var answer struct{ Result []json.RawMessage }
		begin := time.Now()
		err := j.cluster.admin[j.leader].call(ctx, "GET", "/api/v1/cluster/members", "", "", &answer)
		if err == nil && len(answer.Result) < count {
			err = fmt.Errorf("%d members are listed", len(answer.Result))
		}
		if err != nil {
			v.Error = err.Error()
			break
		}
		times = append(times, time.Since(begin))
	}
	v.latencies(times)
	v.Value = v.P50
	b.add(ctx, fmt.Sprintf("members: list of %d", count), "ms", true, outcome{"muster": &v}, below(60, "ms"))
	j.scrape(ctx, b, count)
	j.cluster.weigh(ctx, b, fmt.Sprintf("%d members", count), 150, 120)
}

// scrape reads the leader's metrics, twenty times.
func (j *joiner) scrape(ctx context.Context, b *bench, count int) {
	var times []time.Duration
	v := value{}
	for range 20 {
		var text []byte
		begin := time.Now()
		if err := j.cluster.admin[j.leader].call(ctx, "GET", "/metrics", "", "", &text); err != nil {
			v.Error = err.Error()
			break
		}
		times = append(times, time.Since(begin))
	}
	v.latencies(times)
	v.Value = v.Max
	b.add(ctx, fmt.Sprintf("metrics: scrape of the leader with %d members, the slowest of 20", count), "ms", true,
		outcome{"muster": &v}, below(20, "ms"))
}
