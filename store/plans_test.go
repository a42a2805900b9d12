package store

import (
	"database/sql"
	"strings"
	"testing"
)

// Who else has the name or an address of a machine is found by indexes: a join costs the same however many members
// there are.
func TestHoldersAreFoundByIndexes(t *testing.T) {
	b := newBench(t, migratedDB(t))
	plan, err := collect(b.view(), func(r *sql.Rows) (step string, err error) {
		var id, parent, unused int
		err = r.Scan(&id, &parent, &unused, &step)
		return step, err
	}, "EXPLAIN QUERY PLAN "+selectHolders, 1, "a:1", "a:2", true, "a", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range plan {
		if strings.HasPrefix(step, "SCAN") {
			t.Errorf("it reads all members: %s", step)
		}
	}
}
