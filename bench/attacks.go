package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	attackerAddress = "127.0.0.9" // clients come from another one
	attackSettle    = time.Second
	attackP99       = 50 // ms more
	attackMemory    = 60 // MB more
)

// attacks measures what each attack from one address does to a client at another one and to the leader's memory. Each
// has a new cluster: what one attack has left in the memory would hide what the next one takes.
func (b *bench) attacks(ctx context.Context) {
	if b.muster == nil {
		return
	}
	fail := func(name string, err error) {
		out := outcome{}
		out.fail(b.muster, err)
		b.add(ctx, "attacks: "+name, "ms", true, out, nil)
	}
	attacker := filepath.Join(b.fleet.dir, "attacker")
	build := exec.CommandContext(ctx, "go", "-C", "..", "build", "-o", attacker, "./e2e/attack/attacker")
	if out, err := build.CombinedOutput(); err != nil {
		fail("building the attacker", fmt.Errorf("%w: %s", err, out))
		return
	}
	names, err := exec.CommandContext(ctx, attacker).Output()
	if err != nil {
		fail("the attacker", err)
		return
	}
	for name := range strings.Lines(string(names)) {
		name = strings.TrimSpace(name)
		if err := b.attack(ctx, attacker, name); err != nil {
			fail(name, err)
		}
	}
}

// attack measures one attack.
func (b *bench) attack(ctx context.Context, attacker, name string) error {
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		return err
	}
	c := started.(*musterCluster)
	defer stop(c)
	leader, err := findLeader(ctx, c)
	if err != nil {
		return err
	}
	credential, err := c.powerless(ctx, leader)
	if err != nil {
		return err
	}
	b.readFor(ctx, c, leader, time.Second, false) // warm up
	kept, fresh := b.readFor(ctx, c, leader, b.duration, false), b.readFor(ctx, c, leader, b.duration, true)
	before := c.procs[leader].rss()
	// A process of its own with a low priority: a real attacker takes none of the member's processor.
	p, err := b.fleet.launch(c.dir, "attacker", "nice", "-n", "10", attacker, name, c.apis[leader], attackerAddress,
		credential)
	if err != nil {
		return err
	}
	defer p.kill()
	pause(ctx, attackSettle)
	most := c.procs[leader].watchRSS()
	keptBeside, freshBeside := b.readFor(ctx, c, leader, b.duration, false), b.readFor(ctx, c, leader, b.duration, true)
	more := (most() - before) / 1e6
	if err := p.gone(); err != nil {
		return err
	}
	row := func(what, unit string, v value, g *goal) {
		b.add(ctx, "attacks: "+name+", "+what, unit, true, outcome{"muster": &v}, g)
	}
	for _, x := range []struct {
		what         string
		alone, under sample
	}{{"p99 on a kept connection", kept, keptBeside}, {"p99 with a new connection", fresh, freshBeside}} {
		alone, under := x.alone.value(), x.under.value()
		under.Value = under.P99
		g := below(math.Round(alone.P99+attackP99), "ms")
		g.text += fmt.Sprintf(" (%.1f alone)", alone.P99)
		row(x.what, "ms", under, g)
	}
	row("RSS of the leader, more", "MB", value{Value: more}, below(attackMemory, "MB"))
	return nil
}

// readFor reads the list of members in a loop for some time, on one connection or on a new one each time.
func (b *bench) readFor(ctx context.Context, c *musterCluster, member int, d time.Duration, fresh bool) sample {
	kept := c.connect(member, false)
	defer kept.close()
	return load(ctx, 1, d, 1<<20, func(ctx context.Context, _ int) error {
		conn := kept
		if fresh {
			conn = c.connect(member, false)
			defer conn.close()
		}
		return conn.read(ctx, "/api/v1/cluster/members")
	})
}

// powerless makes an API key that allows nothing, and returns the header that shows it.
func (c *musterCluster) powerless(ctx context.Context, member int) (string, error) {
	var raw []byte
	if err := c.admin[member].call(ctx, "PUT", "/_security/api_key",
		`{"name":"nothing","role_descriptors":{"x":{"cluster":[]}}}`, "", &raw); err != nil {
		return "", err
	}
	var made struct{ Encoded string }
	err := json.Unmarshal(raw, &made)
	return "ApiKey " + made.Encoded, err
}

// watchRSS watches the resident memory; the returned function ends that and returns the largest amount in bytes.
func (p *process) watchRSS() func() float64 {
	stop, done := make(chan struct{}), make(chan float64)
	go func() {
		for most := 0.0; ; {
			most = max(most, p.rss())
			select {
			case <-stop:
				done <- most
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() float64 { close(stop); return <-done }
}
