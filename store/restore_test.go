package store

import (
	"database/sql"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/store/engine"
)

// Tables whose rows let nobody in: contents. A restored table is one of them, or the registry says how what it grants
// ends.
var contentTables = []string{"settings", "secrets", "sealed_secrets"}

func TestRestoredTablesSayWhatTheyGrant(t *testing.T) {
	for _, r := range registry {
		if r.fate == restored && (r.grants != nil) == slices.Contains(contentTables, r.name) {
			t.Errorf("%s is restored: do its rows let somebody in, and how do they end?", r.name)
		}
		if r.fate != restored && r.grants != nil {
			t.Errorf("%s is not restored and has ends to carry over", r.name)
		}
	}
	for _, o := range AllSettings {
		admits := o.Name == SettingEnrollment || o.Name == SettingCertificateHosts || o.Name == SettingPeeringNetworks ||
			strings.HasPrefix(o.Name, "oidc.")
		if keptSetting(o.Name) != admits {
			t.Errorf("%s: a restore keeps it: %v, want %v", o.Name, keptSetting(o.Name), admits)
		}
	}
}

// grantsOfArchive are credentials of each kind, which TestRestoreKeepsRevocations ends after the backup.
var grantsOfArchive = []string{
	`INSERT INTO workloads (id, path, unix_user, created_by, created_at, created_rev, modified_rev) VALUES
		('stays', '/a', 'a', 'x', 'x', 1, 1), ('deleted', '/b', 'b', 'x', 'x', 1, 1)`,
	`INSERT INTO settings (name, value, modified_rev) VALUES
		('oidc.rules', '"wide"', 1), ('certificates.hosts', '"wide"', 1),
		('audit.max_rows', '"wide"', 1), ('enrollment.enabled', 'true', 1)`,
	`INSERT INTO join_tokens (id, format, mode, max_uses, uses, created_by, created_at, expires_at, created_rev,
		modified_rev) VALUES ('deleted', 'muster', '', 3, 1, 'x', 'x', 'x', 1, 1)`,
	`INSERT INTO join_token_uses (token_id, raft_node_id, used_at, remote) VALUES ('deleted', 6, 'x', 'y')`,
}

// endsOfGrants end what grantsOfArchive has granted.
var endsOfGrants = []string{
	"DELETE FROM workloads WHERE id = 'deleted'", "DELETE FROM join_tokens WHERE id = 'deleted'",
	`UPDATE settings SET value = '"narrow"' WHERE name IN ('oidc.rules', 'certificates.hosts', 'audit.max_rows')`,
	"DELETE FROM settings WHERE name = 'enrollment.enabled'",
	`INSERT INTO settings (name, value, modified_rev) VALUES ('oidc.issuer', '"narrow"', 2)`,
}

// endedGrants is what must hold after the restore.
var endedGrants = map[string]int{
	"SELECT count(*) FROM workloads": 1, "SELECT count(*) FROM join_token_uses WHERE token_id = 'deleted'": 0,
	"SELECT count(*) FROM join_tokens WHERE id = 'deleted'":                                  0,
	`SELECT count(*) FROM settings WHERE name LIKE 'oidc.%' AND value = '"narrow"'`:          2,
	`SELECT count(*) FROM settings WHERE name = 'certificates.hosts' AND value = '"narrow"'`: 1,
	`SELECT count(*) FROM settings WHERE name = 'audit.max_rows' AND value = '"wide"'`:       1,
	`SELECT count(*) FROM settings WHERE name = 'enrollment.enabled'`:                        0,
}

