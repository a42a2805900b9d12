package ella

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"muster/api"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

const maxDrainSeconds = 3600

// HeaderWarning is the header with a sentence about the consequences of a change, carried out or refused.
const HeaderWarning = "X-Muster-Warning"

func (s *service) getMember(q *handlers.Request) error {
	m, _, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	out := s.member(m, membership.Roles(s.servers(q)))
	out.Recipient = m.Recipient
	return q.Result(http.StatusOK, out)
}

// removeMember follows the documented order of checks; the quorum check is muster's addition and comes last.
func (s *service) removeMember(q *handlers.Request) error {
	if again, err := s.membership.RemovedBefore(q); err != nil {
		return err
	} else if again {
		return q.Result(http.StatusOK, handlers.Message{Message: "Cluster member removed"})
	}
	m, query, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	if cost := s.Cluster.ZoneCost(m.NodeID); cost != "" { // the documented answer has no field for it
		q.W.Header().Set(HeaderWarning, cost)
	}
	force := query.Get("force") == "true" // only the literal counts, as documented
	conflict := func(format string, args ...any) error {
		return handlers.Fail(http.StatusConflict, fmt.Sprintf(format, args...))
	}
	var drain *membership.NotDrainedError
	var quorum *membership.QuorumError
	switch err := s.membership.Remove(q, m, membership.Removal{Drained: !force, Quorum: !force}); {
	case errors.Is(err, membership.ErrLeader):
		return conflict("Cannot remove the current leader; drain this node first so leadership transfers, then retry")
	case errors.As(err, &drain):
		return conflict("Node is not drained (state=%s); drain it first via POST /api/v1/cluster/members/%d/drain, "+
			"or pass ?force=true to skip", drain.State, drain.NodeID)
	case errors.As(err, &quorum):
		return conflict("Removing node %d would leave the cluster without a healthy quorum: %s; "+
			"pass ?force=true to remove it anyway", m.NodeID, quorum)
	case err != nil:
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Cluster member removed"})
}

// promoteMember answers when the member is a voter. The promotion takes effect at once, also beyond autopilot's
// maximum, and autopilot does not undo it.
func (s *service) promoteMember(q *handlers.Request) error {
	m, _, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	again, err := s.Replica.Answered(q.Context(), q.Actor)
	if err != nil {
		return err
	}
	if !again && membership.Roles(s.Replica.Servers())[m.NodeID] == store.RoleVoter {
		return handlers.Fail(http.StatusConflict, "Node is already a voter")
	}
	if m.Mode == store.ModeReplicate {
		return handlers.Fail(http.StatusConflict, "Node is replicate-only and never votes")
	}
	if err := s.Cluster.Reachable(q.Context(), m.NodeID); err != nil {
		return handlers.Fail(http.StatusConflict, fmt.Sprintf("Failed to promote node to voter: %s", err))
	}
	if err := s.Members.Promote(q.Context(), q.Actor, m.NodeID); err != nil {
		return err
	}
	s.Cluster.Wake()
	if !membership.Poll(q.Context(), func() bool {
		return membership.Roles(s.Replica.Servers())[m.NodeID] == store.RoleVoter || !s.Replica.Leading()
	}) {
		return q.Result(http.StatusOK,
			handlers.Message{Message: "Cluster member will be a voter as soon as it has caught up"})
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Cluster member promoted to voter"})
}

func showDrain(m *store.Member) api.Drain {
	out := api.Drain{DrainState: m.DrainState, Hooks: hooks(m)}
	if m.DrainState == store.DrainDraining && m.DrainDeadline != nil {
		out.Deadline = m.DrainDeadline.UTC().Format(handlers.TimeFormat)
	}
	for _, h := range m.Hooks {
		if !h.OK {
			out.Warnings = append(out.Warnings, fmt.Sprintf("hook %s: %s", h.Name, h.Message))
		}
	}
	return out
}

// drainMember records the drain and, with deadline 0, waits until it is complete. Any leader continues it: when the
// leader itself is drained, the next leader answers the request.
func (s *service) drainMember(q *handlers.Request) error {
	m, _, err := s.lookUp(q, true)
	if err != nil {
		return err
	}
	var body struct {
		Deadline int64 `json:"deadlineSeconds"`
	}
	if len(bytes.TrimSpace(q.Content)) > 0 {
		if err := handlers.DecodeJSON(q.Content, &body); err != nil {
			return handlers.Fail(http.StatusBadRequest, "Invalid request body")
		}
	}
	if body.Deadline < 0 || body.Deadline > maxDrainSeconds {
		return handlers.Fail(http.StatusBadRequest, "deadlineSeconds must be between 0 and 3600")
	}
	m, err = s.Members.BeginDrain(q.Context(), q.Actor, m.NodeID, time.Duration(body.Deadline)*time.Second)
	if err != nil {
		return err
	}
	cost := s.Cluster.ZoneCost(m.NodeID)
	s.Cluster.Wake()
	if body.Deadline == 0 && m.DrainState == store.DrainDraining && !s.Now().Before(*m.DrainDeadline) {
		if m, err = s.awaitMember(q.Context(), m,
			func(m *store.Member) bool { return m.DrainState != store.DrainDraining }); err != nil {
			return err
		}
	}
	out := showDrain(m)
	if cost != "" {
		out.Warnings = append(out.Warnings, cost)
	}
	return q.Result(http.StatusOK, out)
}

// awaitMember waits until a member's row meets a condition, up to the request's deadline.
func (s *service) awaitMember(ctx context.Context, m *store.Member, done func(*store.Member) bool) (*store.Member,
	error) {
	for !done(m) {
		before := s.Replica.Revision()
		now, err := s.Members.Get(ctx, store.AsLeader, m.NodeID)
		if err != nil {
			return m, err
		}
		if now == nil {
			return m, handlers.Fail(http.StatusNotFound, "Cluster member not found")
		}
		m = now
		switch {
		case done(m) || ctx.Err() != nil:
			return m, nil
		}
		s.Replica.AwaitChange(ctx, before, "members")
		if !s.Replica.Leading() {
			return m, store.ErrNotLeader // the next leader continues it
		}
	}
	return m, nil
}

func (s *service) resumeMember(q *handlers.Request) error {
	m, _, err := s.lookUp(q, true)
	if err != nil {
		return err
	}
	if m, err = s.Members.Resume(q.Context(), q.Actor, m.NodeID); err != nil {
		return err
	}
	s.Cluster.Wake()
	wait, cancel := context.WithTimeout(q.Context(), 8*time.Second)
	defer cancel()
	if m, err = s.awaitMember(wait, m, func(m *store.Member) bool { return m.HooksPending == "" }); err != nil &&
		!errors.Is(err, store.ErrNotLeader) {
		return err
	}
	out := struct {
		handlers.Message
		Hooks    []api.HookOutcome `json:"hooks,omitempty"`
		Warnings []string          `json:"warnings,omitempty"`
	}{Message: handlers.Message{Message: "Cluster member resumed"}, Hooks: hooks(m), Warnings: showDrain(m).Warnings}
	if m.HooksPending != "" {
		out.Warnings = append(out.Warnings,
			fmt.Sprintf("node %d does not answer; its resume hooks will run when it answers again", m.NodeID))
	}
	return q.Result(http.StatusOK, out)
}
