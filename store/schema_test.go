package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"muster/store/engine"
)

// TestNewestSchema: a new database is what the steps, applied one after the other, make of an empty one.
func TestNewestSchema(t *testing.T) {
	t.Parallel()
	steps, _ := oldDB(t, LatestSchema())
	at := func(c map[string][]string) map[string][]string { // but for the time of the steps
		for i, row := range c["goose_db_version"] {
			c["goose_db_version"][i], _, _ = strings.Cut(row, "tstamp=")
		}
		return c
	}
	want, got := at(contents(t, newBench(t, steps).view())), at(contents(t, newBench(t, migratedDB(t)).view()))
	if err := difference(want, got); err != nil {
		t.Error(err)
	}
}

// TestOldSchema: what needs a table that is still to come is told so; with the newest schema the same is an error of
// ours.
func TestOldSchema(t *testing.T) {
	t.Parallel()
	for _, ahead := range []int64{0, 1} {
		l, err := engine.NewLocal(migratedDB(t), LatestSchema()+ahead)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.View(time.Now()).Get("SELECT id FROM later", nil, new(int64))
		if err == nil || errors.Is(err, ErrOldSchema) != (ahead > 0) {
			t.Errorf("%d steps ahead: %v", ahead, err)
		}
		l.Close()
	}
}
