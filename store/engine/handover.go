package engine

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	transferTimeout = 700 * time.Millisecond // to one voter; Raft itself gives up after an election time-out
	leaderSettles   = 500 * time.Millisecond // after a transfer that has failed; the leader counts as none meanwhile
	voterAnswers    = 100 * time.Millisecond // one that takes longer is asked to lead after the others
)

// HandOver transfers leadership to another voter, if this member has it and a voter accepts it.
func (e *Engine) HandOver(ctx context.Context) {
	if e.Leading() {
		e.passOn(ctx)
	}
}

// passOn transfers Raft leadership to the first voter that accepts it. Voters that answer and follow this member come
// first: each one that does not accept costs an election time-out.
func (e *Engine) passOn(ctx context.Context) {
	for _, id := range e.heirs(ctx) {
		if ctx.Err() != nil || e.settledLeader(ctx) != e.cfg.NodeID {
			return
		}
		tctx, cancel := context.WithTimeout(ctx, transferTimeout)
		err := e.transfer(tctx, id, descendWait)
		cancel()
		if err == nil {
			return
		}
		e.log.Info("leadership was not handed over", "to", id, "err", err)
	}
}

// heirs lists the other voters; the ones that answer at this moment come first.
func (e *Engine) heirs(ctx context.Context) (list []uint64) {
	for _, v := range e.Servers() {
		if v.Role == RoleVoter && v.NodeID != e.cfg.NodeID {
			list = append(list, v.NodeID)
		}
	}
	if len(list) < 2 || e.cfg.Ask == nil {
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, voterAnswers)
	defer cancel()
	type answer struct {
		id  uint64
		yes bool
	}
	answers := make(chan answer, len(list))
	for _, id := range list {
		go func() { answers <- answer{id, e.cfg.Ask(ctx, []uint64{id}, 1)} }()
	}
	well := map[uint64]bool{}
	for range list {
		a := <-answers
		well[a.id] = a.yes
	}
	slices.SortStableFunc(list, func(a, b uint64) int {
		switch {
		case well[a] == well[b]:
			return 0
		case well[a]:
			return -1
		default:
			return 1
		}
	})
	return list
}

// settledLeader asks the local Raft server who leads until it names one: while a transfer is under way, and for a
// moment after it has failed, it names none.
func (e *Engine) settledLeader(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, leaderSettles)
	defer cancel()
	for {
		if id, err := e.FollowsNow(ctx); err == nil && id != 0 {
			return id
		}
		select {
		case <-time.After(leaderSpin):
		case <-ctx.Done():
			return 0
		}
	}
}

// Transfer hands leadership to a voter. Requests that are under way are answered first; those that come after
// go to the new leader. It blocks until another leads or ctx ends.
func (e *Engine) Transfer(ctx context.Context, id uint64) error {
	if !e.Leading() {
		return ErrNotLeader
	}
	return e.transfer(ctx, id, descendWait)
}

// StepDown is Transfer for a leader whose disk does not answer: it does not wait for the writer, which may wait for the
// disk. What the writer has under way is decided as at any loss of leadership.
func (e *Engine) StepDown(ctx context.Context, id uint64) error {
	if !e.Leading() {
		return ErrNotLeader
	}
	return e.transfer(ctx, id, stepDownWait)
}

func (e *Engine) transfer(ctx context.Context, id uint64, wait time.Duration) error {
	// A leader that is about to go stops writing first: nothing it has answered can be in doubt.
	waited := false
	for e.yielding.Swap(true) { // another transfer goes first; afterwards it is for the next leader
		waited = true
		select {
		case <-time.After(leaderSpin):
		case <-ctx.Done():
			return Refuse(Conflict, "leadership transfer in progress")
		}
	}
	if waited && !e.Leading() {
		e.yielding.Store(false)
		return ErrNotLeader
	}
	defer e.Look() // after yielding ends: if this member still leads, it goes on at once
	defer e.yielding.Store(false)
	bringUp := func() {}
	if wait != stepDownWait {
		bringUp = e.groom(ctx, id)
	}
	e.descendWithin(ErrNotLeader, wait)
	bringUp()
	if err := e.node.transfer(ctx, id); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	for { // it may have gone on from id already
		if now, err := e.FollowsNow(ctx); err == nil && now != 0 && now != e.cfg.NodeID {
			e.observeLeader(now)
			break
		}
		select {
		case <-time.After(leaderSpin):
		case <-ctx.Done():
			return fmt.Errorf("transfer leadership: %w", ctx.Err())
		}
	}
	if e.cfg.Nudge != nil {
		var others []uint64
		for _, v := range e.Servers() {
			if v.NodeID != e.cfg.NodeID {
				others = append(others, v.NodeID)
			}
		}
		e.cfg.Nudge(others)
	}
	return nil
}
