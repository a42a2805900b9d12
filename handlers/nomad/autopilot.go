package nomad

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// autopilotConfig is the autopilot configuration in the terms of the Raft operator API; order and types as on the wire
// (reference nomad_raft, section 4). The last boolean is a feature that muster does not have.
type autopilotConfig struct {
	LastContactThreshold    string
	ServerStabilizationTime string
	CleanupDeadServers      bool
	MaxTrailingLogs         uint64
	MinQuorum               uint
	EnableRedundancyZones   bool
	DisableUpgradeMigration *bool // absent: as it is
	EnableCustomUpgrades    bool
	CreateIndex             uint64
	ModifyIndex             uint64
}

// ownNames replaces muster's setting names in an error text by this family's.
var ownNames = strings.NewReplacer("lastContactThreshold", "LastContactThreshold", "stabilization",
	"ServerStabilizationTime",
	"maxLagRevisions", "MaxTrailingLogs", "minQuorum", "MinQuorum", "cleanupDeadMembers", "CleanupDeadServers",
	"redundancyZones", "EnableRedundancyZones")

func (s *service) autopilot(ctx context.Context, c store.Consistency) (out autopilotConfig, err error) {
	cfg, rev, err := s.Autopilot.Get(ctx, c)
	if err != nil {
		return out, err
	}
	stays := !cfg.UpgradeMigration
	// The configuration exists since the founding, at revision 1.
	return autopilotConfig{
		LastContactThreshold:    cfg.LastContactThreshold.String(),
		ServerStabilizationTime: cfg.Stabilization.String(),
		CleanupDeadServers:      cfg.CleanupDeadMembers,
		MaxTrailingLogs:         cfg.MaxLagRevisions,
		MinQuorum:               uint(max(0, cfg.MinQuorum)),
		EnableRedundancyZones:   cfg.RedundancyZones,
		DisableUpgradeMigration: &stays,
		CreateIndex:             1,
		ModifyIndex:             max(1, rev),
	}, nil
}

func (s *service) getAutopilot(q *handlers.Request) error {
	cfg, err := s.autopilot(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	// The original has a custom marshaller for this type, so `pretty` only adds a newline.
	text := handlers.MustJSON(cfg)
	if pretty(q) {
		text = append(text, '\n')
	}
	return q.Send(http.StatusOK, "application/json", text, 0)
}

// putAutopilot replaces the settings that this family knows. An absent field becomes zero, or the default where zero is
// not valid; an absent DisableUpgradeMigration changes nothing, for zero would begin to move votes. With `cas` it does
// so only if ModifyIndex still has that value.
func (s *service) putAutopilot(q *handlers.Request) error {
	in, err := parseAutopilot(q.Content)
	if err != nil {
		return err
	}
	cas, err := casOf(q.Request)
	if err != nil {
		return err
	}
	value, err := s.Autopilot.Replace(q.Context(), in.set)
	switch {
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader):
		return err
	case err != nil:
		return badAutopilot("%s", ownNames.Replace(err.Error()))
	}
	done, err := s.Settings.Put(q.Context(), q.Actor, store.SettingAutopilot, value, cas)
	if err != nil {
		return err
	}
	s.Cluster.Wake()
	return writeJSON(q, done)
}

func badAutopilot(format string, args ...any) error {
	return handlers.Fail(http.StatusBadRequest, fmt.Sprintf("Error parsing autopilot config: "+format, args...))
}

// parseAutopilot reads the body of a replacement.
func parseAutopilot(body []byte) (in autopilotConfig, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return in, badAutopilot("Request body is empty")
	}
	if err := handlers.DecodeJSON(body, &in); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return in, badAutopilot("%s must be a %s, not a %s", wrong.Field, wrong.Type, wrong.Value)
		}
		return in, badAutopilot("the body must be a JSON object")
	}
	for _, d := range []struct{ name, value string }{{"LastContactThreshold", in.LastContactThreshold},
		{"ServerStabilizationTime", in.ServerStabilizationTime}} {
		if _, err := time.ParseDuration(d.value); err != nil && d.value != "" {
			return in, badAutopilot("%s must be a duration such as \"200ms\", not %.40q", d.name, d.value)
		}
	}
	if in.EnableCustomUpgrades {
		return in, badAutopilot("EnableCustomUpgrades must be false: there is no such thing here")
	}
	return in, nil
}

// set copies the family's settings into a configuration that has their defaults.
func (in *autopilotConfig) set(cfg *autopilot.Config) {
	stabilization, _ := time.ParseDuration(in.ServerStabilizationTime) // "" is 0
	cfg.Stabilization, cfg.CleanupDeadMembers = autopilot.Duration(stabilization), in.CleanupDeadServers
	cfg.RedundancyZones = in.EnableRedundancyZones
	if in.DisableUpgradeMigration != nil {
		cfg.UpgradeMigration = !*in.DisableUpgradeMigration
	}
	if d, _ := time.ParseDuration(in.LastContactThreshold); d != 0 {
		cfg.LastContactThreshold = autopilot.Duration(d)
	}
	if in.MaxTrailingLogs != 0 {
		cfg.MaxLagRevisions = in.MaxTrailingLogs
	}
	if in.MinQuorum != 0 {
		cfg.MinQuorum = int(min(in.MinQuorum, math.MaxInt))
	}
}

