package native

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"muster/handlers"
	"muster/store"
)

// raftDiff lists the differences between the Raft configuration and the members table.
func (s *service) raftDiff(q *handlers.Request) error {
	diff, err := s.Cluster.Diff(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, diff)
}

func (s *service) getAutopilotConfig(q *handlers.Request) error {
	cfg, _, err := s.Autopilot.Get(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, cfg)
}

// putAutopilotConfig changes the fields in the body and keeps the others.
func (s *service) putAutopilotConfig(q *handlers.Request) error {
	if !json.Valid(q.Content) || bytes.TrimSpace(q.Content)[0] != '{' {
		return handlers.Fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	merged, err := s.Autopilot.Merge(q.Context(), q.Content)
	if err != nil {
		if errors.Is(err, store.ErrNotLeader) || errors.Is(err, store.ErrNoLeader) {
			return err
		}
		return handlers.Fail(http.StatusBadRequest, err.Error())
	}
	if _, err := s.Settings.Put(q.Context(), q.Actor, store.SettingAutopilot, merged, nil); err != nil {
		return err
	}
	s.Cluster.Wake()
	return s.getAutopilotConfig(q)
}
