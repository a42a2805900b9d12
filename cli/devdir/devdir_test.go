package devdir

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDevLock: a second "muster dev" on the same data is refused before it starts anything, also for a member that was
// started by hand.
func TestDevLock(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	first, err := Lock(data, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(data, 3); err == nil || !strings.Contains(err.Error(), "another muster dev runs the cluster") {
		t.Errorf("a second one: %v", err)
	}
	first.Close()
	if err := os.MkdirAll(filepath.Join(data, "2"), 0o700); err != nil {
		t.Fatal(err)
	}
	member, err := os.Create(filepath.Join(data, "2", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	if !flock(member) {
		t.Fatal("the lock file cannot be locked")
	}
	if _, err := Lock(data, 3); err == nil || !strings.Contains(err.Error(), "member 2 of the cluster") {
		t.Errorf("with a member that runs: %v", err)
	}
	other, err := Lock(data, 1)
	if err != nil {
		t.Fatalf("that member is none of this cluster: %v", err)
	}
	other.Close()
}

// TestDevPorts: a cluster keeps its ports, and a new one takes free ones.
func TestDevPorts(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", RaftPort+1))
	if err == nil { // otherwise somebody else has it
		defer l.Close()
	}
	api, raft, err := Ports(dir, 3)
	if err != nil || api == APIPort || raft-api != RaftPort-APIPort || api%10 != 0 {
		t.Errorf("ports %d and %d, %v; %d is taken", api, raft, err, RaftPort+1)
	}
	kept := `{"apiAddress":"127.0.0.1:5120","raftAddress":"127.0.0.1:7120"}`
	if err := os.WriteFile(filepath.Join(dir, "node.json"), []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	if api, raft, err = Ports(dir, 3); api != 5120 || raft != 7120 || err != nil {
		t.Errorf("ports %d and %d, %v", api, raft, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"apiAddress":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = Ports(dir, 3); err == nil {
		t.Error("an address without a port is taken")
	}
}
