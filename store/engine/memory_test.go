package engine

import (
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// However many threads C code allocates from, they share glibc's main arena and three others. glibc aligns what it
// reserves for an arena, and the first part alone is accessible.
func TestThreadsShareArenas(t *testing.T) {
	var all sync.WaitGroup
	gate := make(chan struct{})
	for range 16 {
		all.Go(func() {
			runtime.LockOSThread() // and not unlocked: each goroutine has a thread of its own
			<-gate
			db, err := sql.Open("sqlite3", ":memory:")
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if _, err := db.Exec("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000))"); err != nil {
				t.Error(err)
			}
		})
	}
	close(gate)
	all.Wait()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	const reserved = 64 << 20
	const goHeap = 1 << 40 // Go's own heap is below; what C reserves is far above
	var arenas []string
	var begin, end uint64 // of the accessible mapping before
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var access string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &access); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if access == "---p" && from == end && begin > goHeap && begin%reserved == 0 && to-begin == reserved {
			arenas = append(arenas, line)
		}
		begin, end = from, to
	}
	if len(arenas) > 3 {
		t.Errorf("%d arenas beside the main one:\n%s", len(arenas), strings.Join(arenas, ""))
	}
}
