package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

const enrollClients = 16

// enroll redeems one enrollment token many times, on a cluster of its own: the cluster makes and records a new key and
// certificate each time.
func (b *bench) enroll(ctx context.Context) {
	if b.muster == nil {
		return
	}
	for _, where := range []struct {
		name   string
		member func(context.Context, cluster) (int, error)
	}{{"leader", findLeader}, {"follower", findFollower}} {
		v, err := b.enrollAt(ctx, where.member)
		if err != nil {
			v.Error = err.Error()
		}
		b.add(ctx, fmt.Sprintf("enroll: %d clients, %s", enrollClients, where.name), "/s", false, outcome{"muster": &v},
			&goal{text: "≥ 200/s", met: func(v value, _ float64) bool { return v.Value >= 200 }})
	}
}

func (b *bench) enrollAt(ctx context.Context, member func(context.Context, cluster) (int, error)) (v value, err error) {
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		return v, err
	}
	c := started.(*musterCluster)
	defer stop(c)
	asked, err := member(ctx, c)
	if err != nil {
		return v, err
	}
	var made struct{ Result struct{ Token string } }
	if err := c.admin[asked].call(ctx, "POST", "/api/v1/cluster/enrollment-tokens",
		`{"maxUses":1000000}`, "", &made); err != nil {
		return v, err
	}
	raw, err := base64.StdEncoding.DecodeString(made.Result.Token)
	if err != nil {
		return v, err
	}
	var token struct{ Key string }
	if err := json.Unmarshal(raw, &token); err != nil {
		return v, err
	}
	var conns []*musterConn
	for range enrollClients {
		conn := c.connect(asked, b.muster.http2)
		conn.token = "ApiKey " + base64.StdEncoding.EncodeToString([]byte(token.Key))
		defer conn.close()
		conns = append(conns, conn)
	}
	one := func(ctx context.Context, client int) error {
		var answer struct {
			Cert string `json:"transport_cert"`
		}
		err := conns[client].call(ctx, "GET", "/_security/enroll/node", "", "", &answer)
		if err == nil && answer.Cert == "" {
			err = fmt.Errorf("the answer has no certificate")
		}
		return err
	}
	load(ctx, enrollClients, b.duration/4, 1<<40, one) // warm up
	cpu := totalCPU(c.procs)
	s := load(ctx, enrollClients, b.duration, 1<<40, one)
	s.cpu = totalCPU(c.procs) - cpu
	return s.value(), nil
}
