package foreign

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"muster/migrations"
)

// A schema step that fails says which one it is and why, and reveals neither statements nor values.
func TestCauseOfStep(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := Migrate(t.Context(), db, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("ALTER TABLE members RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	err = Migrate(t.Context(), db, migrations.Latest)
	var step *StepError
	if !errors.As(err, &step) || step.Version < 2 {
		t.Fatalf("%v", err)
	}
	got := Cause(fmt.Errorf("bring it up to date: %w", err))
	if want := fmt.Sprintf("schema step %d fails: no such table: ", step.Version); !strings.HasPrefix(got, want) ||
		strings.Contains(got, "ALTER") {
		t.Errorf("%q, want %q…", got, want)
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	_, missing := os.Open("/nowhere/at/all")
	for want, err := range map[string]error{
		"it takes too long":                                  fmt.Errorf("copy: %w", ErrTime),
		"it takes too much memory":                           fmt.Errorf("copy: %w", ErrMemory),
		"no such file or directory":                          fmt.Errorf("copy: %w", missing),
		"the log of the member that tried it has the reason": errors.New("/a/path of SELECT secret"),
	} {
		if got := Cause(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
