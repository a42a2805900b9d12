package cluster

import (
	"maps"
	"slices"
	"sync"
	"time"

	"muster/store"
)

func (t *peerTerm) status(id string) *peerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.statuses[id] == nil {
		t.statuses[id] = &peerStatus{}
	}
	return t.statuses[id]
}

// PeerStatus is what the leader knows of a peering's stream; times are zero until something has happened.
type PeerStatus struct {
	LastHeartbeat time.Time // received
	LastReceive   time.Time // of a heartbeat or of data
	LastSend      time.Time // of data
	Exported      []string  // names of the members that the other side was told of, sorted
}

type peerStatus struct {
	mu sync.Mutex
	PeerStatus
}

func (s *peerStatus) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastHeartbeat = time.Now()
	s.LastReceive = s.LastHeartbeat
}

func (s *peerStatus) received() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastReceive = time.Now()
}

func (s *peerStatus) sent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastSend = time.Now()
}

func (s *peerStatus) exports(list []store.PeerMember) {
	names := make(map[string]bool, len(list))
	for i := range list {
		names[list[i].Name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Exported = slices.Sorted(maps.Keys(names))
}

// PeerStatus returns what is known of the stream of a peering; it is zero where this member does not lead.
func (c *Cluster) PeerStatus(id string) PeerStatus {
	c.peers.mu.Lock()
	t := c.peers.term
	c.peers.mu.Unlock()
	if t == nil {
		return PeerStatus{}
	}
	t.mu.Lock()
	s := t.statuses[id]
	t.mu.Unlock()
	if s == nil {
		return PeerStatus{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.PeerStatus
}
