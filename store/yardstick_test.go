package store

import (
	"os"
	"strings"
	"testing"
)

// The benchmark gives dqlite alone the statements that a mint is: bench/mint.sql. The last of them is the batch's own,
// which is the writer's.
func TestYardstickMints(t *testing.T) {
	text, err := os.ReadFile("../bench/mint.sql")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, migratedDB(t))
	var got []string
	tx := newTx(b.s.View(b.now).Offline(2, func(query string, _ []any) error {
		got = append(got, strings.Join(strings.Fields(query), " "))
		return nil
	}), Actor{Name: "test"})
	token := JoinToken{
		ID:        NewID(),
		Format:    FormatMuster,
		MaxUses:   1,
		CreatedAt: b.now,
		ExpiresAt: b.now,
	}
	if err := tx.insertJoinToken(&token, "{}"); err != nil {
		t.Fatal(err)
	}
	if err := tx.audit("join_token.create", "join_token/"+token.ID, ""); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 || strings.Join(lines[:2], "\n") != strings.Join(got, "\n") {
		t.Errorf("bench/mint.sql does not hold what a mint writes:\n%s", strings.Join(got, "\n"))
	}
}
