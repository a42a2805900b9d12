package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"
)

const peerings = 50

// peering mints tokens, each a committed change of one of 50 peerings, and reads one and all of them, next to puts and
// gets of etcd. Then it establishes 50 peerings with a second cluster and leaves them idle.
func (b *bench) peering(ctx context.Context) {
	if b.muster == nil {
		return
	}
	c, err := b.shared(ctx, b.muster)
	if err != nil {
		b.add(ctx, "peering", "/s", false, outcome{"muster": {Error: err.Error()}}, nil)
		return
	}
	here := c.(*musterCluster)
	if err := b.readable(ctx); err != nil {
		b.report.note("peering, etcd: %v", err)
	}
	for i := range peerings { // for the reads
		if _, err := here.peeringToken(ctx, fmt.Sprintf("bench-%d", i)); err != nil {
			b.add(ctx, "peering", "/s", false, outcome{"muster": {Error: err.Error()}}, nil)
			return
		}
	}
	var next atomic.Int64
	mint := func(ctx context.Context, c conn) error {
		m, ok := c.(*musterConn)
		if !ok {
			return c.write(ctx, "")
		}
		return m.call(ctx, "POST", "/v1/peering/token", fmt.Sprintf(`{"PeerName":"bench-%d"}`, next.Add(1)%peerings), "", nil)
	}
	read := func(path string) func(context.Context, conn) error {
		return func(ctx context.Context, c conn) error { return c.read(ctx, path) }
	}
	for _, x := range []struct {
		what string
		op   func(context.Context, conn) error
	}{{"tokens minted", mint}, {"one of 50 read", read("/v1/peering/bench-7")}, {"all 50 listed", read("/v1/peerings")}} {
		b.add(ctx, "peering: "+x.what+", 64 clients", "/s", false,
			b.throughput(ctx, job{clients: 64, member: findLeader, op: x.op}), nil)
	}
	busy, err := b.idlePeerings(ctx, here)
	v := &value{Value: busy}
	if err != nil {
		v.Error = err.Error()
	}
	b.add(ctx, fmt.Sprintf("peering: CPU of the busiest member, %d active peerings, idle", peerings), "% of a core", true,
		outcome{"muster": v}, below(2, "% of a core"))
}

func (c *musterCluster) peeringToken(ctx context.Context, name string) (string, error) {
	var answer struct{ PeeringToken string }
	err := c.admin[0].call(ctx, "POST", "/v1/peering/token", fmt.Sprintf(`{"PeerName":%q}`, name), "", &answer)
	return answer.PeeringToken, err
}

// idlePeerings connects a second cluster through all peerings and measures both while idle.
func (b *bench) idlePeerings(ctx context.Context, here *musterCluster) (float64, error) {
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		return 0, err
	}
	there := started.(*musterCluster)
	defer stop(there)
	for i := range peerings {
		token, err := here.peeringToken(ctx, fmt.Sprintf("bench-%d", i))
		if err != nil {
			return 0, err
		}
		body, _ := json.Marshal(map[string]string{"PeerName": fmt.Sprintf("there-%d", i), "PeeringToken": token})
		if err := there.admin[0].call(ctx, "POST", "/v1/peering/establish", string(body), "", nil); err != nil {
			return 0, err
		}
	}
	err = eventually(ctx, 30*time.Second, func(ctx context.Context) error {
		for _, c := range []*musterCluster{here, there} {
			var list []struct{ Name, State string }
			if err := c.admin[0].call(ctx, "GET", "/v1/peerings", "", "", &list); err != nil {
				return err
			}
			for _, p := range list {
				if p.State != "ACTIVE" {
					return fmt.Errorf("%s is %s", p.Name, p.State)
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	pause(ctx, 5*time.Second)
	all := append(append([]*process{}, here.procs...), there.procs...)
	before := make([]time.Duration, len(all))
	begin := time.Now()
	for i, p := range all {
		before[i] = p.cpu()
	}
	pause(ctx, 20*time.Second) // includes a heartbeat
	var busy float64
	for i, p := range all {
		busy = max(busy, (p.cpu()-before[i]).Seconds()/time.Since(begin).Seconds()*100)
	}
	return busy, nil
}
