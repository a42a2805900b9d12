// Package cluster is what members do by themselves: they prove who they are to each other, the leader probes the
// others, autopilot decides who votes and the reconcile loop makes the Raft configuration agree with SQL.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterhq/muster/cluster/autopilot"
	"github.com/musterhq/muster/store"
)

const (
	roundEvery    = 500 * time.Millisecond
	roundRest     = 20 // times as long as observing and deciding took
	maxRoundRest  = 5 * time.Second
	assignTimeout = 10 * time.Second
	pruneEvery    = time.Minute
	upgradeAfter  = 5 * time.Second
	pruneRest     = 50 * time.Millisecond
)

// Config is what a member's own loops need to know.
type Config struct {
	Store     *store.Store
	Transport *Transport
	Self      store.Announcement
	Hooks     *Hooks
	Dir       *Dir
	// ReloadHTTP makes the API listener use the certificate file that has been renewed.
	ReloadHTTP func() error
	Seeds      []Peer        // where others were when this member joined
	PeerPing   time.Duration // silence after which the other side of a peering is asked whether it is there; 0: DefaultPeerPing
	Logger     *slog.Logger
}

// Cluster runs the loops of one member.
type Cluster struct {
	Config
	log   *slog.Logger
	state atomic.Pointer[autopilot.State]
	alive atomic.Pointer[map[uint64]string]
	input atomic.Pointer[autopilot.Input] // what the last round saw; nil where this member does not lead
	kick  chan struct{}                   // wakes the leader's loop before its time
	peers *peers

	prober   atomic.Pointer[prober] // of this leadership; nil where this member does not lead
	due      chan struct{}          // wakes the renewal of certificates before its time
	expected atomic.Uint64          // revision of store.Trust that a leader has told of
	trusted  atomic.Uint64          // and the one that is in effect here
	tokenKey atomic.Pointer[string] // id of the key that signs node identities, as a leader has told

	once    sync.Once
	removed chan struct{}
	closing chan struct{}

	stop context.CancelFunc
	done sync.WaitGroup
}

// Start begins the loops; Close ends them.
func Start(cfg Config) *Cluster {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cluster{Config: cfg, log: cfg.Logger, kick: make(chan struct{}, 1), due: make(chan struct{}, 1), stop: cancel,
		removed: make(chan struct{}), closing: make(chan struct{})}
	c.forget()
	c.peers = newPeers(cfg, c.Alive)
	cfg.Transport.peers = c.peers.serve
	for _, loop := range []func(context.Context){c.peers.run, c.followEvents, c.renew, c.lead, c.expel, c.announce} {
		c.done.Go(func() { loop(ctx) })
	}
	return c
}

// Close ends the loops and waits for them.
func (c *Cluster) Close() {
	c.stop()
	close(c.closing)
	c.done.Wait()
}

// Autopilot returns the state that the leader saw in its last round; it is empty on other members and in the
// first moments of a leadership.
func (c *Cluster) Autopilot() autopilot.State {
	s := *c.state.Load()
	if len(s.Servers) == 0 {
		return s
	}
	// Who votes may have changed since the last round; all endpoints say the same of it.
	roles := map[uint64]store.Role{}
	for _, v := range c.Store.Servers() {
		roles[v.NodeID] = v.Role
	}
	s.Servers, s.Voters = slices.Clone(s.Servers), []uint64{}
	healthy := 0
	for i := range s.Servers {
		v := &s.Servers[i]
		v.Role = string(roles[v.NodeID])
		v.HasVotingRights = roles[v.NodeID] == store.RoleVoter
		v.Electable = v.Electable && v.HasVotingRights
		if v.HasVotingRights {
			s.Voters = append(s.Voters, v.NodeID)
			if v.Healthy {
				healthy++
			}
		}
	}
	s.Healthy = healthy == len(s.Voters)
	s.FailureTolerance = autopilot.FailureTolerance(len(s.Voters), healthy)
	return s
}

// Alive returns "alive" or "left" as the leader's probes have it; "unknown" where this member does not lead, or has done
// so for too short a time to tell.
func (c *Cluster) Alive(nodeID uint64) string {
	if s, ok := (*c.alive.Load())[nodeID]; ok {
		return s
	}
	return "unknown"
}

func (c *Cluster) forget() {
	c.state.Store(&autopilot.State{Voters: []uint64{}, Servers: []autopilot.Server{}})
	c.alive.Store(&map[uint64]string{})
	c.input.Store(nil)
	c.prober.Store(nil)
}

