package autopilot

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Binary is the version that a member has announced.
type Binary struct {
	NodeID    uint64
	Version   string
	MaxSchema int64 // 0: the member runs no muster; it has joined over HTTP
}

// The states of an UpgradeMember.
const (
	UpgradeDone    = "upgraded"
	UpgradeNext    = "next"
	UpgradeWaiting = "waiting"
	UpgradeDown    = "down" // it has the other version and does not answer
)

// UpgradeMember is one member in the order in which they are restarted.
type UpgradeMember struct {
	NodeID     uint64    `json:"nodeId"`
	Name       string    `json:"name"`
	Zone       string    `json:"zone,omitempty"`
	Role       string    `json:"role,omitempty"` // empty outside Raft
	IsLeader   bool      `json:"isLeader"`
	NodeStatus string    `json:"nodeStatus"`
	DownSince  time.Time `json:"downSince,omitzero"`
	Healthy    bool      `json:"healthy"`
	Version    string    `json:"version"`
	MaxSchema  int64     `json:"maxSchema"`
	State      string    `json:"state"`
	Note       string    `json:"note,omitempty"` // what to know before its restart
}

// Upgrade describes which member runs which version, which one to restart next, and why none may be restarted now.
type Upgrade struct {
	Target       string          `json:"target"`       // the version to upgrade to
	Schema       int64           `json:"schema"`       // of the database
	NewestSchema int64           `json:"newestSchema"` // known to the target; 0: no member runs it yet
	Done         bool            `json:"done"`
	Summary      string          `json:"summary"`
	Next         uint64          `json:"next,omitempty"` // 0: none now
	Wait         []string        `json:"wait"`           // why none may be restarted now
	Members      []UpgradeMember `json:"members"`        // in the order of restarts
}

// UpgradeInput is the input of PlanUpgrade.
type UpgradeInput struct {
	State    State
	Config   Config
	Binaries []Binary
	Schema   int64    // of the database
	Target   string   // empty: the newest version that a member runs
	Wait     []string // other reasons against a restart now
	// LeaderSince is when the leader began; zero when unknown.
	LeaderSince time.Time
	// Leaves are the certificates that members present to each other.
	Leaves []Leaf
}

// Leaf is the expiry of a certificate of a member.
type Leaf struct {
	NodeID   uint64
	Kind     string
	NotAfter time.Time
}

// leafLeast is how long a certificate must still be valid. It is normally renewed weeks earlier, and a member that
// starts with an expired one must join again.
const leafLeast = 7 * 24 * time.Hour

// PlanUpgrade is pure, like Decide. The order is: members outside Raft, stand-bys, voters, the leader; within each kind
// zone by zone. One member is restarted at a time, and only while all Raft servers that answer are healthy and the
// remaining voters are a majority.
func PlanUpgrade(in UpgradeInput, now time.Time) Upgrade {
	p := &planner{UpgradeInput: in, now: now, up: Upgrade{Schema: in.Schema, Wait: []string{}, Members: []UpgradeMember{}}}
	p.collect()
	p.aim()
	p.judge()
	p.summarize()
	return p.up
}

type planner struct {
	UpgradeInput
	now             time.Time
	up              Upgrade
	behind, down    int // members that do not run the target; those of them that do not answer
	voters, healthy int
}

// collect orders the members that run a muster.
func (p *planner) collect() {
	servers := make(map[uint64]*Server, len(p.State.Servers))
	for i := range p.State.Servers {
		v := &p.State.Servers[i]
		servers[v.NodeID] = v
		if v.HasVotingRights {
			p.voters++
			if v.Healthy {
				p.healthy++
			}
		}
	}
	for _, b := range p.Binaries {
		v := servers[b.NodeID]
		if v == nil || b.MaxSchema == 0 {
			continue
		}
		p.up.Members = append(p.up.Members, UpgradeMember{
			NodeID:     b.NodeID,
			Name:       v.Name,
			Zone:       v.Zone,
			Role:       v.Role,
			IsLeader:   v.IsLeader,
			NodeStatus: v.NodeStatus,
			DownSince:  v.DownSince,
			Healthy:    v.Healthy,
			Version:    b.Version,
			MaxSchema:  b.MaxSchema,
		})
		p.notReady(v, b)
	}
	rank := func(m *UpgradeMember) int {
		switch {
		case m.IsLeader:
			return 4
		case m.Role == RoleVoter:
			return 3
		case m.Role == RoleStandBy:
			return 2
		case m.Role == RoleSpare:
			return 1
		}
		return 0
	}
	slices.SortFunc(p.up.Members, func(a, b UpgradeMember) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.NodeID, b.NodeID))
	})
}

