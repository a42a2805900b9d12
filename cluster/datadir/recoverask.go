package datadir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

const (
	askDial    = 1500 * time.Millisecond // a running machine accepts a connection within that time
	askWorkers = 256
)

// RunningError: a recovery was rejected because another member runs.
type RunningError struct{ Member RecoveryMember }

func (e *RunningError) Error() string {
	return fmt.Sprintf("node %d is running at %s (%s): a recovery is for a majority that is lost for good, and beside "+
		"a member that runs it would make a second cluster; stop every other member first",
		e.Member.NodeID, e.Member.RaftAddress, e.Member.Said)
}

// Ask finds out which other members run. A process that accepts a connection on a port of a member counts as running:
// even a rejection in TLS is an answer. It returns ErrRemoved when a member reports that this one was removed. It
// blocks for a few seconds, longer with thousands of members.
func (p *RecoveryPlan) Ask(ctx context.Context, d *Dir, n *Node) error {
	creds, err := d.Credentials(n)
	if err != nil {
		return err
	}
	creds.Known = func(id uint64) string {
		key, _ := store.MirrorCertKey(d.file(MirrorFile), id)
		return key
	}
	// The operator, node.json and the book may be more recent than the mirror.
	places := append(slices.Clone(n.Others), p.given...)
	book, _ := d.readBook() // a damaged one is ignored
	for _, e := range book {
		places = append(places, Place{NodeID: e.NodeID, RaftAddress: e.RaftAddress})
	}
	var mu sync.Mutex
	removed := false
	slots := make(chan struct{}, askWorkers)
	var wait sync.WaitGroup
	for i := range p.Members {
		m := &p.Members[i]
		if m.NodeID == p.NodeID {
			continue
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			addrs := []string{m.RaftAddress}
			for _, place := range places {
				if place.NodeID == m.NodeID && !slices.Contains(addrs, place.RaftAddress) {
					addrs = append(addrs, place.RaftAddress)
				}
			}
			for _, addr := range addrs {
				answer := transport.Probe(ctx, creds, m.NodeID, addr)
				mu.Lock()
				removed = removed || answer.Removed
				mu.Unlock()
				if answer.Text != "" {
					m.Answers, m.Said = true, answer.Text
					return
				}
			}
			if m.APIAddress != "" && transport.TakesConnection(ctx, m.APIAddress) {
				m.Answers, m.Said = true, "it takes connections at its API address "+m.APIAddress
			}
		})
	}
	wait.Wait()
	if removed {
		return errors.Join(ErrRemoved, d.MarkRemoved(n))
	}
	return nil
}
