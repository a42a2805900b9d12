package engine

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	transferTimeout = 700 * time.Millisecond // to one voter; Raft itself gives up after an election timeout
	leaderSettles   = 500 * time.Millisecond // after a failed transfer, during which Raft names no leader
	voterAnswers    = 100 * time.Millisecond // voters that take longer come last
)

// HandOver transfers leadership to another voter, if this member has it and a voter accepts it. It blocks until another
// member leads, no voter is left to try, or ctx ends.
func (e *Engine) HandOver(ctx context.Context) {
	if e.Leading() {
		e.passOn(ctx)
	}
}

// passOn transfers Raft leadership to the first voter that accepts it. Voters that answer and follow this member come
// first: one that does not accept costs an election timeout.
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

// heirs lists the other voters. Those that answer now come first.
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

// settledLeader asks the local Raft server for the leader until it names one. It names none during a transfer and for a
// moment after a failed one.
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

// Transfer hands leadership to a voter. Requests in progress are answered first; later ones go to the new leader. It
// blocks until another member leads or ctx ends. It returns a Refusal while another transfer is in progress.
func (e *Engine) Transfer(ctx context.Context, id uint64) error {
	if !e.Leading() {
		return ErrNotLeader
	}
	return e.transfer(ctx, id, descendWait)
}

// StepDown is Transfer for a leader whose disk does not answer: it does not wait for the writer, which may wait for the
// disk. The writer's batch is decided as after any loss of leadership.
func (e *Engine) StepDown(ctx context.Context, id uint64) error {
	if !e.Leading() {
		return ErrNotLeader
	}
	return e.transfer(ctx, id, stepDownWait)
}

func (e *Engine) transfer(ctx context.Context, id uint64, wait time.Duration) error {
	// The writer stops first, so that no answer of this leader is in doubt.
	waited := false
	for e.yielding.Swap(true) { // after another transfer the next leader is to be asked
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
	defer e.Look() // after yielding ends: if this member still leads, it continues at once
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
	for { // id may have handed leadership over already
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
