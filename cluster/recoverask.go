package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/store"
)

const (
	askDial    = 1500 * time.Millisecond // a machine that is there takes a connection within that
	askWorkers = 256
)

// RunningError: a recovery was refused because another member runs.
type RunningError struct{ Member RecoveryMember }

func (e *RunningError) Error() string {
	return fmt.Sprintf("node %d is running at %s (%s): a recovery is for a majority that is lost for good, and beside a member "+
		"that runs it would make a second cluster; stop every other member first", e.Member.NodeID, e.Member.RaftAddress, e.Member.Said)
}

// Ask finds out which other members run. Whoever takes a connection on a port of a member counts as running: a refusal
// in TLS is the answer of a process. It returns ErrRemoved when one of them says that this member was removed. It blocks
// for a few seconds, longer with thousands of members.
func (p *RecoveryPlan) Ask(ctx context.Context, d *Dir, n *Node) error {
	creds, err := d.Credentials(n)
	if err != nil {
		return err
	}
	creds.Known = func(id uint64) string {
		key, _ := store.MirrorCertKey(d.file(mirrorFile), id)
		return key
	}
	t := NewTransport(creds, nil, func(uint64) error { return nil }, slog.New(slog.DiscardHandler))
	defer t.Close()
	// The operator, node.json and the book may know better than the mirror.
	places := append(slices.Clone(n.Peers), p.given...)
	book, _ := d.readBook() // a damaged one is only a pity
	for _, e := range book {
		places = append(places, Peer{NodeID: e.NodeID, RaftAddress: e.RaftAddress})
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
			for _, peer := range places {
				if peer.NodeID == m.NodeID && !slices.Contains(addrs, peer.RaftAddress) {
					addrs = append(addrs, peer.RaftAddress)
				}
			}
			for _, addr := range addrs {
				h := t.hearOut(ctx, m.NodeID, addr)
				mu.Lock()
				removed = removed || h.removed
				mu.Unlock()
				if h.said != "" {
					m.Answers, m.Said = true, h.said
					return
				}
			}
			if m.APIAddress != "" && takesConnection(ctx, m.APIAddress) {
				m.Answers, m.Said = true, "it takes connections at its API address "+m.APIAddress
			}
		})
	}
	wait.Wait()
	if removed {
		return errors.Join(ErrRemoved, d.markRemoved(n))
	}
	return nil
}

func takesConnection(ctx context.Context, addr string) bool {
	dialer := net.Dialer{Timeout: askDial}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// hearing is what came of a connection to a cluster listener.
type hearing struct {
	said    string // in words, "" when nobody takes the connection
	heard   bool   // a member talks to this one
	trouble bool   // the certificates do not agree
	removed bool   // it says that this member was removed
}

// hearOut connects to a cluster listener and asks for the member's health.
func (t *Transport) hearOut(ctx context.Context, id uint64, addr string) hearing {
	if !takesConnection(ctx, addr) {
		return hearing{}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*probeTimeout)
	defer cancel()
	one := t.at(addr)
	defer one.Close()
	err := one.call(ctx, http.MethodGet, id, pathProbe, nil, nil)
	var answer *StatusError
	switch {
	case err == nil:
		return hearing{said: fmt.Sprintf("it answers as node %d", id), heard: true}
	case errors.As(err, &answer) && answer.Status == http.StatusGone && answer.Removed:
		return hearing{said: "it says that this member was removed", removed: true}
	case errors.As(err, &answer) && answer.Status == http.StatusGone:
		return hearing{said: "it says that this member is not in the cluster"}
	case errors.As(err, &answer):
		return hearing{said: fmt.Sprintf("it answers %d", answer.Status), heard: true}
	}
	if trouble := troubleOf(err); trouble != "" {
		return hearing{said: trouble, trouble: true}
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return hearing{said: "it takes connections and then: " + text}
}

// at is the transport with all members at one address; it shares no connection with the original.
func (t *Transport) at(addr string) *Transport {
	return NewTransport(t.creds, func(uint64) (string, bool) { return addr, true }, t.fence, t.log)
}
