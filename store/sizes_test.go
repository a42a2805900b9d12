package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"muster/certs"
	"muster/migrations"
	"muster/store/sizes"
)

// oldDB is a database with an older schema, to be filled and migrated.
func oldDB(t testing.TB, version int64) (*sql.DB, *goose.Provider) {
	t.Helper()
	db := memoryDB(t)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(bg, version); err != nil {
		t.Fatal(err)
	}
	return db, p
}

type schemaColumn struct{ table, name, kind string }

// dataColumns lists the columns of texts and bytes of all tables.
func dataColumns(t testing.TB, b *bench) []schemaColumn {
	t.Helper()
	list, err := collect(b.view(), func(r *sql.Rows) (c schemaColumn, err error) {
		return c, r.Scan(&c.table, &c.name, &c.kind)
	},
		`SELECT m.name, p.name, p.type FROM sqlite_master m, pragma_table_info(m.name) p 
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'
		AND m.name <> 'goose_db_version' AND p.type IN ('TEXT', 'BLOB') ORDER BY m.name, p.cid`)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// ownColumns are filled by muster alone, with ids, hashes, times and words of its own. "*" stands for all of a table.
var ownColumns = map[string][]string{
	"cluster":   {"*"},
	"settings":  {"name"},
	"sequences": {"*"},
	"members": {"id", "mode", "raft_role", "recipient", "drain_state", "drain_updated_at", "drain_deadline",
		"hooks_pending", "joined_at", "left_at",
		"join_token_id", "cert_key"},
	"leases":              {"created_at", "expires_at"},
	"operations":          {"*"},
	"removed_members":     {"id", "recipient", "removed_at"},
	"overlay_allocations": {"*"},
	"join_tokens":         {"id", "format", "mode", "created_at", "expires_at", "revoked_at"},
	"join_token_uses":     {"token_id", "recipient", "used_at"},
	"api_tokens":          {"id", "scopes", "secret_hash", "created_at", "expires_at"},
	"api_keys":            {"id", "kind", "scopes", "secret_hash", "owner_id", "created_at", "expires_at", "revoked_at"},
	"enrollments": {"id", "kind", "key_id", "transport_serial", "http_ca_serial", "service_token_id",
		"enrolled_at", "expires_at", "revoked_at"},
	"authorities": {"kind", "state", "origin", "cross_pem", "fingerprint", "created_at", "expires_at",
		"warned_at"},
	"ca_rotations":       {"kind", "phase", "started_at", "phase_at", "drop_at"},
	"certificates":       {"*"},
	"dek_generations":    {"*"},
	"dek_wraps":          {"*"},
	"cluster_keys":       {"*"},
	"secrets":            {"created_at", "updated_at"},
	"sealed_secrets":     {"*"},
	"peerings":           {"id", "state", "status_since", "deleted_at"},
	"peering_secrets":    {"peering_id", "establish_hash", "establish_expires_at", "pending_hash", "active_hash"},
	"peer_members":       {"peering_id"},
	"workloads":          {"id", "created_at"},
	"jwt_authorities":    {"*"},
	"peer_bundles":       {"peering_id", "received_at"},
	"peering_tombstones": {"id", "pending_hash", "active_hash", "deleted_at"},
	"backups":            {"id", "cause", "state", "tried", "name", "started_at", "finished_at", "sha256"},
	"idempotency":        {"accessor", "created_at"},
	"audit":              {"at", "action", "outcome"},
	"unhealthy_members":  {"*"},
}

// TestSizes: every column of texts or bytes has a maximum, or is muster's own; the schema and the writer hold the
// maximum.
func TestSizes(t *testing.T) {
	t.Parallel()
	b := newBench(t, migratedDB(t))
	seen := map[string]bool{}
	for _, c := range dataColumns(t, b) {
		at := c.table + "." + c.name
		seen[at] = true
		own := slices.Contains(ownColumns[c.table], c.name) || slices.Contains(ownColumns[c.table], "*")
		bounded := slices.ContainsFunc(sizes.All, func(s sizes.Size) bool { return s.Table == c.table && s.Column == c.name })
		switch {
		case own && bounded:
			t.Errorf("%s is both in Sizes and in ownColumns", at)
		case !own && !bounded:
			t.Errorf("%s must be in Sizes, or in ownColumns if nobody but muster fills it", at)
		}
	}
	for _, s := range sizes.All {
		at := s.Table + "." + s.Column
		if !seen[at] {
			t.Errorf("Sizes has %s, which is no column of texts or bytes", at)
		}
		var schema string
		if _, err := b.view().get("SELECT sql FROM sqlite_master WHERE name = ?", []any{s.Table}, &schema); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("CONSTRAINT size_%s_%s CHECK (length(CAST(%s AS BLOB)) <= %d)", s.Table, s.Column, s.Column,
			s.Max)
		if !strings.Contains(schema, want) {
			t.Errorf("the schema of %s lacks %s", s.Table, want)
		}
		if s.Field == "" {
			t.Errorf("%s has no name for refusals", at)
		}
	}
	for table, columns := range ownColumns {
		for _, c := range columns {
			if c != "*" && !seen[table+"."+c] {
				t.Errorf("ownColumns has %s.%s, which is no column of texts or bytes", table, c)
			}
		}
	}
}

// Every statement of the package that fills a bounded column is recognised by its text, so that the writer can refuse a
// value before the database does.
func TestSizesAreChecked(t *testing.T) {
	t.Parallel()
	filled := map[string]bool{}
	for _, f := range walkSQL(t).found {
		if f.exec {
			for _, b := range sizes.Arguments(f.query) {
				filled[b.Size.Table+"."+b.Size.Column] = true
			}
		}
	}
	for _, s := range sizes.All {
		if at := s.Table + "." + s.Column; !filled[at] && at != "removed_members.name" && at != "join_tokens.hosts" {
			t.Errorf("no statement is known to fill %s: Arguments does not understand it", at)
		}
	}
}

// The writer refuses what is too long by a sentence, and the database would.
func TestTooLong(t *testing.T) {
	t.Parallel()
	b := newBench(t, migratedDB(t))
	tooLong := strings.Repeat("x", 65)
	insert := "INSERT INTO leases (id, raft_node_id, kind, created_at, expires_at, created_rev, modified_rev) VALUES " +
		"(?, 1, ?, '', '', 1, 1)"
	_, err := b.write(func(tx *Tx) error { return tx.exec(insert, "a", tooLong) })
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code != Invalid || refusal.Message != "kind must be at most 64 bytes long" {
		t.Errorf("the writer: %v", err)
	}
	if err := b.s.Exec(insert, "a", tooLong); err == nil || !strings.Contains(err.Error(), "size_leases_kind") {
		t.Errorf("the database: %v", err)
	}
	if _, err := b.write(func(tx *Tx) error { return tx.exec(insert, "a", tooLong[:64]) }); err != nil {
		t.Errorf("the longest that may be: %v", err)
	}
	if err := b.s.Exec(insert, "b", "\x00"+tooLong[:64]); err == nil {
		t.Error("a NUL ends the length that the database sees")
	}
}

// TestStepOfSizes: rows that are longer than step 2 allows do not keep a cluster at step 1 for good, and what is within
// the bounds is not touched.
func TestStepOfSizes(t *testing.T) {
	t.Parallel()
	db, p := oldDB(t, 1)
	old := newBench(t, db)
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f := testFounding(t, identity)
	if _, err := old.write(f.apply); err != nil {
		t.Fatal(err)
	}
	before := contents(t, old.view())
	old.s.Conn().Close() // goose wants it
	if _, err := p.UpTo(bg, migrations.Latest); err != nil {
		t.Fatal("a database as it should be:", err)
	}
	old = newBench(t, db)
	for table, rows := range contents(t, old.view()) {
		if table == "sqlite_master" || table == "goose_db_version" || table == "join_tokens" || table == "members" ||
			table == "sqlite_sequence" {
			continue
		}
		if !slices.Equal(rows, before[table]) {
			t.Errorf("%s has changed: %v, %v", table, before[table], rows)
		}
	}

	db, p = oldDB(t, 1)
	old = newBench(t, db)
	if _, err := old.write(f.apply); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ä", 1<<20)
	object := `{"a":"` + long + `"}`
	for query, args := range map[string][]any{
		"UPDATE members SET name = ?, raft_address = ?, resources = ?, labels = ?": {long, long, object, object},
		"UPDATE api_tokens SET created_by = ?":                                     {long},
		"INSERT INTO api_keys (id, kind, name, secret_hash, scopes, role_descriptors, metadata, owner_id, owner_name, " +
			"created_at, created_rev, modified_rev) VALUES ('k', 'api_key', ?, '', '[]', ?, ?, '', ?, '', 1, 1)": {long, object,
			object, long},
		"INSERT INTO idempotency (accessor, key, sealed, dek_generation, created_at) VALUES ('', 'k', ?, 1, '')": {
			[]byte(long)},
		"INSERT INTO peer_members (peering_id, id, name, raft_node_id, raft_address, api_address, health, modified_rev) " +
			"VALUES ('p', 'm', ?, 1, '', '', '', 1)": {long},
		"INSERT INTO peerings (id, name, state, dialer, server_name, server_addresses, ca_pems, meta, status_reason, " +
			"status_since, created_rev, modified_rev) VALUES ('p', 'p', 'ACTIVE', 1, ?, ?, ?, ?, ?, '', 1, 1)": {long, `["` +
			long + `"]`, `["` + long + `"]`, object, long},
		"UPDATE audit SET detail = ?, object = ?": {long, long},
	} {
		old.exec(query, args...)
	}
	old.s.Conn().Close()
	if _, err := p.UpTo(bg, migrations.Latest); err != nil {
		t.Fatal("with rows that are too long:", err)
	}
	old = newBench(t, db)
	for query, want := range map[string]string{
		"SELECT metadata || role_descriptors || length(name) FROM api_keys": "{}{}256",
		"SELECT labels || resources || length(name) FROM members":           "{}{}16",
		"SELECT count(*) FROM idempotency":                                  "0",
		"SELECT count(*) FROM peer_members":                                 "0",
		"SELECT server_addresses || ca_pems || meta FROM peerings":          "[][]{}",
		"SELECT max(length(detail)) FROM audit":                             "1024",
		"PRAGMA integrity_check":                                            "ok",
	} {
		var got string
		if err := old.s.Conn().QueryRowContext(bg, query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", query, got, err, want)
		}
	}
}

// TestStepThroughDqlite: the step is applied to a real cluster that has data of step 1.
func TestStepThroughDqlite(t *testing.T) { // alone: what is the newest schema is one for all
	if testing.Short() {
		t.Skip()
	}
	latest := migrations.Latest
	migrations.Latest = 1
	defer func() { migrations.Latest = latest }()
	c := newTestCluster(t, 2)
	s := c.leader()
	err := s.Write(bg, Actor{Name: "test"}, func(tx *Tx) error {
		for i := range 500 {
			if err := tx.audit("test.row", fmt.Sprint("test/", i), "a detail"); err != nil {
				return err
			}
		}
		return tx.exec("INSERT INTO leases (id, raft_node_id, kind, created_at, expires_at, created_rev, modified_rev) " +
			"VALUES ('l', 1, 'kind', '', '', 1, 1)")
	})
	if err != nil {
		t.Fatal(err)
	}
	migrations.Latest = latest
	for id := range c.Dirs { // as newer binaries
		c.stop(id)
	}
	for id := range c.Dirs {
		c.start(id)
	}
	begin := time.Now()
	c.eventually("the schema is the newest", func() error {
		return c.leader().Migrate(bg, Actor{Name: "test"}, latest)
	})
	t.Log("the step took", time.Since(begin))
	c.agree()
	var kinds []string
	if err := c.leader().Read(bg, AsLeader, func(v *View) (err error) {
		kinds, err = collect(v, func(r *sql.Rows) (k string, err error) { return k, r.Scan(&k) }, "SELECT kind FROM leases")
		return err
	}); err != nil || !slices.Equal(kinds, []string{"kind"}) {
		t.Errorf("%v %v", kinds, err)
	}
}
