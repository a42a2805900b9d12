package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster/store"
)

// nomadAutopilot is the one autopilot setting in the words of the Raft operator API; order and types as on the wire
// (reference nomad_raft, section 4). The last three booleans belong to things that muster does not have.
type nomadAutopilot struct {
	LastContactThreshold    string
	ServerStabilizationTime string
	CleanupDeadServers      bool
	MaxTrailingLogs         uint64
	MinQuorum               uint
	EnableRedundancyZones   bool
	DisableUpgradeMigration bool
	EnableCustomUpgrades    bool
	CreateIndex             uint64
	ModifyIndex             uint64
}

// ownAutopilot has the fields of our own configuration that this family knows, too.
type ownAutopilot struct {
	Stabilization        string `json:"stabilization,omitempty"`
	LastContactThreshold string `json:"lastContactThreshold,omitempty"`
	MaxLagRevisions      uint64 `json:"maxLagRevisions,omitempty"`
	CleanupDeadMembers   bool   `json:"cleanupDeadMembers"`
	MinQuorum            uint   `json:"minQuorum,omitempty"`
}

// nomadNames turns our names of the settings in an error text into those of this family.
var nomadNames = strings.NewReplacer("lastContactThreshold", "LastContactThreshold", "stabilization", "ServerStabilizationTime",
	"maxLagRevisions", "MaxTrailingLogs", "minQuorum", "MinQuorum", "cleanupDeadMembers", "CleanupDeadServers")

func (s *Server) nomadAutopilot(ctx context.Context, c store.Consistency) (out nomadAutopilot, err error) {
	cfg, rev, err := s.AutopilotConfig(ctx, c)
	if err != nil {
		return out, err
	}
	var own ownAutopilot
	if err := json.Unmarshal(MustJSON(cfg), &own); err != nil {
		return out, err
	}
	// A cluster has a configuration from its founding, which is revision 1, on.
	return nomadAutopilot{LastContactThreshold: own.LastContactThreshold, ServerStabilizationTime: own.Stabilization,
		CleanupDeadServers: own.CleanupDeadMembers, MaxTrailingLogs: own.MaxLagRevisions, MinQuorum: own.MinQuorum,
		CreateIndex: 1, ModifyIndex: max(1, rev)}, nil
}

func (s *Server) getNomadAutopilot(q *Request) error {
	cfg, err := s.nomadAutopilot(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	// This type has a marshaller of its own at the original: `pretty` only adds the end of the line.
	text := MustJSON(cfg)
	if pretty(q) {
		text = append(text, '\n')
	}
	return q.Send(http.StatusOK, "application/json", text, 0)
}

// putNomadAutopilot replaces the settings that this family knows; a field that is absent becomes zero, and where zero
// is no possible value, the default. With `cas` it does so only if ModifyIndex is still that.
func (s *Server) putNomadAutopilot(q *Request) error {
	bad := func(format string, args ...any) error {
		return Fail(http.StatusBadRequest, fmt.Sprintf("Error parsing autopilot config: "+format, args...))
	}
	if len(bytes.TrimSpace(q.Content)) == 0 {
		return bad("Request body is empty")
	}
	var in nomadAutopilot
	if err := DecodeJSON(q.Content, &in); err != nil {
		var wrong *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrong) && wrong.Field != "":
			return bad("%s must be a %s, not a %s", wrong.Field, wrong.Type, wrong.Value)
		default:
			return bad("the body must be a JSON object")
		}
	}
	for _, d := range []struct{ name, value string }{{"LastContactThreshold", in.LastContactThreshold}, {"ServerStabilizationTime", in.ServerStabilizationTime}} {
		if _, err := time.ParseDuration(d.value); err != nil && d.value != "" {
			return bad("%s must be a duration such as \"200ms\", not %.40q", d.name, d.value)
		}
	}
	for name, set := range map[string]bool{"EnableRedundancyZones": in.EnableRedundancyZones,
		"DisableUpgradeMigration": in.DisableUpgradeMigration, "EnableCustomUpgrades": in.EnableCustomUpgrades} {
		if set {
			return bad("%s must be false: there is no such thing here", name)
		}
	}
	var cas *uint64
	if text := q.URL.Query().Get("cas"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Fail(http.StatusBadRequest, "Error parsing cas value: "+err.Error())
		}
		if n == 1 { // the configuration of the founding: never set
			n = 0
		}
		cas = &n
	}
	own := ownAutopilot{Stabilization: in.ServerStabilizationTime, LastContactThreshold: in.LastContactThreshold,
		MaxLagRevisions: in.MaxTrailingLogs, CleanupDeadMembers: in.CleanupDeadServers, MinQuorum: in.MinQuorum}
	if own.Stabilization == "" {
		own.Stabilization = "0s"
	}
	if d, err := time.ParseDuration(own.LastContactThreshold); err == nil && d == 0 {
		own.LastContactThreshold = ""
	}
	value, err := s.ReplaceAutopilot(q.Context(), MustJSON(own))
	switch {
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader):
		return err
	case err != nil:
		return bad("%s", nomadNames.Replace(err.Error()))
	}
	done, err := s.Store.Settings.Put(q.Context(), q.Actor, store.SettingAutopilot, value, cas)
	if err != nil {
		return err
	}
	s.Wake()
	return nomadJSON(q, done)
}