// A restore never undoes a revocation. Each table that knows one is walked: it is left alone, or its revocations are
// carried over.
func TestRestoreKeepsRevocations(t *testing.T) {
	t.Parallel()
	b := foundedBench(t, "10.200.0.0/16", 20)
	for _, query := range append([]string{
		`INSERT INTO api_tokens (id, name, secret_hash, scopes, created_by, created_at, created_rev) VALUES
			('stays', 'a', 'h1', '["management"]', 'x', 'x', 1), ('revoked', 'b', 'h2', '["management"]', 'x', 'x', 1)`,
		`INSERT INTO api_keys (id, kind, name, secret_hash, scopes, owner_id, owner_name, max_uses, created_at,
			created_rev, modified_rev) VALUES ('stays', 'api_key', 'a', 'h', '[]', 'x', 'x', NULL, 'x', 1, 1),
			('revoked', 'api_key', 'b', 'h', '[]', 'x', 'x', NULL, 'x', 1, 1),
			('used', 'enrollment_token', 'c', 'h', '[]', 'x', 'x', 1, 'x', 1, 1),
			('deleted', 'enrollment_token', 'd', 'h', '[]', 'x', 'x', 1, 'x', 1, 1)`,
		`INSERT INTO join_tokens (id, format, mode, max_uses, created_by, created_at, expires_at, created_rev,
			modified_rev) VALUES ('stays', 'muster', '', 1, 'x', 'x', 'x', 1, 1),
			('revoked', 'muster', '', 1, 'x', 'x', 'x', 1, 1),
			('used', 'muster', '', 1, 'x', 'x', 'x', 1, 1)`,
	}, grantsOfArchive...) {
		b.exec(query)
	}
	path := filepath.Join(t.TempDir(), "archive.db")
	b.exec("VACUUM INTO ?", path)
	db, err := sql.Open("sqlite3", engine.FileURL(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	old := newBench(t, db)
	for _, query := range append([]string{
		"DELETE FROM api_tokens WHERE id = 'revoked'", "UPDATE api_keys SET revoked_at = 'then' WHERE id = 'revoked'",
		"UPDATE api_keys SET uses = 1 WHERE id = 'used'",
		"DELETE FROM api_keys WHERE id = 'deleted'", "UPDATE join_tokens SET revoked_at = 'then' WHERE id = 'revoked'",
		"UPDATE join_tokens SET uses = 1 WHERE id = 'used'",
		"INSERT INTO join_token_uses (token_id, raft_node_id, used_at, remote) VALUES ('used', 7, 'x', 'y')",
		"UPDATE settings SET value = value || ' ' WHERE name = 'datacenter'",
	}, endsOfGrants...) {
		b.exec(query)
	}
	before := contents(t, b.view())
	if _, err := b.write(func(tx *Tx) error {
		if err := carry(tx, old.view(), Actor{}); err != nil {
			return err
		}
		for i := range registry {
			if registry[i].fate == kept {
				continue
			}
			if _, err := tx.become(bg, &registry[i], old.view()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	after := contents(t, b.view())
	carried := []string{"api_tokens", "api_keys", "join_tokens", "join_token_uses", "workloads"}
	for _, name := range carried {
		if slices.Equal(before[name], []string{}) {
			t.Errorf("%s is empty: nothing is tested", name)
		}
		for _, row := range before[name] { // modified_rev apart, nothing was changed that could be undone
			if key, _, _ := strings.Cut(row, " "); !slices.ContainsFunc(after[name], func(r string) bool {
				return strings.HasPrefix(r, key)
			}) {
				t.Errorf("%s lost %s", name, row)
			}
		}
		if len(after[name]) != len(before[name]) {
			t.Errorf("%s has %d rows, %d before: %v", name, len(after[name]), len(before[name]), after[name])
		}
	}
	v := b.view()
	ends := map[string]int{
		"SELECT count(*) FROM api_tokens WHERE id = 'revoked'": 0, "SELECT count(*) FROM api_keys WHERE id = 'deleted'": 0,
		"SELECT count(*) FROM api_keys WHERE id = 'revoked' AND revoked_at IS NOT NULL":    1,
		"SELECT count(*) FROM api_keys WHERE id = 'used' AND uses = 1":                     1,
		"SELECT count(*) FROM join_tokens WHERE id = 'revoked' AND revoked_at IS NOT NULL": 1,
		"SELECT count(*) FROM join_tokens WHERE id = 'used' AND uses = 1":                  1,
		"SELECT count(*) FROM join_token_uses WHERE raft_node_id = 7":                      1,
	}
	maps.Copy(ends, endedGrants)
	for query, want := range ends {
		var n int
		if _, err := v.get(query, nil, &n); err != nil || n != want {
			t.Errorf("%s: %d %v, want %d", query, n, err, want)
		}
	}
	// Every other table with a mark of an end is one that a restore does not touch.
	marks := []string{"revoked_at", "removed_at", "deleted_at", "released_at", "grace_until"}
	for name := range after {
		if name == "sqlite_master" || name == "goose_db_version" || strings.HasPrefix(name, "sqlite_") ||
			slices.Contains(carried, name) {
			continue
		}
		tb, err := v.v.Table(name)
		if err != nil {
			t.Fatal(err)
		}
		if marked := slices.ContainsFunc(tb.Columns, func(c string) bool { return slices.Contains(marks, c) }); marked &&
			registeredTable(name).fate != kept {
			t.Errorf("%s has a revocation that a restore would undo", name)
		}
	}
}
