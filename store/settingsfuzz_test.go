package store

import (
	"encoding/json"
	"testing"
)

// FuzzSettings feeds values of settings: what a setting accepts can be read again.
func FuzzSettings(f *testing.F) {
	for _, o := range AllSettings {
		f.Add(o.Name, []byte(o.Default))
	}
	f.Add("limits.leases", []byte("1e3"))
	f.Add("backup.target", []byte(`"s3://a/../b"`))
	f.Add("peering.networks", []byte(`"10.0.0.0/99"`))
	f.Add("certificates.hosts", []byte("\"*.*\""))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		o, err := findSetting(name)
		if err != nil || !json.Valid(value) || !o.valid(value) {
			return
		}
		all := map[string]json.RawMessage{}
		for _, o := range AllSettings {
			all[o.Name] = json.RawMessage(o.Default)
		}
		all[name] = value
		if _, err := readBackupSettings(all); err != nil {
			t.Fatalf("%s = %s is accepted, and cannot be read: %v", name, value, err)
		}
	})
}
