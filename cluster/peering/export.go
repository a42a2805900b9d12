package peering

import (
	"slices"
	"strings"
	"sync"
	"time"

	"muster/certs"
	"muster/store"
)

const (
	// labelExport on a member, and metaExport on a peering, say what other clusters get to see: a comma-separated list
	// of names of peerings; "*", or no label, is all of them and "none" is none.
	labelExport = "export"
	metaExport  = "export"

	exportEvery   = time.Second
	aliveWithin   = 5 * time.Second // of a leadership, in which the leader has heard of its members
	peerAddresses = 16              // that a dialer is told; Raft servers come first
)

// exported is what this cluster shows to others at one moment.
type exported struct {
	sequence  uint64
	roots     []string
	addresses []string
	members   []exportedMember
	domain    string             // trust domain of this cluster's software
	bundle    string             // and what its identities are verified with; empty while there is none
	list      []store.PeerMember // what of it one stream was told
}

type exportedMember struct {
	store.PeerMember
	to string // the label
}

// membersFor lists what a peering gets to see, by id.
func (x exported) membersFor(name string, meta map[string]string) (list []store.PeerMember) {
	if meta[metaExport] == "none" {
		return nil
	}
	for i := range x.members {
		if exportsTo(x.members[i].to, name) {
			list = append(list, x.members[i].PeerMember)
		}
	}
	return list
}

func exportsTo(label, name string) bool {
	if label == "" || label == "*" {
		return true
	}
	for part := range strings.SplitSeq(label, ",") {
		if part = strings.TrimSpace(part); part == "*" || part == name {
			return true
		}
	}
	return false
}

// exporter keeps what is exported up to date while this member leads.
type exporter struct {
	mu      sync.Mutex
	current exported
	changed chan struct{}
}

// now returns what is exported and a channel that is closed when that changes.
func (e *exporter) now() (exported, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current, e.changed
}

func (e *exporter) publish(x exported) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.Equal(x.roots, e.current.roots) && slices.Equal(x.addresses, e.current.addresses) &&
		slices.Equal(x.members, e.current.members) && x.bundle == e.current.bundle {
		return
	}
	x.sequence = e.current.sequence + 1
	e.current = x
	close(e.changed)
	e.changed = make(chan struct{})
}

// refresh looks at members, their health and the authorities.
func (t *term) refresh() {
	if t.alive(t.store.NodeID()) == "unknown" && time.Since(t.since) < aliveWithin {
		return // nobody has been asked yet, and peers are not to hear that all are unknown
	}
	roots, err := t.store.Authorities.Bundle(t.ctx, certs.Transport)
	if err != nil {
		return
	}
	members, err := t.store.Members.List(t.ctx, store.AsLeader)
	if err != nil {
		return
	}
	x := exported{roots: roots, addresses: store.PeeringAddresses(members), members: make([]exportedMember, len(members))}
	for i := range members {
		m := &members[i]
		x.members[i] = exportedMember{store.PeerMember{
			ID:          m.ID,
			Name:        m.Name,
			NodeID:      m.NodeID,
			RaftAddress: m.RaftAddress,
			APIAddress:  m.APIAddress,
			Health:      t.alive(m.NodeID),
		}, m.Labels[labelExport]}
	}
	if bundle, err := t.store.Authorities.TrustBundle(t.ctx); err == nil {
		if text, err := certs.EncodeBundle(bundle); err == nil {
			x.domain, x.bundle = bundle.TrustDomain().Name(), string(text)
		}
	}
	t.export.publish(x)
}
