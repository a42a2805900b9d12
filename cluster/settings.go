package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"muster/cluster/autopilot"
	"muster/internal/naming"
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

// merge sets the fields of a JSON object one by one, so that an error names the field.
func merge(cfg autopilot.Config, patch []byte) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, errors.New("the body must be a JSON object")
	}
	names, err := settingNames()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%.80s is not a setting of autopilot; %s", name, naming.Suggest(name, names))
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(one, &cfg); err != nil {
			return nil, fmt.Errorf("%s %w", name, broken(err))
		}
	}
	return checked(cfg)
}

// settingNames lists the settings, sorted.
func settingNames() ([]string, error) {
	var all map[string]json.RawMessage
	text, err := json.Marshal(autopilot.DefaultConfig())
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	return slices.Sorted(maps.Keys(all)), err
}

// broken is the rule that a value breaks, to stand behind the setting's name.
func broken(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return err
	case wrong.Type.Kind() == reflect.Bool:
		return errors.New("must be true or false")
	}
	return errors.New("must be a whole number")
}

// checked validates a configuration and returns its stored form.
func checked(cfg autopilot.Config) (json.RawMessage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(cfg)
}
