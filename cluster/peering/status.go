package peering

import (
	"maps"
	"slices"
	"sync"
	"time"

	"muster/store"
)

func (t *term) status(id string) *streamStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.statuses[id] == nil {
		t.statuses[id] = &streamStatus{}
	}
	return t.statuses[id]
}

// Status is the leader's view of a peering's stream. Times are zero until the first event.
type Status struct {
	LastHeartbeat time.Time // received
	LastReceive   time.Time // of a heartbeat or of data
	LastSend      time.Time // of data
	Exported      []string  // names of the members sent to the other side, sorted
}

type streamStatus struct {
	mu sync.Mutex
	Status
}

func (s *streamStatus) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastHeartbeat = time.Now()
	s.LastReceive = s.LastHeartbeat
}

func (s *streamStatus) received() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastReceive = time.Now()
}

func (s *streamStatus) sent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastSend = time.Now()
}

func (s *streamStatus) exports(list []store.PeerMember) {
	names := make(map[string]bool, len(list))
	for i := range list {
		names[list[i].Name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Exported = slices.Sorted(maps.Keys(names))
}

// Status returns the status of a peering's stream; the zero value on a member that does not lead. It does not block.
func (p *Streams) Status(id string) Status {
	p.mu.Lock()
	t := p.term
	p.mu.Unlock()
	if t == nil {
		return Status{}
	}
	t.mu.Lock()
	s := t.statuses[id]
	t.mu.Unlock()
	if s == nil {
		return Status{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Status
}
