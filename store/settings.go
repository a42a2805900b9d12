package store

import (
	"context"
	"encoding/json"
	"time"
)

// SettingAutopilot is the configuration of autopilot, a JSON document that package cluster understands.
const SettingAutopilot = "autopilot"

// settingKeyRotation is the greatest age of a data-encryption key, a JSON string with a Go duration; "0s" is never.
const settingKeyRotation = "key_rotation"

// KeyRotation returns the age at which the data-encryption key is replaced, 0 for never, as the leader has it.
func (s *Store) KeyRotation(ctx context.Context) (time.Duration, error) {
	set, err := s.Settings.Get(ctx, AsLeader, settingKeyRotation)
	if err != nil || set.Value == nil {
		return 0, err
	}
	var text string
	if err := json.Unmarshal(set.Value, &text); err != nil {
		return 0, err
	}
	return time.ParseDuration(text)
}

// SetKeyRotation sets the age at which the data-encryption key is replaced, 0 for never.
func (s *Store) SetKeyRotation(ctx context.Context, actor Actor, age time.Duration) error {
	text, err := json.Marshal(age.String())
	if err != nil {
		return err
	}
	_, err = s.Settings.Put(ctx, actor, settingKeyRotation, text, nil)
	return err
}

// Setting is a named JSON document with the revision that last changed it.
type Document struct {
	Value       json.RawMessage
	ModifiedRev uint64
}

// Setting reads a setting; its value is nil when it was never set.
func (s *Store) Setting(ctx context.Context, c Consistency, name string) (Document, error) {
	return recall(ctx, s, c, "setting/"+name, []string{"settings"}, func(v *View) (Document, error) { return v.document(name) })
}

// PeekSetting reads a setting as the leader has it, without asking the voters.
func (s *Store) PeekSetting(ctx context.Context, name string) (Document, error) {
	return memo(ctx, s, "setting/"+name, []string{"settings"}, func(v *View) (Document, error) { return v.document(name) })
}

func (v *View) document(name string) (out Document, err error) {
	var text string
	ok, err := v.get("SELECT value, modified_rev FROM settings WHERE name = ?", []any{name}, &text, &out.ModifiedRev)
	if ok {
		out.Value = json.RawMessage(text)
	}
	return out, err
}

// PutSetting replaces a setting. With cas not nil it does so only if the setting was last changed at that revision, and
// tells whether it did.
func (s *Store) PutSetting(ctx context.Context, actor Actor, name string, value json.RawMessage, cas *uint64) (bool, error) {
	return makeOnce(ctx, s, actor, func(tx *Tx) (bool, error) {
		old, err := tx.document(name)
		if err != nil {
			return false, err
		}
		if cas != nil && *cas != old.ModifiedRev {
			return false, nil
		}
		if string(old.Value) == string(value) {
			return true, nil
		}
		if err := tx.exec(putSetting, name, string(value), tx.Rev); err != nil {
			return false, err
		}
		return true, tx.audit("setting.put", "setting/"+name, string(value))
	})
}

const putSetting = `INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, ?)
	ON CONFLICT (name) DO UPDATE SET value = excluded.value, modified_rev = excluded.modified_rev`