// casOf reads the `cas` parameter; nil when it is absent.
func casOf(r *http.Request) (*uint64, error) {
	query := r.URL.Query()
	if !query.Has("cas") {
		return nil, nil
	}
	text := query.Get("cas")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, handlers.Fail(http.StatusBadRequest, "Error parsing cas value: "+err.Error())
	}
	if n == 1 { // the founding's configuration: never changed
		n = 0
	}
	return &n, nil
}

// statusFailed is what this family says of a member that is down.
const statusFailed = "failed"

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

// clusterHealth is the whole answer.
type clusterHealth struct {
	FailureTolerance int
	Healthy          bool
	Leader           string
	Servers          []serverHealth
	Voters           []string
	// RedundancyZones are the Raft servers of each zone, by its name.
	RedundancyZones map[string]*zoneHealth `json:",omitempty"`
}

type zoneHealth struct {
	Servers          []string
	Voters           []string
	FailureTolerance int // healthy servers that may fail while one remains
	healthy          int
}

// addZone adds a server to its zone.
func (h *clusterHealth) addZone(v *autopilot.Server, id string) {
	if v.Zone == "" {
		return
	}
	if h.RedundancyZones == nil {
		h.RedundancyZones = map[string]*zoneHealth{}
	}
	z := h.RedundancyZones[v.Zone]
	if z == nil {
		z = &zoneHealth{Voters: []string{}}
		h.RedundancyZones[v.Zone] = z
	}
	z.Servers = append(z.Servers, id)
	if v.HasVotingRights {
		z.Voters = append(z.Voters, id)
	}
	if v.Healthy {
		z.healthy++
	}
	z.FailureTolerance = max(0, z.healthy-1)
}

// autopilotHealth answers 200, or 429 with the same JSON while the cluster is not healthy, for load balancers and
// scripts. With `?status=200` it always answers 200, so that the official command line shows the table.
func (s *service) autopilotHealth(q *handlers.Request) error {
	if err := s.Replica.Confirm(q.Context()); err != nil {
		return err
	}
	var state autopilot.State
	known := func() bool { // a new leader has not finished its first round yet
		state = s.Cluster.Autopilot()
		return len(state.Servers) > 0 || !s.Replica.Leading()
	}
	wait, cancel := context.WithTimeout(q.Context(), 2*time.Second)
	defer cancel()
	membership.Poll(wait, known)
	members, err := s.Members.List(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	cluster, err := s.Replica.Cluster(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	out := s.showHealth(state, members, cluster)
	if out.Healthy || q.URL.Query().Get("status") == "200" {
		return writeJSON(q, out)
	}
	return q.Send(http.StatusTooManyRequests, "text/plain; charset=utf-8", handlers.MustJSON(out), 0)
}

// showHealth converts the leader's view into the family's, which identifies members by UUID.
func (s *service) showHealth(state autopilot.State, members []store.Member, cluster store.Cluster) clusterHealth {
	uuids := make(map[uint64]string, len(members))
	for i := range members {
		uuids[members[i].NodeID] = members[i].ID
	}
	out := clusterHealth{
		FailureTolerance: state.FailureTolerance,
		Healthy:          state.Healthy,
		Leader:           uuids[state.LeaderNodeID],
		Servers:          []serverHealth{},
		Voters:           []string{},
	}
	for _, id := range state.Voters {
		out.Voters = append(out.Voters, uuids[id])
	}
	now := s.Now()
	for i := range state.Servers {
		v := &state.Servers[i]
		if v.Role == "" {
			continue
		}
		h := showServer(v, uuids[v.NodeID], cluster, now)
		out.Servers = append(out.Servers, h)
		out.addZone(v, h.ID)
	}
	return out
}

// showServer converts the leader's view of one Raft server.
func showServer(v *autopilot.Server, uuid string, cluster store.Cluster, now time.Time) serverHealth {
	h := serverHealth{
		LastContact: "0s",
		ID:          uuid,
		Name:        v.Name + "." + region,
		Address:     v.RaftAddress,
		SerfStatus:  v.NodeStatus,
		Version:     v.Version,
		Leader:      v.IsLeader,
		LastTerm:    cluster.Epoch,
		LastIndex:   cluster.Revision - min(v.Lag, cluster.Revision),
		Healthy:     v.Healthy,
		Voter:       v.HasVotingRights,
		StableSince: v.StableSince.UTC().Format(handlers.TimeFormat),
	}
	if v.NodeStatus != autopilot.StatusAlive && v.NodeStatus != autopilot.StatusLeft {
		h.SerfStatus = statusFailed
	}
	if !v.IsLeader && !v.LastContact.IsZero() {
		h.LastContact = max(0, now.Sub(v.LastContact)).Round(time.Millisecond / 10).String()
	}
	return h
}