// autopilotState is what this family reads of the leader's view.
type autopilotState struct {
	Healthy          bool     `json:"healthy"`
	FailureTolerance int      `json:"failureTolerance"`
	LeaderNodeID     uint64   `json:"leaderNodeId"`
	Voters           []uint64 `json:"voters"`
	Servers          []struct {
		NodeID      uint64    `json:"nodeId"`
		RaftAddress string    `json:"raftAddress"`
		NodeStatus  string    `json:"nodeStatus"`
		Healthy     bool      `json:"healthy"`
		IsLeader    bool      `json:"isLeader"`
		Voter       bool      `json:"hasVotingRights"`
		StableSince time.Time `json:"stableSince"`
		Name        string    `json:"name"`
		Role        string    `json:"role"`
		Lag         uint64    `json:"lag"`
		LastContact time.Time `json:"lastContact"`
		Version     string    `json:"version"`
	} `json:"servers"`
}

// serverHealth is one server of the answer; order as on the wire.
type serverHealth struct {
	LastContact string
	ID          string
	Name        string
	Address     string
	SerfStatus  string
	Version     string
	Leader      bool
	LastTerm    uint64
	LastIndex   uint64
	Healthy     bool
	Voter       bool
	StableSince string
}

// autopilotHealth answers 200, or 429 with the same JSON while the cluster is not healthy, so that load balancers and
// scripts see it; `?status=200` keeps the 200, which lets the official command line show the table.
func (s *Server) autopilotHealth(q *Request) error {
	if err := s.Store.Confirm(q.Context()); err != nil {
		return err
	}
	var state autopilotState
	known := func() bool { // a leader of a moment ago has not finished its first round
		state = autopilotState{}
		return json.Unmarshal(MustJSON(s.Autopilot()), &state) != nil || len(state.Servers) > 0 || !s.Store.Leading()
	}
	wait, cancel := context.WithTimeout(q.Context(), 2*time.Second)
	defer cancel()
	s.poll(wait, known)
	members, err := s.Store.Members.List(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	uuids := make(map[uint64]string, len(members))
	for i := range members {
		uuids[members[i].NodeID] = members[i].ID
	}
	cluster, err := s.Store.Cluster(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	out := struct {
		FailureTolerance int
		Healthy          bool
		Leader           string
		Servers          []serverHealth
		Voters           []string
	}{state.FailureTolerance, state.Healthy, uuids[state.LeaderNodeID], []serverHealth{}, []string{}}
	for _, id := range state.Voters {
		out.Voters = append(out.Voters, uuids[id])
	}
	now := s.Now()
	for _, v := range state.Servers {
		if v.Role == "" {
			continue
		}
		h := serverHealth{LastContact: "0s", ID: uuids[v.NodeID], Name: v.Name + "." + region, Address: v.RaftAddress, SerfStatus: v.NodeStatus,
			Version: v.Version, Leader: v.IsLeader, LastTerm: cluster.Epoch, LastIndex: cluster.Revision - min(v.Lag, cluster.Revision),
			Healthy: v.Healthy, Voter: v.Voter, StableSince: v.StableSince.UTC().Format(TimeFormat)}
		if v.NodeStatus != "alive" {
			h.SerfStatus = "failed"
		}
		if !v.IsLeader && !v.LastContact.IsZero() {
			h.LastContact = max(0, now.Sub(v.LastContact)).Round(time.Millisecond / 10).String()
		}
		out.Servers = append(out.Servers, h)
	}
	if out.Healthy || q.URL.Query().Get("status") == "200" {
		return nomadJSON(q, out)
	}
	return q.Send(http.StatusTooManyRequests, "text/plain; charset=utf-8", MustJSON(out), 0)
}
