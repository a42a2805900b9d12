package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

const (
	hooksLimit = 60 * time.Second // for all hooks of one drain
	hooksRetry = 2 * time.Second  // a resume hook is retried until its member answers
)

// hookWork prevents concurrent hook requests to one member.
type hookWork struct {
	mu   sync.Mutex
	busy map[uint64]uint64    // node -> generation
	next map[uint64]time.Time // node -> not before
	done sync.WaitGroup
}

// drive continues every recorded drain and resume, one step per round.
func (t *term) drive(ctx context.Context, members []store.Member) error {
	for i := range members {
		m := &members[i]
		switch {
		case m.HooksPending != "":
			t.startHooks(ctx, *m)
		case m.DrainState == store.DrainDraining:
			if err := t.drainStep(ctx, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// drainStep waits for the leases, then hands leadership over, then finishes the drain. After a hand-over the new leader
// does the last step.
func (t *term) drainStep(ctx context.Context, m *store.Member) error {
	if m.DrainDeadline != nil && time.Now().Before(*m.DrainDeadline) {
		n, err := t.Store.Leases.Count(ctx, store.AsLeader, m.NodeID)
		if err != nil || n > 0 {
			return err
		}
	}
	if m.NodeID == t.Store.NodeID() {
		if to := t.successor(); to != 0 {
			tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			return t.Store.Transfer(tctx, to)
		}
		if time.Since(t.since) < 3*time.Second && t.otherVoters() {
			return nil // no successor is known yet
		}
		t.log.Warn("this member is drained but keeps leading: no other voter can lead", "node", m.NodeID)
	}
	return t.Store.Members.FinishDrain(ctx, t.actor(), m.NodeID, m.DrainGen)
}

func (t *term) startHooks(ctx context.Context, m store.Member) {
	w := &t.hooks
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[m.NodeID] == m.DrainGen || time.Now().Before(w.next[m.NodeID]) {
		return
	}
	w.busy[m.NodeID] = m.DrainGen
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		err := t.runHooks(ctx, m)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, m.NodeID)
		if err != nil {
			w.next[m.NodeID] = time.Now().Add(hooksRetry)
			t.log.Warn("hooks", "kind", m.HooksPending, "node", m.NodeID, "err", err)
		}
		t.Wake()
	}()
}

// runHooks makes the member run its hooks and records the outcome. A member that cannot be reached is drained without
// its hooks, with a note, so that it can be removed; resume hooks wait until it answers.
func (t *term) runHooks(ctx context.Context, m store.Member) error {
	hctx, cancel := context.WithTimeout(ctx, hooksLimit)
	defer cancel()
	var outcome []store.HookOutcome
	var err error
	if m.NodeID == t.Store.NodeID() {
		outcome = t.Hooks.run(hctx, m.HooksPending, m.DrainGen)
	} else if err = t.reach(hctx, m.NodeID); err == nil {
		var body []byte
		if body, err = json.Marshal(hookRun{Kind: m.HooksPending, Generation: m.DrainGen}); err != nil {
			return err
		}
		err = t.Transport.Call(hctx, http.MethodPost, m.NodeID, pathHooks, bytes.NewReader(body), &outcome)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if m.HooksPending == store.HookResume {
			return err
		}
		t.log.Warn("a member is drained without its hooks", "node", m.NodeID, "err", err)
		outcome = []store.HookOutcome{{Name: "node", Message: fmt.Sprintf("node %d could not be reached, its hooks did "+
			"not run", m.NodeID)}}
	}
	return t.Store.Members.HooksDone(ctx, t.actor(), m.NodeID, m.DrainGen, m.HooksPending, outcome)
}

const hookTimeout = 5 * time.Second

// Hook is a command that a member runs for a drain or resume.
type Hook struct {
	Name    string
	Command string // for /bin/sh -c
}

// ParseHook parses NAME=COMMAND.
func ParseHook(s string) (Hook, error) {
	name, command, ok := strings.Cut(s, "=")
	if !ok || name == "" || strings.TrimSpace(command) == "" {
		return Hook{}, fmt.Errorf("a hook must be NAME=COMMAND, not %q", s)
	}
	return Hook{Name: name, Command: command}, nil
}

// Hooks runs a member's hooks.
type Hooks struct {
	Drain, Resume []Hook
	Node          datadir.Node
	Log           *slog.Logger

	mu   sync.Mutex
	last hookRun
}

type hookRun struct {
	Kind       string `json:"kind"`
	Generation uint64 `json:"generation"`
	outcome    []store.HookOutcome
}

// run executes the hooks of a kind in order. For a repeated generation, which a new leader requests, it returns the
// first outcome.
func (h *Hooks) run(ctx context.Context, kind string, generation uint64) []store.HookOutcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last.outcome != nil && h.last.Kind == kind && h.last.Generation == generation {
		return h.last.outcome
	}
	list := h.Drain
	if kind == store.HookResume {
		list = h.Resume
	}
	outcome := []store.HookOutcome{}
	for _, hook := range list {
		outcome = append(outcome, h.one(ctx, hook, kind))
	}
	h.last = hookRun{Kind: kind, Generation: generation, outcome: outcome}
	return outcome
}

func (h *Hooks) one(ctx context.Context, hook Hook, kind string) store.HookOutcome {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", hook.Command)
	cmd.Env = append(os.Environ(), "MUSTER_HOOK="+kind, fmt.Sprintf("MUSTER_NODE_ID=%d", h.Node.NodeID),
		"MUSTER_NODE_NAME="+h.Node.Name)
	// A hook that hangs is killed with its process group. Processes left by a hook that exits may go on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 200 * time.Millisecond
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it succeeded and left a process that holds its output open
	}
	o := store.HookOutcome{Name: hook.Name, OK: err == nil, Millis: time.Since(begin).Milliseconds()}
	switch {
	case ctx.Err() != nil:
		o.Message = "did not end within " + hookTimeout.String()
	case err != nil:
		o.Message = err.Error()
	}
	// A hook's output goes only to the member's own log, because it may contain anything.
	h.Log.Info("hook", "kind", kind, "name", hook.Name, "ok", o.OK, "took", time.Since(begin).Round(time.Millisecond),
		"output", strings.TrimSpace(string(out)))
	return o
}

const pathHooks = "/internal/hooks"

func (h *Hooks) serve(w http.ResponseWriter, r *http.Request) {
	var q hookRun
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&q); err != nil || q.Kind != store.HookDrain &&
		q.Kind != store.HookResume {
		http.Error(w, "kind must be drain or resume", http.StatusBadRequest)
		return
	}
	// Not the request's context: a hook that has begun must finish even if the leader disconnects.
	writeJSON(w, h.run(context.WithoutCancel(r.Context()), q.Kind, q.Generation))
}