// lead waits for this member to lead and runs the leader's loop for as long as it does.
func (c *Cluster) lead(ctx context.Context) {
	for ctx.Err() == nil {
		turned := c.Store.Leadership()
		if c.Store.Leading() {
			term, cancel := context.WithCancel(ctx)
			go func() {
				<-turned
				cancel()
			}()
			c.leadTerm(term)
			cancel()
			c.forget()
			continue
		}
		select {
		case <-turned:
		case <-ctx.Done():
		}
	}
}

// term is the state of one leadership.
type term struct {
	since    time.Time
	previous map[uint64]autopilot.Health
	prober   *prober
	hooks    hookWork
	pruned   time.Time
	checked  time.Time     // when it was last looked at what expires
	cost     time.Duration // of observing and deciding in the last round

	sightings map[uint64]*sighting
}

func (c *Cluster) leadTerm(ctx context.Context) {
	t := &term{since: time.Now(), pruned: time.Now(), prober: newProber(c.probe, c.wake),
		hooks: hookWork{busy: map[uint64]uint64{}, next: map[uint64]time.Time{}}, sightings: map[uint64]*sighting{}}
	c.prober.Store(t.prober)
	pruning := make(chan struct{})
	go func() { defer close(pruning); c.pruneAudit(ctx) }()
	defer func() { <-pruning }()
	defer t.hooks.done.Wait()
	defer t.prober.done.Wait()
	for {
		if err := c.round(ctx, t); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) {
			c.log.Warn("autopilot", "err", err)
		}
		if time.Since(t.pruned) > pruneEvery {
			t.pruned = time.Now()
			for what, f := range map[string]func() error{
				"prune":  func() error { return c.Store.Prune(ctx, c.actor()) },
				"rotate": func() error { return c.rotateByAge(ctx) },
			} {
				if err := f(); err != nil && ctx.Err() == nil {
					c.log.Warn(what, "err", err)
				}
			}
		}
		// With many members observing takes its time: it gets a twentieth of the leader's, however often it is woken.
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(roundRest*t.cost, maxRoundRest)):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(roundEvery):
		case <-c.kick:
		}
	}
}

// pruneAudit deletes old audit rows, in small steps with room for others between them, while this member leads.
func (c *Cluster) pruneAudit(ctx context.Context) {
	for wait := pruneEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = pruneEvery
		more, err := c.Store.PruneAudit(ctx, c.actor())
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader):
			c.log.Warn("prune the audit", "err", err)
		case more:
			wait = pruneRest
		}
	}
}

// Wake lets the leader's loop run at once, after something it should look at has changed.
func (c *Cluster) Wake() { c.wake() }

func (c *Cluster) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Cluster) actor() store.Actor {
	return store.Actor{Name: "autopilot", NodeID: c.Store.NodeID()}
}

func (c *Cluster) probe(ctx context.Context, id uint64) (r Report, err error) {
	trust, key := c.announced(ctx)
	if id == c.Store.NodeID() {
		c.expect(trust, key)
		return c.report(), nil
	}
	err = c.Transport.call(ctx, http.MethodGet, id, probePath(trust, key), nil, &r)
	return r, err
}

func (c *Cluster) report() Report {
	return Report{NodeID: c.Store.NodeID(), Version: c.Self.BinaryVersion, Revision: c.Store.ReplicaRevision(), Leader: c.Store.LeaderID(), Trust: c.trusted.Load()}
}

