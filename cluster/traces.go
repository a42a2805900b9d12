package cluster

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

// A member whose data directory is replaced by an older copy has forgotten entries that it confirmed and votes that it
// gave. So each test write of its disk has a number, the others remember the last one, and a start with a lower one is
// refused.

const (
	traceSilent = 3 * probeEvery // without an answer for this long the leader tells the others of a member
	traceMost   = 16             // traces in one probe
)

// trace is how far the test writes of one run of a member had come.
type trace struct {
	incarnation string
	stored      uint64
	at          time.Time // when it was heard of
}

// traces remembers the newest trace of each member. It is empty after a start.
type traces struct {
	mu sync.Mutex
	of map[uint64]trace
}

// saw records what a member reports. Zero is the report of an older version.
func (x *traces) saw(id uint64, incarnation string, stored uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if last := x.of[id]; stored == 0 || last.incarnation == incarnation && last.stored > stored {
		return
	}
	if x.of == nil {
		x.of = map[uint64]trace{}
	}
	x.of[id] = trace{incarnation, stored, time.Now()}
}

// outdates reports whether a member that starts with h has stored more in an earlier run than its directory has. A
// directory without a number is not judged.
func (x *traces) outdates(h hello) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	last, known := x.of[h.NodeID]
	return known && last.incarnation != h.ID && h.Stored > 0 && h.Stored < last.stored
}

// tell lists, for a probe, this member's own trace and those of members that have been silent for a while.
func (x *traces) tell(own uint64, self Incarnation, stored uint64) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := []string{fmt.Sprintf("%d:%s:%d", own, self.ID, stored)}
	for id, t := range x.of {
		if len(list) < traceMost && id != own && time.Since(t.at) > traceSilent {
			list = append(list, fmt.Sprintf("%d:%s:%d", id, t.incarnation, t.stored))
		}
	}
	return strings.Join(list, ",")
}

// hear takes what tell has listed, but for this member's own trace.
func (x *traces) hear(own uint64, text string) {
	for i, part := range strings.Split(text, ",") {
		fields := strings.Split(part, ":")
		var id, stored uint64
		if i >= traceMost || len(fields) != 3 || len(fields[1]) > 64 {
			continue
		}
		if n, _ := fmt.Sscan(fields[0]+" "+fields[2], &id, &stored); n == 2 && id != own {
			x.saw(id, fields[1], stored)
		}
	}
}

func (x *traces) forget(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of, id)
}

// putTrace writes the number of a test write into its block.
func putTrace(block []byte, stored uint64) {
	binary.LittleEndian.PutUint64(block, stored)
	binary.LittleEndian.PutUint64(block[8:], ^stored)
}

// readTrace returns the number of the last test write in a data directory, or 0 when that is not known.
func readTrace(dir string) uint64 {
	f, err := os.Open(filepath.Join(dir, datadir.RaftDir, store.TrialFile))
	if err != nil {
		return 0
	}
	defer f.Close()
	var block [16]byte
	if _, err := f.ReadAt(block[:], 0); err != nil {
		return 0
	}
	stored := binary.LittleEndian.Uint64(block[:])
	if binary.LittleEndian.Uint64(block[8:]) != ^stored {
		return 0
	}
	return stored
}
