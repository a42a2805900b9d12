package store

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"muster/migrations"
)

// TestNewestSchema: a new database is what the steps, applied one after the other, make of an empty one.
func TestNewestSchema(t *testing.T) {
	text, err := newestSchema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
	at := func(c map[string][]string) map[string][]string { // but for the time of the steps
		for i, row := range c["goose_db_version"] {
			c["goose_db_version"][i], _, _ = strings.Cut(row, "tstamp=")
		}
		return c
	}
	want, got := at(contents(t, newBench(t, migratedDB(t)).s)), at(contents(t, newBench(t, db).s))
	if err := difference(want, got); err != nil {
		t.Error(err)
	}
}

// TestOldSchema: what needs a table that is still to come is told so; with the newest schema the same is an error of ours.
func TestOldSchema(t *testing.T) {
	b := newBench(t, migratedDB(t))
	fail := func() error {
		_, err := (&View{s: b.s}).get("SELECT id FROM later", nil, new(int64))
		return err
	}
	if err := fail(); err == nil || errors.Is(err, ErrOldSchema) {
		t.Errorf("with the newest schema: %v", err)
	}
	migrations.Latest++
	defer func() { migrations.Latest-- }()
	if err := fail(); !errors.Is(err, ErrOldSchema) {
		t.Errorf("with an older schema: %v", err)
	}
}
