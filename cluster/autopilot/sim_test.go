package autopilot

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// node is what is true of a machine in the simulated cluster.
type node struct {
	Observation
	up     bool
	behind int // seconds until its replica has caught up
}

// works: it runs and stores, so that its vote counts.
func (n *node) works() bool { return n.up && n.CannotStore == "" }

// sim is a cluster under a simulated clock with an executor that fails now and
// then. Raft itself is reduced to what matters here: a leader needs a majority
// of running voters, and configuration changes work while there is one.
type sim struct {
	t        testing.TB
	rnd      *rand.Rand
	cfg      Config
	now      time.Time
	nodes    []*node
	leader   uint64
	since    time.Time
	previous map[uint64]Health
	next     uint64
	zones    int

	events, changes int
	eventAt         time.Time
	last            map[uint64]Change // last change to a node
	calm            map[uint64]bool   // and whether the world was calm then
	lastEvents      map[uint64]int    // and how many events there had been
	log             []string
}

func newSim(t testing.TB, seed uint64) *sim {
	s := &sim{
		t:          t,
		rnd:        rand.New(rand.NewPCG(seed, 7)),
		cfg:        testConfig(),
		now:        t0,
		next:       1,
		last:       map[uint64]Change{},
		calm:       map[uint64]bool{},
		lastEvents: map[uint64]int{},
	}
	s.cfg.MaxVoters = []int{3, 5, 7}[s.rnd.IntN(3)]
	s.cfg.StandBys = s.rnd.IntN(4)
	s.zones = s.rnd.IntN(5) // 0: nobody has one
	s.cfg.RedundancyZones = s.rnd.IntN(4) == 0
	s.join(RoleVoter)
	return s
}

func (s *sim) Fatalf(f string, a ...any) {
	s.t.Helper()
	for _, l := range s.log {
		s.t.Log(l)
	}
	s.t.Fatalf(f, a...)
}

func (s *sim) say(f string, a ...any) {
	s.log = append(s.log, fmt.Sprintf("%4.0f s  ", s.now.Sub(t0).Seconds())+fmt.Sprintf(f, a...))
}

func (s *sim) join(role string) *node {
	n := &node{up: true, Observation: Observation{
		NodeID:     s.next,
		Mode:       ModeFull,
		DrainState: DrainActive,
		Member:     true,
		Role:       role,
	}}
	if s.rnd.IntN(6) == 0 && role != RoleVoter {
		n.Mode = ModeReplicate
	}
	if s.zones > 0 {
		n.Zone = string(rune('a' + s.rnd.IntN(s.zones)))
	}
	s.next++
	s.nodes = append(s.nodes, n)
	s.say("node %d joins, %s, zone %s", n.NodeID, n.Mode, n.Zone)
	return n
}

func (s *sim) voters() (all, up int) {
	for _, n := range s.nodes {
		if n.Role == RoleVoter {
			all++
			if n.works() {
				up++
			}
		}
	}
	return all, up
}

func (s *sim) at(id uint64) *node {
	for _, n := range s.nodes {
		if n.NodeID == id {
			return n
		}
	}
	return nil
}

func (s *sim) happened() { s.events, s.eventAt = s.events+1, s.now }

// event changes one thing in the world, as machines and operators do.
func (s *sim) event() {
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	s.happened()
	switch k := s.rnd.IntN(24); {
	case k < 5 && len(s.nodes) < 14:
		s.join(RoleOutside)
	case k < 9:
		if n.up {
			// Deaths that cost the majority end the game, they are not
			// autopilot's; mostly leave them out.
			if s.spares(n) {
				return
			}
		}
		n.up = !n.up
		s.say("node %d up: %v", n.NodeID, n.up)
	case k < 12:
		n.up = true
		s.say("node %d up", n.NodeID)
	case k < 15:
		n.DrainState = []string{DrainActive, DrainActive, DrainDraining, DrainDrained}[s.rnd.IntN(4)]
		s.say("node %d %s", n.NodeID, n.DrainState)
	case k == 15:
		n.Mode = []string{ModeFull, ModeFull, ModeReplicate}[s.rnd.IntN(3)]
		s.say("node %d %s", n.NodeID, n.Mode)
	case k == 16:
		n.Pinned = s.rnd.IntN(2) == 0
		s.say("node %d pinned: %v", n.NodeID, n.Pinned)
	case k == 17:
		s.cfg.MaxVoters = []int{3, 5, 7}[s.rnd.IntN(3)]
		s.say("max voters %d", s.cfg.MaxVoters)
	case k == 18:
		s.cfg.StandBys = s.rnd.IntN(4)
		s.say("stand-bys %d", s.cfg.StandBys)
	case k == 22 && s.zones > 0: // restarted with another zone
		n.Zone = string(rune('a' + s.rnd.IntN(s.zones)))
		s.say("node %d moves to zone %s", n.NodeID, n.Zone)
	case k == 23 && s.zones > 0: // a whole zone goes, if the others can do without
		s.loseZone(n.Zone)
	case k >= 20:
		if n.CannotStore == "" && !s.spares(n) && s.rnd.IntN(2) == 0 {
			n.CannotStore = "its disk does not answer"
		} else {
			n.CannotStore = ""
		}
		s.say("node %d cannot store: %q", n.NodeID, n.CannotStore)
	case k == 19 && n.NodeID != s.leader:
		// An operator removes a member: its row goes, Raft still has it.
		if CanRemove(s.input(), n.NodeID) == nil {
			s.say("node %d removed", n.NodeID)
			n.Member, n.Mode, n.DrainState, n.Pinned = false, "", "", false
			s.sweep()
		}
	}
}