// notReady records why no member may be restarted before this one is healthy again.
func (p *planner) notReady(v *Server, b Binary) {
	patience := p.Config.LastContactThreshold.Std() + p.Config.Stabilization.Std()
	who := called(v.Name, v.NodeID)
	switch {
	case v.Role == RoleOutside && Gone(v.NodeStatus):
	case v.DrainState == DrainDraining:
		p.wait(who + " is draining")
	case v.NodeStatus == StatusUnknown:
		p.wait(who + " has not answered this leader yet")
	case v.NodeStatus == StatusAlive && v.Version != "" && v.Version != b.Version:
		p.wait(who + " has just been restarted")
	case v.NodeStatus == StatusAlive && (v.Recovering || !v.Healthy):
		p.wait(who + " is not well yet: " + v.Reason)
	case v.NodeStatus == StatusAlive && v.DiskLow:
		p.wait(who + " is low on disk space: a start needs some")
	case Gone(v.NodeStatus) && v.Silent(p.now) > 0 && v.Silent(p.now) <= patience:
		p.wait(who + " has not answered for " + brief(v.Silent(p.now)))
	}
}

func (p *planner) wait(why string) { p.up.Wait = append(p.up.Wait, why) }

func called(name string, id uint64) string {
	if name == "" {
		return "node " + utoa(id)
	}
	return name + " (" + utoa(id) + ")"
}

// aim finds the version to upgrade to.
func (p *planner) aim() {
	p.up.Target = p.Target
	if p.Target == "" {
		var newest *UpgradeMember
		for i := range p.up.Members {
			m := &p.up.Members[i]
			if newest == nil || cmp.Or(cmp.Compare(m.MaxSchema, newest.MaxSchema),
				compareVersions(m.Version, newest.Version)) > 0 {
				newest = m
			}
		}
		if newest != nil {
			p.up.Target = newest.Version
		}
	}
	for i := range p.up.Members {
		m := &p.up.Members[i]
		if m.Version == p.up.Target {
			m.State = UpgradeDone
			p.up.NewestSchema = max(p.up.NewestSchema, m.MaxSchema)
			continue
		}
		p.behind++
		m.State = UpgradeWaiting
		if Gone(m.NodeStatus) {
			m.State = UpgradeDown
			m.Note = "does not answer: start it with the new version, or remove it"
			p.down++
		}
	}
}

// judge finds the next member, and whether it may be restarted now.
func (p *planner) judge() {
	if s := p.up.NewestSchema; s > 0 && s < p.Schema {
		p.wait("a step back: " + p.up.Target + " knows the schema up to " + strconv.FormatInt(s, 10) +
			", and the database has " +
			strconv.FormatInt(p.Schema, 10))
	}
	if age := p.now.Sub(p.LeaderSince); !p.LeaderSince.IsZero() && age < p.Config.Stabilization.Std() {
		p.wait("the leader leads for " + brief(max(0, age)) + " only: it judges the others after " +
			brief(p.Config.Stabilization.Std()))
	}
	for _, why := range p.Wait {
		p.wait(why)
	}
	p.expiring()
	i := slices.IndexFunc(p.up.Members, func(m UpgradeMember) bool { return m.State == UpgradeWaiting })
	if i < 0 {
		return
	}
	m := &p.up.Members[i]
	m.State = UpgradeNext
	if m.Role == RoleVoter {
		p.mayLose(m)
	}
	if len(p.State.Servers) == 0 || p.State.LeaderNodeID == 0 {
		p.wait("the leader has not looked at the members yet")
	}
	if len(p.up.Wait) == 0 {
		p.up.Next = m.NodeID
	} else {
		m.State = UpgradeWaiting
	}
}