// round observes, decides and acts once.
func (c *Cluster) round(ctx context.Context, t *term) error {
	begin := time.Now()
	members, err := c.Store.PeekMembers(ctx)
	if err != nil {
		return err
	}
	servers, err := c.Store.RefreshServers(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	t.prober.round(ctx, c.awaited(ctx, targets(members, servers), t), now)
	in := c.observe(members, servers, t)
	cfg, _, err := c.Settings(ctx)
	if err != nil {
		return err
	}
	state, plan := autopilot.Decide(in, cfg, time.Now())
	t.previous = autopilot.Carry(state)
	in.Previous = t.previous
	c.input.Store(&in)
	addresses := make(map[uint64]string, len(members))
	for i := range members {
		addresses[members[i].NodeID] = members[i].RaftAddress
	}
	alive := make(map[uint64]string, len(state.Servers))
	for i := range state.Servers {
		v := &state.Servers[i]
		v.RaftAddress = addresses[v.NodeID]
		alive[v.NodeID] = v.NodeStatus
	}
	c.state.Store(&state)
	c.alive.Store(&alive)
	t.cost = time.Since(begin)
	if err := c.drive(ctx, t, members); err != nil {
		return err
	}
	if err := c.decide(ctx, plan, members); err != nil {
		return err
	}
	if err := c.watchHealth(ctx, t, &state, now); err != nil {
		return err
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	if err := c.finishRemovals(ctx); err != nil {
		return err
	}
	if err := c.rekey(ctx); err != nil {
		return err
	}
	if err := c.advanceCA(ctx, t); err != nil {
		return err
	}
	if now.Sub(t.since) < upgradeAfter { // members that are alive have announced themselves to this leader by then
		return nil
	}
	return c.upgrade(ctx)
}

// Settings reads autopilot's configuration and the revision that last changed it.
func (c *Cluster) Settings(ctx context.Context) (autopilot.Config, uint64, error) {
	cfg := autopilot.DefaultConfig()
	set, err := c.Store.PeekSetting(ctx, store.SettingAutopilot)
	if err == nil && set.Value != nil {
		err = json.Unmarshal(set.Value, &cfg)
	}
	return cfg, set.ModifiedRev, err
}

func targets(members []store.Member, servers []store.Server) []target {
	raft := make(map[uint64]bool, len(servers))
	for _, v := range servers {
		raft[v.NodeID] = true
	}
	list := make([]target, len(members))
	for i := range members {
		m := &members[i]
		list[i] = target{nodeID: m.NodeID, raft: raft[m.NodeID] || m.Role != store.RoleNone, joinedAt: m.JoinedAt}
	}
	return list
}

func (c *Cluster) observe(members []store.Member, servers []store.Server, t *term) autopilot.Input {
	roles := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		roles[v.NodeID] = v.Role
	}
	seen := t.prober.snapshot()
	in := autopilot.Input{LeaderID: c.Store.NodeID(), LeaderRevision: c.Store.Revision(), LeaderSince: t.since, Previous: t.previous,
		Members: make([]autopilot.Observation, 0, len(members))}
	for i := range members {
		m, o := &members[i], seen[members[i].NodeID]
		ob := autopilot.Observation{NodeID: m.NodeID, Name: m.Name, Mode: m.Mode, DrainState: m.DrainState, Pinned: m.Pinned,
			Role: string(roles[m.NodeID]), LastContact: o.LastContact, RTT: autopilot.Duration(o.RTT), Revision: o.Revision,
			Version: o.Version, Member: true, IsLeader: m.NodeID == in.LeaderID}
		if o.Interval > probeEvery {
			ob.ProbeInterval = autopilot.Duration(o.Interval)
		}
		in.Members = append(in.Members, ob)
		delete(roles, m.NodeID)
	}
	for id, role := range roles { // in Raft without a row
		o := seen[id]
		in.Members = append(in.Members, autopilot.Observation{NodeID: id, Role: string(role), LastContact: o.LastContact})
	}
	return in
}

// decide writes the plan into SQL; the reconcile loop, on whichever member leads then, carries it out.
func (c *Cluster) decide(ctx context.Context, plan autopilot.Plan, members []store.Member) error {
	var changes []store.RoleChange
	for _, ch := range plan {
		switch ch.Kind {
		case autopilot.KindTransfer:
			if err := c.reach(ctx, ch.NodeID); err != nil {
				return nil // it is decided again when the probes have noticed, too
			}
			c.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
			tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			return c.Store.Transfer(tctx, ch.NodeID)
		case autopilot.KindCleanup:
			c.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
			if err := c.CanRemove(ctx, ch.NodeID); err != nil {
				return nil // decided on older news
			}
			rotation, err := c.PrepareRemoval(ctx, ch.NodeID)
			if err != nil {
				return err
			}
			return c.Store.RemoveMember(ctx, c.actor(), ch.NodeID, rotation, func(*store.Member) error { return nil })
		}
		i := slices.IndexFunc(members, func(m store.Member) bool { return m.NodeID == ch.NodeID })
		if i < 0 || members[i].Role == store.Role(ch.Role) {
			continue // an orphan, or decided already: reconcile's business
		}
		if ch.Kind == autopilot.KindPromote || ch.Kind == autopilot.KindAdd {
			// The last answer may be older than the machine's death, and a vote given to a dead machine can cost
			// the majority.
			if c.reach(ctx, ch.NodeID) != nil {
				break
			}
		}
		if ch.Kind == autopilot.KindDemote && !c.majorityWithout(ctx, ch.NodeID) {
			break
		}
		c.log.Info("autopilot", "change", ch.Kind, "node", ch.NodeID, "reason", ch.Reason)
		changes = append(changes, store.RoleChange{NodeID: ch.NodeID, Role: store.Role(ch.Role), Reason: ch.Reason})
	}
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.wake() // one change often makes the next one possible
	return c.Store.SetRoles(ctx, c.actor(), changes)
}

// majorityWithout asks the voters other than one, now, whether they would be enough by themselves.
func (c *Cluster) majorityWithout(ctx context.Context, nodeID uint64) bool {
	var others []uint64
	voters := 0
	for _, v := range c.Store.Servers() {
		if v.Role != store.RoleVoter || v.NodeID == nodeID {
			continue
		}
		voters++
		if v.NodeID != c.Store.NodeID() {
			others = append(others, v.NodeID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return c.Transport.Ask(ctx, others, voters/2) // and this node itself
}

// Difference is one point on which Raft's configuration does not agree with the members table.
type Difference struct {
	NodeID uint64     `json:"nodeId"`
	Want   store.Role `json:"want"` // as the members table says; empty: not a Raft server
	Have   store.Role `json:"have"`
}

// differences lists what reconcile has to do, those first that make the quorum stronger.
func differences(members []store.Member, servers []store.Server) []Difference {
	have := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		have[v.NodeID] = v.Role
	}
	var list []Difference
	for i := range members {
		m := &members[i]
		if have[m.NodeID] != m.Role {
			list = append(list, Difference{NodeID: m.NodeID, Want: m.Role, Have: have[m.NodeID]})
		}
		delete(have, m.NodeID)
	}
	for id, role := range have {
		list = append(list, Difference{NodeID: id, Want: store.RoleNone, Have: role})
	}
	strength := map[store.Role]int{store.RoleVoter: 3, store.RoleStandBy: 2, store.RoleSpare: 1}
	slices.SortFunc(list, func(a, b Difference) int {
		if d := strength[b.Want] - strength[a.Want]; d != 0 {
			return d
		}
		return int(int64(a.NodeID) - int64(b.NodeID))
	})
	return list
}

// reconcile makes the Raft configuration agree with SQL, one step after the other.
func (c *Cluster) reconcile(ctx context.Context) error {
	members, err := c.Store.PeekMembers(ctx)
	if err != nil {
		return err
	}
	for _, d := range differences(members, c.Store.Servers()) {
		actx, cancel := context.WithTimeout(ctx, assignTimeout)
		err := c.Store.Assign(actx, d.NodeID, d.Want)
		cancel()
		if err != nil {
			return err
		}
		c.log.Info("raft configuration", "node", d.NodeID, "role", d.Want, "before", d.Have)
	}
	return nil
}

// Internal serves the requests of this package on the cluster listener.
func (c *Cluster) Internal(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathProbe, func(w http.ResponseWriter, r *http.Request) {
		c.hear(r.URL.Query())
		writeJSON(w, c.report())
	})
	mux.HandleFunc("POST "+pathAnnounce, c.serveAnnounce)
	mux.HandleFunc("POST "+pathHooks, c.Hooks.serve)
	mux.HandleFunc("POST "+pathCertificates, c.serveCertificates)
	mux.HandleFunc("GET "+pathTrust, c.serveTrust)
	mux.HandleFunc("POST "+pathNodeToken, c.serveNodeToken)
	mux.HandleFunc("POST "+pathNudge, func(http.ResponseWriter, *http.Request) { c.Store.Look() })
	mux.HandleFunc("GET "+pathMirror, c.serveMirror)
	mux.HandleFunc("GET "+pathEvents, c.serveEvents)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// MergeSettings applies a JSON object of changed fields to autopilot's configuration and checks the result. Unknown
// fields are refused: a misspelt setting that is silently ignored is worse than an error.
func (c *Cluster) MergeSettings(ctx context.Context, patch []byte) (json.RawMessage, error) {
	cfg, _, err := c.Settings(ctx)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(patch))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("%s must be a %s", wrong.Field, wrong.Type)
		}
		return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(cfg)
}
