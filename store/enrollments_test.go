package store

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNamePattern(t *testing.T) {
	for _, x := range []struct {
		pattern, name string
		fits          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"", "", true}, {"*", "", true}, {"*", "a/b", true}, {"a*", "a", true},
		{"a*", "ba", false},
		{"*b", "ab", true}, {"*b", "abc", false}, {"a*c*e", "abcde", true}, {"a*c*e", "abcd", false}, {"a**b", "ab", true},
		{"a*a", "a", false}, {"[a]", "a", false},
	} {
		if got := NamePattern(x.pattern, x.name); got != x.fits {
			t.Errorf("%q, %q: %v", x.pattern, x.name, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[ab]{0,3}`), 1, 4).Draw(t, "parts")
		pattern, name := parts[0], parts[0]
		for _, p := range parts[1:] {
			pattern += "*" + p
			name += rapid.StringMatching(`[ab]{0,3}`).Draw(t, "between") + p
		}
		if !NamePattern(pattern, name) {
			t.Fatalf("%q does not fit %q", name, pattern)
		}
	})
}

// The defaults must be values that the options themselves accept, and names must be found.
func TestOptions(t *testing.T) {
	for _, o := range AllSettings {
		if found, err := findSetting(o.Name); err != nil || found.Name != o.Name {
			t.Errorf("%s: %v", o.Name, err)
		}
		if !json.Valid([]byte(o.Default)) || !o.valid(json.RawMessage(o.Default)) || o.Rule == "" || o.Help == "" {
			t.Errorf("%s: default %s, rule %q, help %q", o.Name, o.Default, o.Rule, o.Help)
		}
		for _, bad := range []string{`{}`, `[]`, `""`, `-1`, `"no such thing"`} {
			if o.valid(json.RawMessage(bad)) {
				t.Errorf("%s accepts %s", o.Name, bad)
			}
		}
	}
	b := foundedBench(t, "10.1.0.0/16", 28)
	// What a newer member has set and this one does not understand counts as never set.
	b.exec("INSERT INTO settings (name, value, modified_rev) VALUES (?, '\"quantum\"', 1)", SettingEnrollmentKeyType)
	all, err := b.view().settings()
	if err != nil || string(all[SettingEnrollmentKeyType]) != `"ecdsa"` || len(all) != len(AllSettings) {
		t.Errorf("%s, %v", all, err)
	}
}

// A key is used as often as it may and no more, whatever else is in the batch; what is long over is forgotten, what is
// not stays.
func TestUseAndPruneAPIKeys(t *testing.T) {
	b := foundedBench(t, "10.1.0.0/16", 28)
	add := func(id string, most any, expires, revoked any) {
		b.exec(
			`INSERT INTO api_keys (id, kind, name, secret_hash, scopes, owner_id, owner_name, max_uses, created_at,
				expires_at, revoked_at, created_rev, modified_rev)
			VALUES (?, 'api_key', ?, 'x', '[]', '', '', ?, '2030-01-01T00:00:00Z', ?, ?, 1, 1)`, id, id, most, expires, revoked)
	}
	later, before, longAgo := rfc3339(b.now.Add(time.Hour)), rfc3339(b.now.Add(-time.Second)), rfc3339(
		b.now.Add(-tokenKept-time.Hour))
	add("two", int64(2), later, nil)
	add("any", nil, nil, nil)
	add("expired", nil, before, nil)
	add("revoked", nil, later, before)
	add("old", nil, longAgo, nil)
	add("revoked-old", nil, nil, longAgo)
	use := func(id string) string {
		_, err := b.write(func(tx *Tx) error { return tx.useAPIKey(id) })
		var r *Refusal
		if errors.As(err, &r) && r.Code == Unauthorized {
			return r.Message
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	for i, want := range []string{"", "", "api key [two] has already been used"} {
		if got := use("two"); got != want {
			t.Errorf("use %d: %q", i+1, got)
		}
		if got := use("any"); got != "" {
			t.Errorf("a key for any number, use %d: %q", i+1, got)
		}
	}
	for id, want := range map[string]string{"expired": "api key is expired",
		"revoked": "api key [revoked] has been invalidated", "nobody": "unable to find apikey with id nobody"} {
		if got := use(id); got != want {
			t.Errorf("%s: %q", id, got)
		}
	}
	if _, err := b.write(func(tx *Tx) error {
		_, err := tx.pruneEnrollments(tx.Now.Add(-tokenKept))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for id, there := range map[string]bool{"two": true, "any": true, "expired": true, "revoked": true, "old": false,
		"revoked-old": false} {
		k, err := b.view().apiKey(id)
		if err != nil || (k != nil) != there {
			t.Errorf("%s: %+v, %v", id, k, err)
		}
	}
}
