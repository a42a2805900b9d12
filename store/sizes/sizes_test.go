package sizes

import (
	"fmt"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	for _, x := range [][2]string{
		{"INSERT INTO leases (id, raft_node_id, kind) VALUES (?, ?, ?)", "id=0 kind=2"},
		{"INSERT INTO leases (id, raft_node_id, kind) VALUES (?2, 1, ?1)", "id=1 kind=0"},
		{"INSERT INTO secrets (name, sealed) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
			"name=0 sealed=1"},
		{"UPDATE members SET pinned = 1, os = ?, arch = ? WHERE raft_node_id = ?", "os=0 arch=1"},
		{"UPDATE members SET os = ?2, modified_rev = ?1 WHERE raft_node_id = ?3", "os=1"},
		{"DELETE FROM leases WHERE id = ?", ""},
	} {
		query, want := x[0], x[1]
		var got []string
		for _, b := range Arguments(query) {
			got = append(got, fmt.Sprintf("%s=%d", b.Size.Column, b.Index))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	if got := Cut("audit", "request_id", strings.Repeat("ä", 100)); len(got) > 128 || !strings.HasSuffix(got, "ä…") {
		t.Errorf("%q", got)
	}
}
