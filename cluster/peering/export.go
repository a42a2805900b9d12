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
	// labelExport on a member, and metaExport on a peering, restrict what other clusters see: a comma-separated list of
	// peering names. "*", or no label, means all; "none" means none.
	labelExport = "export"
	metaExport  = "export"

	exportEvery   = time.Second
	aliveWithin   = 5 * time.Second // the leader has probed its members by then
	peerAddresses = 16              // sent to a dialer; Raft servers come first
)

// exported is what this cluster exports at one moment.
type exported struct {
	sequence  uint64
	roots     []string
	addresses []string
	members   []exportedMember
	domain    string             // trust domain of this cluster's software
	bundle    string             // its trust bundle; empty without one
	list      []store.PeerMember // sent on one stream
}

type exportedMember struct {
	store.PeerMember
	to string // the label
}

// membersFor lists the members that a peering sees, by id.
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

// exporter keeps the exported state up to date while this member leads.
type exporter struct {
	mu      sync.Mutex
	current exported
	changed chan struct{}
}

// now returns the exported state and a channel that is closed when it changes.
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

// refresh reads members, their health and the authorities.
func (t *term) refresh() {
	if t.alive(t.store.NodeID()) == "unknown" && time.Since(t.since) < aliveWithin {
		return // no member was probed yet: do not export all as unknown
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
