package node

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"muster/internal/netlimit"
	"muster/store"
)

// A process with less than this ends in the midst of its work, by Go's runtime or by the C library.
const (
	fewestFiles   = 64
	fewestThreads = 32      // besides those that run at the start
	leastSpace    = 2 << 30 // bytes of address space: Go's runtime reserves more than a gigabyte and uses little of it
	leastStack    = 1 << 20 // bytes of the stack of dqlite's threads
)

// limits are those of this process.
type limits struct {
	files        int
	space, stack uint64 // bytes
	threads      int    // that can be started now, at most fewestThreads
}

func readLimits() limits {
	l := limits{files: fewestFiles, space: softLimit(unix.RLIMIT_AS), stack: softLimit(unix.RLIMIT_STACK)}
	if files, err := netlimit.Descriptors(); err == nil {
		l.files = files
	}
	if l.space >= leastSpace { // else they may not even be tried
		l.threads = store.Threads(fewestThreads)
	}
	return l
}

func softLimit(resource int) uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(resource, &limit); err != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

// check returns, as a sentence, which limit is too low for a member.
func (l limits) check() error {
	switch {
	case l.files < fewestFiles:
		return fmt.Errorf("this process may open %d files, and a member needs at least %d: raise its limit (LimitNOFILE in "+
			"the systemd unit, ulimit -n)", l.files, fewestFiles)
	case l.space < leastSpace:
		return fmt.Errorf("this process may have %d MiB of address space, and a member reserves %d, most of which it never "+
			"uses: raise its limit (LimitAS in the systemd unit, ulimit -v), and bound what it uses with MemoryMax",
			l.space>>20, leastSpace>>20)
	case l.stack < leastStack:
		return fmt.Errorf("a thread of this process may have %d KiB of stack, and a member needs at least %d: raise its "+
			"limit (LimitSTACK in the systemd unit, ulimit -s)", l.stack>>10, leastStack>>10)
	case l.threads < fewestThreads:
		return fmt.Errorf("this process can start only %d more threads, and a member needs %d: raise the limit of its user "+
			"or its unit (TasksMax and LimitNPROC in the systemd unit, ulimit -u)", l.threads, fewestThreads)
	}
	return nil
}