// expiring records certificates that were not renewed. Those of members that are upgraded or do not answer do not
// affect the next restart.
func (p *planner) expiring() {
	for _, l := range p.Leaves {
		left := l.NotAfter.Sub(p.now)
		i := slices.IndexFunc(p.up.Members, func(m UpgradeMember) bool {
			return m.NodeID == l.NodeID && m.State == UpgradeWaiting
		})
		if i < 0 || left >= leafLeast {
			continue
		}
		who := "the " + l.Kind + " certificate of " + called(p.up.Members[i].Name, l.NodeID)
		if left <= 0 {
			p.wait(who + " has expired: it would not be let in again")
		} else {
			p.wait(who + " expires in " + brief(left) + ", and nobody has renewed it")
		}
	}
}

// mayLose judges the votes without a voter that restarts.
func (p *planner) mayLose(m *UpgradeMember) {
	left := p.healthy
	if m.Healthy {
		left--
	}
	switch need := majority(p.voters); {
	case p.voters-1 < need:
		m.Note = "nothing can be written while it restarts: the cluster has " + count(p.voters, "voter")
	case left < need:
		p.wait("without " + called(m.Name, m.NodeID) + " only " + outOf(left, p.voters) +
			" voters are well, and a majority needs " +
			itoa(need))
	case m.IsLeader:
		m.Note = "leads: it gives leadership to another member when it stops"
	}
	alone := m.Zone != ""
	for _, o := range p.up.Members {
		if o.NodeID != m.NodeID && o.Zone == m.Zone && o.Role == RoleVoter {
			alone = false
		}
	}
	if alone && m.Note == "" {
		m.Note = "zone " + m.Zone + " has no vote while it restarts"
	}
}

func (p *planner) summarize() {
	all := count(len(p.up.Members), "member")
	newest := max(p.Schema, p.up.NewestSchema)
	p.up.Done = p.behind == 0 && p.Schema >= newest && len(p.up.Members) > 0
	switch {
	case len(p.up.Members) == 0:
		p.up.Summary = "no member is known yet"
	case p.up.Done:
		p.up.Summary = "done: " + all + " run " + p.up.Target + ", and the database has schema " +
			strconv.FormatInt(p.Schema, 10) + ", the newest"
	case p.behind == 0:
		p.up.Summary = all + " run " + p.up.Target + "; the leader is about to apply schema " + strconv.FormatInt(newest, 10)
	default:
		p.up.Summary = itoa(len(p.up.Members)-p.behind) + " of " + all + " run " + p.up.Target
		switch {
		case p.up.Next != 0:
			i := slices.IndexFunc(p.up.Members, func(m UpgradeMember) bool { return m.NodeID == p.up.Next })
			p.up.Summary += "; next is " + called(p.up.Members[i].Name, p.up.Next)
		case p.behind == p.down:
			p.up.Summary += "; the rest does not answer"
		default:
			p.up.Summary += "; nobody may be restarted now"
		}
	}
}

// compareVersions compares the numbers in two versions, part by part: v1.10.0 is newer than v1.9.2. Other parts are
// compared as text.
func compareVersions(a, b string) int {
	split := func(s string) []string {
		return strings.FieldsFunc(strings.TrimPrefix(s, "v"), func(r rune) bool { return r == '.' || r == '-' || r == '+' })
	}
	x, y := split(a), split(b)
	for i := range min(len(x), len(y)) {
		m, err1 := strconv.ParseUint(x[i], 10, 64)
		n, err2 := strconv.ParseUint(y[i], 10, 64)
		c := cmp.Compare(x[i], y[i])
		if err1 == nil && err2 == nil {
			c = cmp.Compare(m, n)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}
