package cluster

import (
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

const hookTimeout = 5 * time.Second

// Hook is a command that a member runs when it is drained or resumed.
type Hook struct {
	Name    string
	Command string // for /bin/sh -c
}

// ParseHook reads NAME=COMMAND.
func ParseHook(s string) (Hook, error) {
	name, command, ok := strings.Cut(s, "=")
	if !ok || name == "" || strings.TrimSpace(command) == "" {
		return Hook{}, fmt.Errorf("a hook must be NAME=COMMAND, not %q", s)
	}
	return Hook{Name: name, Command: command}, nil
}

// Hooks are a member's own commands.
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

// run executes the hooks of a kind one after the other. Asked again for the same generation, as a new leader does, it
// returns what happened the first time.
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
	// A hook that hangs is ended with all that it has started. What it leaves behind when it ends by itself may stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 200 * time.Millisecond
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well and left something running that holds its output open
	}
	o := store.HookOutcome{Name: hook.Name, OK: err == nil, Millis: time.Since(begin).Milliseconds()}
	switch {
	case ctx.Err() != nil:
		o.Message = "did not end within " + hookTimeout.String()
	case err != nil:
		o.Message = err.Error()
	}
	// What a hook prints is for the member's own log; it may hold anything.
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
	// Not the request's context: a hook that was begun is seen through when the leader goes away.
	writeJSON(w, h.run(context.WithoutCancel(r.Context()), q.Kind, q.Generation))
}
