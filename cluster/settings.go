package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"muster/cluster/autopilot"
	"muster/store"
)

// Settings has the configuration of autopilot, stored in the settings table.
type Settings struct{ Store *store.Store }

// Get returns the configuration and the revision that last changed it; 0: never changed.
func (s Settings) Get(ctx context.Context, from store.Consistency) (autopilot.Config, uint64, error) {
	cfg := autopilot.DefaultConfig()
	set, err := s.Store.Settings.Get(ctx, from, store.SettingAutopilot)
	if err == nil && set.Value != nil {
		err = json.Unmarshal(set.Value, &cfg)
	}
	return cfg, set.ModifiedRev, err
}

// Merge applies a JSON object of changed fields to the configuration and checks the result. It rejects unknown fields:
// a misspelt setting that is silently ignored is worse than an error. Nothing is stored.
func (s Settings) Merge(ctx context.Context, patch []byte) (json.RawMessage, error) {
	cfg, _, err := s.Get(ctx, store.AsLeader)
	if err != nil {
		return nil, err
	}
	return merge(cfg, patch)
}

// Replace is for an API that replaces the fields it knows. set gets the present configuration with those fields reset
// to their defaults. Replace checks the result and stores nothing.
func (s Settings) Replace(ctx context.Context, set func(*autopilot.Config)) (json.RawMessage, error) {
	cfg, _, err := s.Get(ctx, store.AsLeader)
	if err != nil {
		return nil, err
	}
	fresh := autopilot.DefaultConfig()
	fresh.MaxVoters, fresh.StandBys = cfg.MaxVoters, cfg.StandBys
	fresh.DeadAfter, fresh.MaxLagTime = cfg.DeadAfter, cfg.MaxLagTime
	fresh.MinQuorum = min(fresh.MinQuorum, fresh.MaxVoters)
	set(&fresh)
	return checked(fresh)
}

func merge(cfg autopilot.Config, patch []byte) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(patch))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("%s must be a %s", wrong.Field, wrong.Type)
		}
		return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return checked(cfg)
}

// checked validates a configuration and returns its stored form.
func checked(cfg autopilot.Config) (json.RawMessage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(cfg)
}
