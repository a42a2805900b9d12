package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// announce tells the leader this member's addresses and version, when it starts and whenever leadership turns, until
// the leader has them. A member that has moved may not hear from any leader before it has announced itself: then it
// asks all whom it knows.
func (c *Cluster) announce(ctx context.Context) {
	for ctx.Err() == nil {
		turned := c.Store.Leadership()
		retry := time.After(time.Second)
		if c.announceOnce(ctx) && !c.Store.Outside() {
			retry = nil
		}
		c.warnLeftBehind()
		select {
		case <-turned:
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// hintFor is how long a member outside Raft believes who the leader is; it asks again each second.
const hintFor = 3 * time.Second

// Given is what the command line says of a member, where it says so: empty fields leave what is stored.
type Given struct {
	Name, Mode string
}

// announcement is what is sent of it. A leader that is older than incarnations ignores them.
type announcement struct {
	store.Announcement
	Incarnation
}

// starts remembers which incarnation of each member has been let in.
type starts struct {
	sync.Mutex
	last map[uint64]string
}

func (c *Cluster) announceOnce(ctx context.Context) bool {
	if leader := c.Store.LeaderID(); leader != 0 {
		err := c.announceTo(ctx, leader)
		if err == nil {
			c.lonely(true)
			if c.Store.Outside() {
				c.Store.HintLeader(leader, hintFor)
			}
			return true
		}
		if notTaken(err) != "" {
			return false
		}
	}
	return c.announceToAll(ctx)
}

// announceToAll tries everybody whom this member knows, at once: some may be where nobody answers any more.
func (c *Cluster) announceToAll(ctx context.Context) bool {
	members := c.knownMembers(ctx)
	leaders := make(chan uint64, len(members))
	var answered atomic.Bool
	limit := make(chan struct{}, 8)
	for _, id := range members {
		go func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			err := c.announceTo(ctx, id)
			var status *transport.StatusError
			if err == nil || errors.As(err, &status) {
				answered.Store(true)
			}
			if leader := misdirected(err); leader != 0 && leader != id && leader != c.Store.NodeID() {
				id, err = leader, c.announceTo(ctx, leader)
			}
			if err != nil {
				id = 0
			}
			leaders <- id
		}()
	}
	for range members {
		if id := <-leaders; id != 0 {
			c.lonely(true)
			c.Store.HintLeader(id, hintFor)
			return true
		}
	}
	c.lonely(answered.Load() || len(members) == 0 || ctx.Err() != nil)
	return false
}

const (
	lonelyAfter = 10 * time.Second // without any answer
	lonelyEvery = time.Minute      // then it is said, and again
)

const lonelyText = "no other member answers where it was last; start the others, and if they have moved, start this member with " +
	"--peer ID=HOST:PORT for one of them, or with --rejoin --join TOKEN and a new token"

// lonely notes whether anybody has answered, and says what to do when nobody has for a while.
func (c *Cluster) lonely(answered bool) {
	if answered {
		c.alone.since, c.alone.said = time.Time{}, time.Time{}
		c.notice.Store(nil)
		return
	}
	now := time.Now()
	if c.alone.since.IsZero() {
		c.alone.since = now
	}
	if now.Sub(c.alone.since) >= lonelyAfter && now.Sub(c.alone.said) >= lonelyEvery {
		c.alone.said = now
		text := lonelyText
		c.notice.Store(&text)
		c.log.Warn(text)
	}
}

// Notices is what this member's operator has to do now, a sentence each: what there is, a semicolon, what mends it. It is
// nil when that is nothing.
func (c *Cluster) Notices() (list []string) {
	if text := c.leftBehind(); text != "" { // nobody answers a member that is, so that the next need not be said
		list = append(list, text)
	} else if text := c.notice.Load(); text != nil {
		list = append(list, *text)
	}
	if text := c.unheard.Load(); text != nil {
		list = append(list, "the leader does not take what this member says of itself: "+*text+"; what is stored holds: leave that "+
			"flag out or give another value")
	}
	if d := c.Disk(); d.Low {
		list = append(list, fmt.Sprintf("this member is low on disk space: %d MiB are free, %d MiB are kept in reserve; make room, but delete "+
			"nothing in the data directory", d.Free>>20, d.Reserve>>20))
	}
	return list
}

func (c *Cluster) knownMembers(ctx context.Context) []uint64 {
	var list []uint64
	seen := map[uint64]bool{c.Store.NodeID(): true}
	add := func(id uint64) {
		if !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	if members, err := c.Store.Members.List(ctx, store.Stale); err == nil {
		for i := range members {
			if members[i].Role != store.RoleNone {
				add(members[i].NodeID)
			}
		}
	}
	for _, id := range c.Book.Known() {
		add(id)
	}
	return list
}

// announceTo announces this member to another one or, if that is itself, to its own store. When the leader refuses what
// the command line gives, the rest is announced all the same: the others must know where this member is.
func (c *Cluster) announceTo(ctx context.Context, id uint64) error {
	a := announcement{Announcement: c.Self, Incarnation: c.Incarnation}
	a.Name, a.Mode = c.Given.Name, c.Given.Mode
	err := c.sendAnnouncement(ctx, id, a)
	text := notTaken(err)
	if text == "" {
		if err == nil {
			c.accepted(a.Name)
		}
		return err
	}
	if old := c.unheard.Swap(&text); old == nil || *old != text {
		c.log.Warn("the leader does not take what this member says of itself; it asks again", "why", text)
	}
	if a.Name == "" && a.Mode == "" {
		return err
	}
	a.Name, a.Mode = "", ""
	if again := c.sendAnnouncement(ctx, id, a); again != nil {
		return again
	}
	return err
}

func (c *Cluster) sendAnnouncement(ctx context.Context, id uint64, a announcement) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if id == c.Store.NodeID() {
		a.NodeID, a.Claims, a.Evidence = id, c.claims, store.HostEvidence{Own: true}
		return c.Store.Members.Announce(ctx, c.actor(), a.Announcement)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	err = asTwin(c.Transport.Call(ctx, http.MethodPost, id, transport.PathAnnounce, bytes.NewReader(body), nil))
	c.troubles.note(id, err)
	var twin *TwinError
	switch {
	case errors.As(err, &twin):
		_ = c.Dir.NoteTwin(true, twin.Address)
		select {
		case c.twin <- twin:
		default:
		}
	case err != nil && ctx.Err() == nil:
		c.checkRemoved(err)
		c.log.Debug("announce", "to", id, "err", err)
	}
	return err
}

// accepted keeps a new name where the next start finds it.
func (c *Cluster) accepted(name string) {
	c.unheard.Store(nil)
	c.nodeFile.Lock()
	defer c.nodeFile.Unlock()
	if n, err := c.Dir.Node(); err == nil && n != nil && name != "" && n.Name != name {
		n.Name = name
		if err := c.Dir.SaveNode(n); err != nil {
			c.log.Warn("the new name could not be noted", "err", err)
		}
	}
}

// notTaken is the leader's sentence about an announcement that it will not take, "" for any other error.
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

// misdirected reads which leader a member names that does not lead itself, 0 for none.
func misdirected(err error) uint64 {
	var status *transport.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusMisdirectedRequest {
		return 0
	}
	id, _ := strconv.ParseUint(strings.TrimSpace(status.Text), 10, 64)
	return id
}

// serveAnnounce takes what another member says of itself. One that does not lead remembers the address for its own
// Raft server, so that a member which has moved can be reached before the leader knows, and names the leader.
func (c *Cluster) serveAnnounce(w http.ResponseWriter, r *http.Request) {
	var a announcement
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&a); err != nil {
		http.Error(w, "the announcement cannot be read", http.StatusBadRequest)
		return
	}
	a.NodeID = transport.MemberID(r.Context()) // a member speaks for itself only
	if twin := c.twinOf(r.Context(), hello{Incarnation: a.Incarnation, NodeID: a.NodeID, RaftAddress: a.RaftAddress}, false); twin != nil {
		refuseTwin(w, twin)
		return
	}
	c.Book.Met(a.NodeID, a.RaftAddress)
	a.Claims, a.Evidence = c.claims, store.HostEvidence{Remote: remoteHost(r)}
	a.Evidence.Dialled = c.dialled(r.Context(), a.Announcement)
	err := c.Store.Members.Announce(r.Context(), store.Actor{Name: transport.HostOf(a.NodeID), NodeID: a.NodeID}, a.Announcement)
	var no *store.Refusal
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, strconv.FormatUint(c.Store.LeaderID(), 10), http.StatusMisdirectedRequest)
	case errors.As(err, &no):
		http.Error(w, no.Message, http.StatusConflict)
	case err != nil:
		c.log.Warn("announce", "node", a.NodeID, "err", err)
		http.Error(w, "the announcement was not taken", http.StatusServiceUnavailable)
	default:
		writeJSON(w, struct{}{})
	}
}

// claims reports whether a member lives where another one wants to be. A member that answers from another place than its
// row says has moved itself, and only has not come to say so: two members may change places.
func (c *Cluster) claims(nodeID uint64, address string) store.Claim {
	if nodeID == c.Store.NodeID() {
		if address == "" || address == c.Self.RaftAddress || address == c.Self.APIAddress {
			return store.ClaimAlive
		}
		return store.ClaimDead
	}
	if c.Alive(nodeID) != "alive" {
		return store.ClaimDead
	}
	at := c.Book.At(nodeID)
	if m, err := c.Store.Members.Get(context.Background(), store.AsLeader, nodeID); address != "" && err == nil && m != nil && at != "" && at != m.RaftAddress {
		return store.ClaimDead
	}
	return store.ClaimAlive
}
