package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/client"
)

func sortStrings(s []string) { slices.Sort(s) }

// target is the place that a fault hits.
func (c *campaign) target(s *step) int {
	if s.leader {
		if place := c.leader(); place >= 0 {
			return place
		}
	}
	return s.a
}

// other is a place beside the one that is hit.
func (c *campaign) other(place int, s *step) int {
	if s.b != place {
		return s.b
	}
	return (place + 1) % c.plan.members
}

// hurt does what a step says; the function that it returns ends it.
func (c *campaign) hurt(s *step) (undo func()) {
	place := c.target(s)
	m := c.member(place)
	back := func() {
		if err := m.start(); err != nil {
			c.violate("%s does not start: %v", m.name, err)
		}
	}
	switch s.kind {
	case "kill":
		m.kill()
		return back
	case "kill-all":
		return c.killSeveral(place, c.plan.members)
	case "kill-majority":
		return c.killSeveral(place, c.plan.members/2+1)
	case "terminate":
		if fault := m.terminate(c.host); fault != "" {
			c.violate("%s", fault)
		}
		return back
	case "freeze":
		m.freeze(true)
		return func() { m.freeze(false) }
	case "disk-full":
		return c.fillDisk(m)
	case "disk-stuck":
		return c.stopDisk(m)
	case "transfer", "drain", "replace", "rotate-data-key", "rotate-join-keys", "rotate-ca":
		return c.operate(s, place)
	}
	return c.disconnect(s, place)
}

func (c *campaign) killSeveral(first, n int) (undo func()) {
	var list []*member
	for i := range n {
		list = append(list, c.member((first+i)%c.plan.members))
	}
	var wait sync.WaitGroup
	for _, m := range list {
		wait.Go(m.kill)
	}
	wait.Wait()
	return func() {
		for _, m := range list {
			if err := m.start(); err != nil {
				c.violate("%s does not start: %v", m.name, err)
			}
		}
	}
}

// disconnect hurts ways between members.
func (c *campaign) disconnect(s *step, place int) (undo func()) {
	other := c.other(place, s)
	var ways [][2]int
	out, in := [2]int{place, other}, [2]int{other, place}
	switch s.kind {
	case "cut-one-way":
		ways = [][2]int{out}
		if s.choice%2 == 0 {
			ways[0] = in
		}
	case "isolate", "deafen", "silence":
		for i := range c.plan.members {
			if s.kind != "silence" {
				ways = append(ways, [2]int{i, place})
			}
			if s.kind != "deafen" {
				ways = append(ways, [2]int{place, i})
			}
		}
	default:
		ways = [][2]int{out, in}
	}
	each := func(change func(*link)) {
		for _, w := range ways {
			c.net.set(w[0], w[1], change)
		}
	}
	switch s.kind {
	case "delay":
		each(func(l *link) { l.delay = time.Duration(10+2*s.choice) * time.Millisecond })
	case "refuse":
		each(func(l *link) { l.refuse = true })
	default:
		each(func(l *link) { l.cut = true })
	}
	return func() { each(func(l *link) { l.cut, l.refuse, l.delay = false, false, 0 }) }
}

// operate does what an operator does, through a member that answers. It goes on beside what else happens.
func (c *campaign) operate(s *step, place int) (undo func()) {
	ended := make(chan struct{})
	after := func() {}
	m := c.member(place)
	through := c.member(c.other(place, s))
	go func() {
		defer close(ended)
		switch s.kind {
		case "transfer":
			list, err := c.list(through)
			i := slices.IndexFunc(list, func(x client.Member) bool { return x.NodeID == m.id.Load() })
			if err == nil && i >= 0 {
				c.operator(through, "PUT", "/v1/operator/raft/transfer-leadership?id="+list[i].ID, "")
			}
		case "drain":
			c.operator(through, "POST", fmt.Sprintf("%s/%d/drain", membersPath, m.id.Load()), `{"deadlineSeconds":1}`)
		case "rotate-data-key":
			c.operator(through, "POST", "/api/v1/cluster/keys/rotate", `{}`)
		case "rotate-join-keys":
			c.operator(through, "POST", "/api/v1/cluster/join-keys/rotate", `{}`)
		case "rotate-ca":
			c.operator(through, "POST", "/api/v1/cluster/ca/rotate",
				fmt.Sprintf(`{"kind":%q,"overlap":"2s"}`, []string{"transport", "http"}[s.choice%2]))
		case "replace":
			c.replace(m, through)
		}
	}()
	if s.kind == "drain" {
		after = func() { c.resume(m) }
	}
	return func() { <-ended; after() }
}

