package foreign

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/migrations"
	"muster/store/engine"
)

// FuzzQuery feeds SQL of callers. It reads or is refused in a sentence, within its bounds, and changes nothing.
func FuzzQuery(f *testing.F) {
	path := filepath.Join(f.TempDir(), "muster.db")
	db, err := sql.Open("sqlite3", engine.FileURL(path, ""))
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(Migrate(f.Context(), db, migrations.Latest), db.Close()); err != nil {
		f.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, query := range []string{"SELECT 1", "SELECT * FROM members", "PRAGMA table_info(members)", "-- x", "SELECT 1;;",
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
		"SELECT printf('%.*c', 100000, 'x')", "SELECT group_concat(name) FROM sqlite_master, sqlite_master AS b",
		"PRAGMA hard_heap_limit=1", "ATTACH ':memory:' AS x", "SELECT load_extension('x')", "SELECT ?1",
		"SELECT json_each.value FROM json_each('[1,2]')", "VALUES (x'00'), (1e999)", "EXPLAIN SELECT 1"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a, err := Query(ctx, path, query, 100)
		var refusal *engine.Refusal
		switch {
		case err != nil && !errors.As(err, &refusal):
			t.Fatalf("no refusal: %v", err)
		case err == nil && len(a.Rows) > 100:
			t.Fatalf("%d rows", len(a.Rows))
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Fatalf("the file has changed: %v", err)
		}
	})
}