// loseZone stops the machines of a zone, unless they are the majority.
func (s *sim) loseZone(zone string) {
	all, up := s.voters()
	for _, n := range s.nodes {
		if n.Role == RoleVoter && n.works() && n.Zone == zone {
			up--
		}
	}
	if up < majority(all) {
		return
	}
	s.say("zone %s is lost", zone)
	for _, n := range s.nodes {
		if n.Zone == zone {
			n.up = false
		}
	}
}

// spares: without this machine there would be no majority; mostly leave that out.
func (s *sim) spares(n *node) bool {
	all, up := s.voters()
	return n.Role == RoleVoter && n.works() && up-1 < majority(all) && s.rnd.IntN(8) > 0
}

// sweep forgets what has neither a row nor a place in Raft.
func (s *sim) sweep() {
	var keep []*node
	for _, n := range s.nodes {
		if n.Member || n.Role != RoleOutside {
			keep = append(keep, n)
		}
	}
	s.nodes = keep
}

func (s *sim) input() Input {
	in := Input{LeaderID: s.leader, LeaderRevision: 100_000, LeaderSince: s.since, Previous: s.previous}
	for _, n := range s.nodes {
		o := n.Observation
		o.Revision = in.LeaderRevision
		if n.behind > 0 {
			o.Revision = 10
		}
		in.Members = append(in.Members, o)
	}
	s.rnd.Shuffle(len(in.Members), func(i, j int) { in.Members[i], in.Members[j] = in.Members[j], in.Members[i] })
	return in
}

// elect makes somebody leader if the present one is gone and a majority runs.
func (s *sim) elect() {
	if l := s.at(s.leader); l != nil && l.up && l.Role == RoleVoter {
		return
	}
	s.leader = 0
	all, up := s.voters()
	if up < majority(all) {
		return
	}
	for _, n := range s.nodes {
		if n.Role == RoleVoter && n.works() && n.behind == 0 && (s.leader == 0 || s.rnd.IntN(3) == 0) {
			s.lead(n.NodeID)
		}
	}
}

func (s *sim) lead(id uint64) {
	s.leader, s.since, s.previous = id, s.now, nil
	for _, n := range s.nodes {
		n.LastContact = time.Time{}
	}
	s.say("node %d leads", id)
}

// second lets one second pass: probes, election, a decision, its execution.
func (s *sim) second() {
	s.now = s.now.Add(time.Second)
	s.elect()
	all, up := s.voters()
	if s.leader == 0 || up < majority(all) {
		return
	}
	for _, n := range s.nodes {
		if n.up && n.NodeID != s.leader {
			n.LastContact = s.now.Add(-time.Duration(s.rnd.IntN(900)) * time.Millisecond)
		}
		if n.up && n.behind > 0 {
			n.behind--
		}
	}
	in := s.input()
	st, p := Decide(in, s.cfg, s.now)
	checkPlan(s, in, s.cfg, s.now, st, p)
	s.previous = Carry(st)
	for _, c := range p {
		if s.rnd.IntN(8) == 0 || !s.answers(c) {
			s.say("failed: %+v", c)
			break
		}
		s.do(c)
	}
	s.sweep()
	if nv, nup := s.voters(); nup < majority(nv) {
		s.Fatalf("the plan %+v leaves %d running of %d voters", p, nup, nv)
	}
}

// answers is the last probe that Plan asks of its executor: of the node that
// gets something, or of the voters that remain when one that runs goes.
func (s *sim) answers(c Change) bool {
	n := s.at(c.NodeID)
	all, up := s.voters()
	switch {
	case c.Kind == KindPromote || c.Kind == KindAdd || c.Kind == KindTransfer:
		return n.works()
	case n.Role == RoleVoter && n.works():
		return up-1 >= majority(all-1)
	case n.Role == RoleVoter:
		return up >= majority(all-1)
	}
	return true
}

func (s *sim) do(c Change) {
	s.say("%s %d: %s", c.Kind, c.NodeID, c.Reason)
	s.changes++
	n := s.at(c.NodeID)
	if c.Kind == KindTransfer {
		s.lead(c.NodeID)
		return
	}
	// Nothing is undone unless something happened in between, or so shortly
	// before that its effect was still to come: a silence is noticed after 2 s,
	// costs a seat after 12 s, and a return counts after 10 s.
	undone := map[Kind]Kind{KindPromote: KindDemote, KindDemote: KindPromote, KindAdd: KindRemove, KindRemove: KindAdd}
	if l, ok := s.last[c.NodeID]; ok && undone[l.Kind] == c.Kind && s.calm[c.NodeID] &&
		s.lastEvents[c.NodeID] == s.events {
		s.Fatalf("flapping: %+v after %+v", c, l)
	}
	s.last[c.NodeID], s.lastEvents[c.NodeID] = c, s.events
	s.calm[c.NodeID] = s.now.Sub(s.eventAt) > 15*time.Second
	if c.Kind == KindAdd {
		n.behind = 1 + s.rnd.IntN(6)
	}
	n.Role = c.Role
}
