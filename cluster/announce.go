package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

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

func (c *Cluster) announceOnce(ctx context.Context) bool {
	if leader := c.Store.LeaderID(); leader != 0 && c.announceTo(ctx, leader) == nil {
		if c.Store.Outside() {
			c.Store.HintLeader(leader, hintFor)
		}
		return true
	}
	for _, id := range c.knownPeers(ctx) {
		err := c.announceTo(ctx, id)
		if leader := misdirected(err); leader != 0 && leader != c.Store.NodeID() {
			id, err = leader, c.announceTo(ctx, leader)
		}
		if err == nil {
			c.Store.HintLeader(id, hintFor)
			return true
		}
	}
	return false
}

func (c *Cluster) knownPeers(ctx context.Context) []uint64 {
	var list []uint64
	seen := map[uint64]bool{c.Store.NodeID(): true}
	add := func(id uint64) {
		if !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	if members, err := c.Store.Members(ctx, store.Stale); err == nil {
		for i := range members {
			if members[i].Role != store.RoleNone {
				add(members[i].NodeID)
			}
		}
	}
	for _, p := range c.Seeds {
		add(p.NodeID)
	}
	return list
}

func (c *Cluster) announceTo(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if id == c.Store.NodeID() {
		return c.Store.Announce(ctx, c.actor(), c.withNode(c.Self))
	}
	body, err := json.Marshal(c.Self)
	if err != nil {
		return err
	}
	err = c.Transport.call(ctx, http.MethodPost, id, pathAnnounce, bytes.NewReader(body), nil)
	c.troubles.note(id, err)
	if err != nil && ctx.Err() == nil {
		c.checkRemoved(err)
		c.log.Debug("announce", "to", id, "err", err)
	}
	return err
}

func (c *Cluster) withNode(a store.Announcement) store.Announcement {
	a.NodeID = c.Store.NodeID()
	return a
}

// misdirected reads which leader a member names that does not lead itself, 0 for none.
func misdirected(err error) uint64 {
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusMisdirectedRequest {
		return 0
	}
	id, _ := strconv.ParseUint(strings.TrimSpace(status.Text), 10, 64)
	return id
}

// serveAnnounce takes what another member says of itself. One that does not lead remembers the address for its own
// Raft server, so that a member which has moved can be reached before the leader knows, and names the leader.
func (c *Cluster) serveAnnounce(w http.ResponseWriter, r *http.Request) {
	var a store.Announcement
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&a); err != nil {
		http.Error(w, "the announcement cannot be read", http.StatusBadRequest)
		return
	}
	a.NodeID = PeerID(r.Context()) // a member speaks for itself only
	c.Transport.moved(a.NodeID, a.RaftAddress)
	err := c.Store.Announce(r.Context(), store.Actor{Name: hostOf(a.NodeID), NodeID: a.NodeID}, a)
	switch {
	case errors.Is(err, store.ErrNotLeader):
		http.Error(w, strconv.FormatUint(c.Store.LeaderID(), 10), http.StatusMisdirectedRequest)
	case err != nil:
		c.log.Warn("announce", "node", a.NodeID, "err", err)
		http.Error(w, "the announcement was not taken", http.StatusServiceUnavailable)
	default:
		writeJSON(w, struct{}{})
	}
}
