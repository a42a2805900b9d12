package handlers

import (
	"bytes"
	"context"

	"errors"
	"fmt"
	"net/http"

	"time"

	"muster/store"
)

const maxDrainSeconds = 3600

func (s *Server) getMember(q *Request) error {
	m, _, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	servers, err := s.servers(q)
	if err != nil {
		return err
	}
	out := s.member(m, rolesOf(servers))
	out.Recipient = m.Recipient
	return q.Result(http.StatusOK, out)
}

// removeMember follows the documented order of checks; the quorum check is ours and comes last.
func (s *Server) removeMember(q *Request) error {
	if again, err := s.removedBefore(q); err != nil {
		return err
	} else if again {
		return q.Result(http.StatusOK, Message{"Cluster member removed"})
	}
	m, query, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	force := query.Get("force") == "true" // only the literal counts, as documented
	check := func(m *store.Member) error {
		if m.NodeID == s.Store.NodeID() {
			return Fail(http.StatusConflict, "Cannot remove the current leader; drain this node first so leadership transfers, then retry")
		}
		if m.DrainState != store.DrainDrained && !force {
			return Fail(http.StatusConflict, fmt.Sprintf("Node is not drained (state=%s); drain it first via POST /api/v1/cluster/members/%d/drain, or pass ?force=true to skip", m.DrainState, m.NodeID))
		}
		return nil
	}
	if err := check(m); err != nil {
		return err
	}
	if !force {
		if check, err = s.quorumSafe(q.Context(), m.NodeID, check); err != nil {
			return Fail(http.StatusConflict, fmt.Sprintf("Removing node %d would leave the cluster without a healthy quorum: %s; pass ?force=true to remove it all the same", m.NodeID, err))
		}
	}
	if err := s.remove(q, m.NodeID, check); err != nil {
		return err
	}
	return q.Result(http.StatusOK, Message{"Cluster member removed"})
}

// promoteMember answers when the member votes. It works at once, beyond what autopilot would do, and stays.
func (s *Server) promoteMember(q *Request) error {
	m, _, err := s.lookUp(q, false)
	if err != nil {
		return err
	}
	again, err := s.Store.Answered(q.Context(), q.Actor)
	if err != nil {
		return err
	}
	if !again && rolesOf(s.Store.Servers())[m.NodeID] == store.RoleVoter {
		return Fail(http.StatusConflict, "Node is already a voter")
	}
	if m.Mode == store.ModeReplicate {
		return Fail(http.StatusConflict, "Node is replicate-only and never votes")
	}
	if err := s.Reachable(q.Context(), m.NodeID); err != nil {
		return Fail(http.StatusConflict, fmt.Sprintf("Failed to promote node to voter: %s", err))
	}
	if err := s.Store.Promote(q.Context(), q.Actor, m.NodeID); err != nil {
		return err
	}
	s.Wake()
	if !s.poll(q.Context(), func() bool { return rolesOf(s.Store.Servers())[m.NodeID] == store.RoleVoter || !s.Store.Leading() }) {
		return q.Result(http.StatusOK, Message{"Cluster member will be a voter as soon as it has caught up"})
	}
	return q.Result(http.StatusOK, Message{"Cluster member promoted to voter"})
}

// drained is the answer to a drain; what the hooks said is ours.
type drained struct {
	DrainState string              `json:"drainState"`
	Hooks      []store.HookOutcome `json:"hooks,omitempty"`
	Deadline   string              `json:"deadline,omitempty"`
	Warnings   []string            `json:"warnings,omitempty"`
}

func showDrain(m *store.Member) drained {
	out := drained{DrainState: m.DrainState, Hooks: m.Hooks}
	if m.DrainState == store.DrainDraining && m.DrainDeadline != nil {
		out.Deadline = m.DrainDeadline.UTC().Format(TimeFormat)
	}
	for _, h := range m.Hooks {
		if !h.OK {
			out.Warnings = append(out.Warnings, fmt.Sprintf("hook %s: %s", h.Name, h.Message))
		}
	}
	return out
}

// drainMember records the drain and, with deadline 0, waits until it is done. Whoever leads carries it on: when the
// leader itself is drained, the request is answered by the next one.
func (s *Server) drainMember(q *Request) error {
	m, _, err := s.lookUp(q, true)
	if err != nil {
		return err
	}
	var body struct {
		Deadline int64 `json:"deadlineSeconds"`
	}
	if len(bytes.TrimSpace(q.Content)) > 0 {
		if err := DecodeJSON(q.Content, &body); err != nil {
			return Fail(http.StatusBadRequest, "Invalid request body")
		}
	}
	if body.Deadline < 0 || body.Deadline > maxDrainSeconds {
		return Fail(http.StatusBadRequest, "deadlineSeconds must be between 0 and 3600")
	}
	m, err = s.Store.BeginDrain(q.Context(), q.Actor, m.NodeID, time.Duration(body.Deadline)*time.Second)
	if err != nil {
		return err
	}
	s.Wake()
	if body.Deadline == 0 && m.DrainState == store.DrainDraining && !s.Now().Before(*m.DrainDeadline) {
		if m, err = s.awaitMember(q.Context(), m, func(m *store.Member) bool { return m.DrainState != store.DrainDraining }); err != nil {
			return err
		}
	}
	return q.Result(http.StatusOK, showDrain(m))
}

// awaitMember waits until a member's row fulfils a condition, or for as long as the request may take.
func (s *Server) awaitMember(ctx context.Context, m *store.Member, done func(*store.Member) bool) (*store.Member, error) {
	for !done(m) {
		before := s.Store.Revision()
		now, err := s.Store.PeekMember(ctx, m.NodeID)
		if err != nil {
			return m, err
		}
		if now == nil {
			return m, Fail(http.StatusNotFound, "Cluster member not found")
		}
		m = now
		switch {
		case done(m) || ctx.Err() != nil:
			return m, nil
		}
		s.Store.AwaitChange(ctx, before, "members")
		if !s.Store.Leading() {
			return m, store.ErrNotLeader // the next leader knows how it ends
		}
	}
	return m, nil
}

func (s *Server) resumeMember(q *Request) error {
	m, _, err := s.lookUp(q, true)
	if err != nil {
		return err
	}
	if m, err = s.Store.Resume(q.Context(), q.Actor, m.NodeID); err != nil {
		return err
	}
	s.Wake()
	wait, cancel := context.WithTimeout(q.Context(), 8*time.Second)
	defer cancel()
	if m, err = s.awaitMember(wait, m, func(m *store.Member) bool { return m.HooksPending == "" }); err != nil && !errors.Is(err, store.ErrNotLeader) {
		return err
	}
	out := struct {
		Message
		Hooks    []store.HookOutcome `json:"hooks,omitempty"`
		Warnings []string            `json:"warnings,omitempty"`
	}{Message: Message{"Cluster member resumed"}, Hooks: m.Hooks, Warnings: showDrain(m).Warnings}
	if m.HooksPending != "" {
		out.Warnings = append(out.Warnings, fmt.Sprintf("node %d does not answer; its resume hooks run when it is back", m.NodeID))
	}
	return q.Result(http.StatusOK, out)
}
