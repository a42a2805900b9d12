package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

// membership tracks whether this node is still a member, and stores the addresses of the others.
type membership struct {
	*member
	twins    *twins
	once     sync.Once
	gone     chan struct{} // closed when this member must stop
	nodeFile sync.Mutex    // held while node.json is read and written
}

// checkRemoved checks another member's answer for the information that this one was removed.
func (ms *membership) checkRemoved(err error) {
	var status *transport.StatusError
	if errors.As(err, &status) && status.Status == http.StatusGone {
		ms.leave(status.Removed)
	}
}

// leave stops this member, permanently when it was removed.
func (ms *membership) leave(removed bool) {
	ms.once.Do(func() {
		if removed {
			n, err := ms.Dir.Node()
			if err == nil && n != nil {
				err = ms.Dir.MarkRemoved(n)
			}
			if err != nil {
				ms.log.Warn("the removal could not be recorded in the data directory", "err", err)
			}
		}
		close(ms.gone)
	})
}

// run cuts the connections of removed members, on every member, when the removal arrives in its replica.
func (ms *membership) run(ctx context.Context) {
	cut := map[uint64]bool{}
	for ctx.Err() == nil {
		changed := ms.Store.Mirror.Changed()
		if list, err := ms.Store.Members.Removed(ctx, store.Stale); err == nil {
			for _, id := range list {
				if id == ms.Store.NodeID() {
					ms.leave(true)
				}
				if !cut[id] {
					cut[id] = true
					ms.Book.Forget(id)
					ms.twins.traces.forget(id)
					ms.cutSoon(id)
				}
			}
		}
		if err := ms.rememberPlaces(ctx); err != nil && ctx.Err() == nil {
			ms.log.Debug("the addresses of the Raft servers could not be stored", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// rememberPlaces stores the Raft servers' addresses in node.json, for a start with an outdated replica.
func (ms *membership) rememberPlaces(ctx context.Context) error {
	servers, err := ms.Store.Members.Raft(ctx, store.Stale)
	if err != nil {
		return err
	}
	places := []datadir.Place{}
	for i := range servers {
		if m := &servers[i]; m.NodeID != ms.Store.NodeID() {
			places = append(places, datadir.Place{NodeID: m.NodeID, RaftAddress: m.RaftAddress})
		}
	}
	ms.nodeFile.Lock()
	defer ms.nodeFile.Unlock()
	n, err := ms.Dir.Node()
	if err != nil || n == nil || len(places) == 0 || slices.Equal(n.Others, places) {
		return err
	}
	n.Others = places
	return ms.Dir.SaveNode(n)
}

// cutGrace is how long connections with a removed member stay open: the removal may have been requested through it, and
// the answer must reach the caller. New requests of that member are refused at once.
const cutGrace = 500 * time.Millisecond

func (m *member) cutSoon(id uint64) { time.AfterFunc(cutGrace, func() { m.Transport.Cut(id) }) }

// A member that was offline for a whole rotation of the transport authority is left behind: it does not trust the
// others' certificates, or they reject its own. It learns that from failed connections and must report the remedy.

// strays tracks members that a recovery left out but that still run: with the log of before, or, when the recovery was
// applied on two machines, as another cluster with the same identity.
type strays struct {
	mu       sync.Mutex
	run      map[uint64]bool
	outlived chan error // receives why this member ends
}

func newStrays() *strays { return &strays{outlived: make(chan error, 1)} }

// recoveredSince returns since when this cluster is led after a recovery; "" where it was not recovered, where this
// member does not lead, and while the recovery is not in the members table: an earlier one must not speak for it.
func (m *member) recoveredSince(ctx context.Context) string {
	if r, err := m.Dir.Recovery(); err != nil || r != nil {
		return ""
	}
	since, err := m.Store.Members.RecoveredSince(ctx, store.AsLeader)
	if err != nil {
		return ""
	}
	return since
}

// meet compares this leader's recovery with that of a member which rejects it as left out. If one recovery made two
// clusters, the one that was led first continues.
func (s *strays) meet(id uint64, own, others string) {
	if own == "" || others == "" || own <= others {
		return
	}
	s.end(fmt.Errorf("the cluster was recovered on two machines, and node %d was led first: %w", id, store.ErrLeftOut))
}

// end ends this member.
func (s *strays) end(why error) {
	select {
	case s.outlived <- why:
	default:
	}
}

// note records whether a member runs; appears reports that it has just been found running.
func (s *strays) note(id uint64, runs bool) (appears bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		s.run = map[uint64]bool{}
	}
	appears = runs && !s.run[id]
	s.run[id] = runs
	return appears
}

func (s *strays) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = nil
}

// notices returns a sentence for the operator for each of them.
func (s *strays) notices() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.run)) {
		if s.run[id] {
			list = append(list, fmt.Sprintf("node %d was left out when the cluster was recovered, and it runs: where it "+
				"leads, two clusters have one identity; stop it, \"muster member remove %d --force\" here, and let it join with "+
				"an empty directory",
				id, id))
		}
	}
	return list
}