// operator sends a request that may take its time and may fail while something else is wrong.
func (c *campaign) operator(m *member, method, path, body string) answer {
	a := c.try(m, method, path, body, 75*time.Second)
	if a.verdict == strange {
		c.violate("%s answers %s %s with %v", m.name, method, path, a)
	}
	if a.verdict != done {
		c.note("%s %s through %s: %v", method, path, m.name, a)
	}
	return a
}

// resume takes a drain back; a drained member would never lead again.
func (c *campaign) resume(m *member) {
	err := c.host.Within(patience, func() error {
		for _, x := range c.members() {
			if a := c.try(x, "POST", fmt.Sprintf("%s/%d/resume", membersPath, m.id.Load()), "",
				20*time.Second); a.verdict == done || a.verdict == refused {
				return nil
			} else if x.answers() {
				c.note("resume of %s through %s: %v", m.name, x.name, a)
			}
		}
		return errors.New("nobody does it")
	})
	if err != nil {
		c.violate("%s is not resumed: %v", m.name, err)
	}
}

// drain drains a member and waits until it is.
func (c *campaign) drain(m, through *member) error {
	if a := c.operator(through, "POST", fmt.Sprintf("%s/%d/drain", membersPath, m.id.Load()),
		`{"deadlineSeconds":1}`); a.verdict != done {
		return fmt.Errorf("it is not drained: %v", a)
	}
	return c.host.Within(20*time.Second, func() error {
		x, err := result[client.Member](c.try(through, "GET", fmt.Sprintf("%s/%d", membersPath, m.id.Load()), "", bound))
		if err == nil && (x.DrainState != "drained" || x.IsLeader) {
			err = fmt.Errorf("it is %s", x.DrainState)
		}
		return err
	})
}

// replace removes a member and lets a new one join in its place.
func (c *campaign) replace(m, through *member) {
	if err := c.drain(m, through); err != nil {
		c.note("%s is not removed: %v", m.name, err)
		c.resume(m)
		return
	}
	m.mu.Lock()
	m.wanted = false // once removed it may end
	m.mu.Unlock()
	a := c.operator(through, "DELETE", fmt.Sprintf("%s/%d", membersPath, m.id.Load()), "")
	gone := a.verdict == done
	if a.verdict == unknown || a.verdict == strange {
		err := c.host.Within(patience, func() error {
			list, err := c.list(through)
			gone = err == nil && !slices.ContainsFunc(list, func(x client.Member) bool { return x.NodeID == m.id.Load() })
			return err
		})
		if err != nil {
			c.violate("whether %s was removed cannot be found out: %v", m.name, err)
		}
	}
	if !gone {
		m.mu.Lock()
		m.wanted = true
		m.mu.Unlock()
		_ = m.start()
		c.resume(m)
		return
	}
	m.kill()
	c.takeDisk(m)
	fresh := c.newMember(m.place)
	c.mu.Lock()
	c.past = append(c.past, m)
	c.places[m.place] = fresh
	c.mu.Unlock()
	if err := c.host.Within(patience, func() error { return c.admit(fresh) }); err != nil {
		c.violate("%s does not join: %v\n%s", fresh.name, err, lastLines(fresh.log, 10))
	}
}

// admit lets a new machine join. A removal ends the tokens that were made before it, also this one's: then it gets
// another.
func (c *campaign) admit(m *member) error {
	p := m.current()
	if p != nil && p.running() {
		return m.ready()
	}
	if p != nil && !strings.Contains(lastLines(m.log, 1), "superseded") {
		c.violate("%s has ended while it joined (%v): %s", m.name, p.cmd.ProcessState, lastLines(m.log, 10))
	}
	token, err := c.joinToken(c.member(c.other(m.place, &step{b: m.place})))
	if err != nil {
		return err
	}
	if i := slices.Index(m.args, "--join"); i >= 0 {
		m.args = m.args[:i]
	}
	m.args = append(m.args, "--join", token)
	if err := m.start(); err != nil {
		return err
	}
	return errors.New("it has been started")
}
