package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRaftFiles: the log and the snapshots are told apart; the newest complete snapshot counts.
func TestRaftFiles(t *testing.T) {
	dir := t.TempDir()
	taken := time.Date(2026, 4, 20, 8, 0, 0, 0, time.UTC)
	for name, size := range map[string]int{
		"0000000000000001-0000000000000007": 700, "open-1": 4096, "metadata1": 32,
		"snapshot-1-5-9": 50, "snapshot-1-5-9.meta": 20, "snapshot-2-7-9": 60, "snapshot-2-7-9.meta": 20,
		"snapshot-2-8-9": 70, // unfinished
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		at := taken
		if name != "snapshot-2-7-9" {
			at = taken.Add(time.Hour)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	f, err := InspectRaft(dir)
	if err != nil || f.LogBytes != 4796 || f.Snapshots != 2 || f.Snapshot != 7 || !f.TakenAt.Equal(taken) || f.Last != 7 ||
		f.Open != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}
