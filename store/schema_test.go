package store

import (
	"errors"
	"testing"

	"muster/migrations"
)

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