const leftBehindEvery = time.Minute // interval of the log line

// troubles records members with which the TLS handshake fails because of certificates.
type troubles struct {
	mu     sync.Mutex
	with   map[uint64]string
	warned time.Time

	leftOut uint64 // a member that reports that a recovery has left this one out
}

// note records the result of a call to a member. A successful one proves that this member is not left behind.
func (t *troubles) note(id uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status *transport.StatusError
	switch trouble := transport.CertificateFault(err); {
	case transport.LeftOut(err):
		t.leftOut = id
	case trouble != "":
		if t.with == nil {
			t.with = map[uint64]string{}
		}
		t.with[id] = trouble
	case err == nil || errors.As(err, &status):
		clear(t.with)
	default:
		delete(t.with, id) // it does not answer, which proves nothing
	}
}

// refusing returns a member that reports that a recovery left this one out, or 0.
func (t *troubles) refusing() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leftOut
}

// text describes the problem in a sentence, or returns "".
func (t *troubles) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.with) == 0 {
		return ""
	}
	ids := make([]uint64, 0, len(t.with))
	for id := range t.with {
		ids = append(ids, id)
	}
	id := slices.Min(ids)
	return fmt.Sprintf("this member is left behind: node %d runs, and %s", id, t.with[id])
}

// leftBehind returns a notice with the remedy when this member is left behind, or "".
func (an *announcer) leftBehind() string {
	if an.Store.LeaderID() != 0 {
		return ""
	}
	if id := an.troubles.refusing(); id != 0 {
		return fmt.Sprintf("node %d runs and refuses this member; %s", id, store.ErrLeftOut)
	}
	if text := an.troubles.text(); text != "" {
		return text + "; " + datadir.NextRejoin
	}
	return ""
}

// warnLeftBehind logs it, once a minute.
func (an *announcer) warnLeftBehind() {
	text := an.leftBehind()
	an.troubles.mu.Lock()
	tell := text != "" && time.Since(an.troubles.warned) > leftBehindEvery
	if tell {
		an.troubles.warned = time.Now()
	}
	an.troubles.mu.Unlock()
	if tell {
		an.log.Warn(text)
	}
}

// A member whose process ends in order tells the leader. Otherwise it would look like one that has died.

const (
	pathGoodbye   = "/internal/goodbye"
	goodbyeWithin = 2 * time.Second        // for a busy leader to write it down
	leaderWithin  = 800 * time.Millisecond // for one to be found: a process must end, even without a leader
	trialWithin   = 300 * time.Millisecond // for the last test write
	goodbyePause  = 100 * time.Millisecond // between two attempts at the same leader
)

// Goodbye tells the leader that this member's process ends in order. It is for a member whose loops have ended; a
// leader tells no member. It blocks for at most 2 s, without a leader for 0.8 s; then the goodbye is lost.
func (c *Cluster) Goodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWithin)
	defer cancel()
	last := c.Incarnation
	last.Begun = c.lastTrial()
	body, err := json.Marshal(last)
	if err != nil {
		return
	}
	for begin := time.Now(); time.Since(begin) < leaderWithin; {
		turned := c.Store.Leadership()
		leader := c.Store.LeaderID()
		if leader == c.Store.NodeID() || leader != 0 &&
			c.Transport.Call(ctx, http.MethodPost, leader, pathGoodbye, bytes.NewReader(body), nil) == nil {
			return
		}
		select {
		case <-turned:
		case <-time.After(goodbyePause):
		}
	}
}

// serveGoodbye receives another member's goodbye.
func (an *announcer) serveGoodbye(w http.ResponseWriter, r *http.Request) {
	id := transport.MemberID(r.Context()) // a member can only announce its own end
	var last Incarnation
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&last); err == nil { // older ones say nothing
		an.twins.traces.saw(id, last.ID, last.Begun)
	}
	an.answer(w, id, an.Store.Members.SayGoodbye(r.Context(), store.Actor{Name: transport.HostOf(id), NodeID: id}, id))
}
