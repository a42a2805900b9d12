package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// announcer announces this member to the leader, and receives other members' announcements.
type announcer struct {
	*member
	*view
	membership *membership
	twins      *twins
	issuer     *issuer
	notice     atomic.Pointer[string]
	alone      struct{ since, said time.Time } // no member has answered since, and the last log line about that
	unheard    atomic.Pointer[string]          // the leader's last refusal of this member's announcement
	troubles   troubles
}

// run announces this member's addresses and version to the leader, at the start and after each change of leader, until
// the leader has them. A member that has moved may not learn of a leader before it has announced itself: then it
// announces itself to every known member. A member whose own Raft server knows no leader, such as one that is not a
// Raft server yet, repeats it each second: that is how it learns of the next leader.
func (an *announcer) run(ctx context.Context) {
	for ctx.Err() == nil {
		turned := an.Store.Leadership()
		again := time.Second
		if an.announceOnce(ctx) {
			again = an.announcesAgain(ctx)
		}
		var retry <-chan time.Time
		if again > 0 {
			retry = time.After(again)
		}
		an.warnLeftBehind()
		select {
		case <-turned:
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// zoneRetry is how long a member waits before it announces its zone again when the cluster cannot store it yet, because
// an older version leads or holds the schema back.
const zoneRetry = 5 * time.Second

// announcesAgain returns when a member repeats an announcement that the leader has accepted; 0: not before a change of
// leader. A member whose own Raft server knows no leader learns of the next one only by repeating it.
func (an *announcer) announcesAgain(ctx context.Context) time.Duration {
	switch {
	case !an.Store.Follows():
		return time.Second
	case !an.zoned(ctx):
		return zoneRetry
	}
	return 0
}

// zoned reports whether the stored zone of this member is the one on its command line.
func (an *announcer) zoned(ctx context.Context) bool {
	want := an.Given.Zone
	if want == "" {
		return true
	}
	if want == store.NoZone {
		want = ""
	}
	m, err := an.Store.Members.Get(ctx, store.Stale, an.Store.NodeID())
	return err == nil && m != nil && m.Zone == want
}

// hintFor is how long a member outside Raft trusts a hint of the leader; it asks again each second.
const hintFor = 3 * time.Second

// Given has a member's attributes from its command line; empty fields keep the stored value.
type Given struct {
	Name, Mode, Zone string
}

// announcement is the wire form. Older leaders ignore the incarnation.
type announcement struct {
	store.Announcement
	Incarnation
}

func (an *announcer) announceOnce(ctx context.Context) bool {
	if leader := an.Store.LeaderID(); leader != 0 {
		err := an.announceTo(ctx, leader)
		if err == nil {
			an.lonely(true)
			if !an.Store.Follows() { // even if the hint has expired meanwhile
				an.Store.HintLeader(leader, hintFor)
			}
			return true
		}
		if notTaken(err) != "" {
			return false
		}
	}
	return an.announceToAll(ctx)
}

// announceToAll tries all known members concurrently: some addresses may be dead.
func (an *announcer) announceToAll(ctx context.Context) bool {
	members := an.knownMembers(ctx)
	leaders := make(chan uint64, len(members))
	var answered atomic.Bool
	limit := make(chan struct{}, 8)
	for _, id := range members {
		go func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			err := an.announceTo(ctx, id)
			var status *transport.StatusError
			if err == nil || errors.As(err, &status) {
				answered.Store(true)
			}
			if leader := misdirected(err); leader != 0 && leader != id && leader != an.Store.NodeID() {
				id, err = leader, an.announceToNamed(ctx, leader, id)
			}
			if err != nil {
				id = 0
			}
			leaders <- id
		}()
	}
	for range members {
		if id := <-leaders; id != 0 {
			an.lonely(true)
			an.Store.HintLeader(id, hintFor)
			return true
		}
	}
	an.lonely(answered.Load() || len(members) == 0 || ctx.Err() != nil)
	return false
}

// announceToNamed announces this member to the leader that another member named. If the leader is not at its known
// address it asks that member for the address: all members may have moved at once.
func (an *announcer) announceToNamed(ctx context.Context, leader, by uint64) error {
	err := an.announceTo(ctx, leader)
	var answered *transport.StatusError
	if err == nil || errors.As(err, &answered) {
		return err
	}
	body, err := json.Marshal(hello{
		Incarnation: an.Incarnation,
		NodeID:      an.Store.NodeID(),
		RaftAddress: an.Self.RaftAddress,
	})
	if err != nil {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	var out hello
	if err := an.Transport.Call(ask, http.MethodPost, by, pathHello, bytes.NewReader(body), &out); err != nil {
		return err
	}
	an.Book.Hear(out.Places)
	return an.announceTo(ctx, leader)
}

const (
	lonelyAfter = 10 * time.Second // without any answer
	lonelyEvery = time.Minute      // interval of the log line
)

const lonelyText = "no other member answers where it was last; start the others, and if they have moved, start this " +
	"member with --peer ID=HOST:PORT for one of them, or with --rejoin --join TOKEN and a new token"

// lonely records whether any member has answered, and logs advice when none has for a while.
func (an *announcer) lonely(answered bool) {
	if answered {
		an.alone.since, an.alone.said = time.Time{}, time.Time{}
		an.notice.Store(nil)
		return
	}
	now := time.Now()
	if an.alone.since.IsZero() {
		an.alone.since = now
	}
	if now.Sub(an.alone.since) >= lonelyAfter && now.Sub(an.alone.said) >= lonelyEvery {
		an.alone.said = now
		text := lonelyText
		an.notice.Store(&text)
		an.log.Warn(text)
	}
}

func (m *member) knownMembers(ctx context.Context) []uint64 {
	var list []uint64
	seen := map[uint64]bool{m.Store.NodeID(): true}
	add := func(id uint64) {
		if !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	if servers, err := m.Store.Members.Raft(ctx, store.Stale); err == nil {
		for i := range servers {
			add(servers[i].NodeID)
		}
	}
	for _, id := range m.Book.Known() {
		add(id)
	}
	return list
}

// announceTo announces this member to another one or, if that is itself, to its own store. When the leader refuses
// attributes from the command line, it announces the rest without them: the others must know where this member is.
func (an *announcer) announceTo(ctx context.Context, id uint64) error {
	a := announcement{Announcement: an.Self, Incarnation: an.Incarnation}
	a.Name, a.Mode, a.Zone = an.Given.Name, an.Given.Mode, an.Given.Zone
	err := an.sendAnnouncement(ctx, id, a)
	text := notTaken(err)
	if text == "" {
		if err == nil {
			an.accepted(a.Name)
		}
		return err
	}
	if old := an.unheard.Swap(&text); old == nil || *old != text {
		an.log.Warn("the leader refuses this member's announcement; it is repeated", "why", text)
	}
	if a.Name == "" && a.Mode == "" && a.Zone == "" {
		return err
	}
	a.Name, a.Mode, a.Zone = "", "", ""
	if again := an.sendAnnouncement(ctx, id, a); again != nil {
		return again
	}
	return err
}

func (an *announcer) sendAnnouncement(ctx context.Context, id uint64, a announcement) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if id == an.Store.NodeID() {
		a.NodeID, a.Claims, a.Evidence = id, an.claims, store.HostEvidence{Own: true}
		return an.Store.Members.Announce(ctx, an.actor(), a.Announcement)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	err = asTwin(an.Transport.Call(ctx, http.MethodPost, id, transport.PathAnnounce, bytes.NewReader(body), nil))
	an.troubles.note(id, err)
	var twin *TwinError
	switch {
	case errors.As(err, &twin):
		an.twins.end(twin)
	case transport.LeftOut(err) && !an.leavesOut(ctx, id):
		an.strays.end(fmt.Errorf("node %d runs and refuses this member: %w", id, store.ErrLeftOut))
	case err != nil && ctx.Err() == nil:
		an.membership.checkRemoved(err)
		an.log.Debug("announce", "to", id, "err", err)
	}
	return err
}

// leavesOut reports whether a recovery that this member has been through left another one out, or may have: then either
// has left out the other, and the leaders find out which of them goes on.
func (an *announcer) leavesOut(ctx context.Context, id uint64) bool {
	if r, err := an.Dir.Recovery(); err != nil || r != nil {
		return true
	}
	list, err := an.Store.Members.LeftOut(ctx, store.Stale)
	return err != nil || slices.Contains(list, id)
}

// accepted stores a new name in node.json for the next start.
func (an *announcer) accepted(name string) {
	an.unheard.Store(nil)
	an.membership.nodeFile.Lock()
	defer an.membership.nodeFile.Unlock()
	if n, err := an.Dir.Node(); err == nil && n != nil && name != "" && n.Name != name {
		n.Name = name
		if err := an.Dir.SaveNode(n); err != nil {
			an.log.Warn("the new name could not be stored in node.json", "err", err)
		}
	}
}

// notTaken returns the leader's refusal of an announcement, or "" for any other error.
func notTaken(err error) string {
	var status *transport.StatusError
	if errors.As(err, &status) && status.Status == http.StatusConflict {
		return strings.TrimSpace(status.Text)
	}
	var own *store.Refusal
	if errors.As(err, &own) {
		return own.Message
	}
	return ""
}

// misdirected returns the leader that a non-leader named, or 0.
func misdirected(err error) uint64 {
	var status *transport.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusMisdirectedRequest {
		return 0
	}
	id, _ := strconv.ParseUint(strings.TrimSpace(status.Text), 10, 64)
	return id
}

// serveAnnounce receives another member's announcement. A member that does not lead remembers the address for its own
// Raft server, so that a moved member can be reached before the leader knows it, and names the leader.
func (an *announcer) serveAnnounce(w http.ResponseWriter, r *http.Request) {
	var a announcement
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&a); err != nil {
		http.Error(w, "the announcement cannot be read", http.StatusBadRequest)
		return
	}
	a.NodeID = transport.MemberID(r.Context()) // a member can only announce itself
	if twin := an.twins.twinOf(r.Context(), hello{Incarnation: a.Incarnation, NodeID: a.NodeID,
		RaftAddress: a.RaftAddress}, false); twin != nil {
		refuseTwin(w, twin)
		return
	}
	an.Book.Met(a.NodeID, a.RaftAddress)
	a.Claims, a.Evidence = an.claims, store.HostEvidence{Remote: remoteHost(r)}
	a.Evidence.Dialled = an.issuer.dialled(r.Context(), a.Announcement)
	err := an.Store.Members.Announce(r.Context(), store.Actor{Name: transport.HostOf(a.NodeID), NodeID: a.NodeID},
		a.Announcement)
	an.answer(w, a.NodeID, err)
}

// answer answers a member's message about itself.
func (an *announcer) answer(w http.ResponseWriter, nodeID uint64, err error) {
	var no *store.Refusal
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, strconv.FormatUint(an.Store.LeaderID(), 10), http.StatusMisdirectedRequest)
	case errors.As(err, &no):
		http.Error(w, no.Message, http.StatusConflict)
	case err != nil:
		an.log.Warn("announce", "node", nodeID, "err", err)
		http.Error(w, "the announcement could not be stored", http.StatusServiceUnavailable)
	default:
		writeJSON(w, struct{}{})
	}
}

// claims reports whether a member is alive at an address that another one announces. A member that answers from another
// address than its row has moved but not announced itself yet: two members may swap addresses.
func (an *announcer) claims(nodeID uint64, address string) store.Claim {
	if nodeID == an.Store.NodeID() {
		if address == "" || address == an.Self.RaftAddress || address == an.Self.APIAddress {
			return store.ClaimAlive
		}
		return store.ClaimDead
	}
	if an.Alive(nodeID) != "alive" {
		return store.ClaimDead
	}
	at := an.Book.At(nodeID)
	if m, err := an.Store.Members.Get(context.Background(), store.AsLeader, nodeID); address != "" && err == nil &&
		m != nil && at != "" && at != m.RaftAddress {
		return store.ClaimDead
	}
	return store.ClaimAlive
}

// notices returns the notices about this member's addresses; see Notices.
func (an *announcer) notices() (list []string) {
	if text := an.leftBehind(); text != "" { // then no member answers, and lonelyText would be redundant
		list = append(list, text)
	} else if text := an.notice.Load(); text != nil {
		list = append(list, *text)
	}
	if text := an.unheard.Load(); text != nil {
		list = append(list, "the leader refuses this member's announcement: "+*text+"; the stored values stay in effect: "+
			"omit that flag or give another value")
	}
	return list
}
