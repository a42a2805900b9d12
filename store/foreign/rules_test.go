package foreign

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"

	"muster/migrations"
)

// Every CHECK constraint of every schema version is found, and the query for it compiles.
func TestChecksAreFound(t *testing.T) {
	for version := int64(1); version <= migrations.Latest; version++ {
		db, err := sql.Open("sqlite3", ":memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := Migrate(t.Context(), db, version); err != nil {
			t.Fatal(err)
		}
		shape, err := shapeAt(t.Context(), version)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, line := range shape {
			n := strings.Count(line, "CHECK")
			if got := checksOf(line); len(got) != n {
				t.Errorf("schema %d: %d of %d constraints found in %s", version, len(got), n, line)
			}
			found += n
		}
		if found < 40 {
			t.Errorf("schema %d has %d constraints", version, found)
		}
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Raw(func(conn any) error { return checkRows(conn.(*sqlite3.SQLiteConn), shape) }); err != nil {
			t.Errorf("schema %d: %v", version, err)
		}
	}
}

func TestChecksOf(t *testing.T) {
	got := checksOf(`CREATE TABLE x (a TEXT CHECK (a IN ('(', ')')), b TEXT, CHECK ((a = 'it''s )') = (length(b) > 0)))`)
	want := []string{`a IN ('(', ')')`, `(a = 'it''s )') = (length(b) > 0)`}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
}
