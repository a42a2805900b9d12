package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"muster/store"
)

// raftDiff lists where the Raft configuration does not agree with the members table.
func (s *Server) raftDiff(q *Request) error {
	if err := s.Store.Confirm(q.Context()); err != nil {
		return err
	}
	diff, err := s.Diff(q.Context())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, diff)
}

func (s *Server) getAutopilotConfig(q *Request) error {
	cfg, _, err := s.AutopilotConfig(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, cfg)
}

// putAutopilotConfig changes the fields that the body has and leaves the others.
func (s *Server) putAutopilotConfig(q *Request) error {
	if !json.Valid(q.Content) || bytes.TrimSpace(q.Content)[0] != '{' {
		return Fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	merged, err := s.MergeAutopilot(q.Context(), q.Content)
	if err != nil {
		if errors.Is(err, store.ErrNotLeader) || errors.Is(err, store.ErrNoLeader) {
			return err
		}
		return Fail(http.StatusBadRequest, err.Error())
	}
	if _, err := s.Store.PutSetting(q.Context(), q.Actor, store.SettingAutopilot, merged, nil); err != nil {
		return err
	}
	s.Wake()
	return s.getAutopilotConfig(q)
}
