package node

import (
	"strings"
	"testing"
)

// TestLimits: each limit with which a process would end in the midst of its work has a sentence that names it, and
// those of this process are enough.
func TestLimits(t *testing.T) {
	if err := readLimits().check(); err != nil {
		t.Errorf("this process: %v", err)
	}
	enough := limits{files: fewestFiles, space: leastSpace, stack: leastStack, threads: fewestThreads}
	if err := enough.check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*limits){
		"may open 63 files": func(l *limits) { l.files-- },
		"1500 MiB of address space, and a member reserves 2048": func(l *limits) { l.space = 1500 << 20 },
		"256 KiB of stack":             func(l *limits) { l.stack = 256 << 10 },
		"can start only 31 more":       func(l *limits) { l.threads-- },
		"LimitNOFILE":                  func(l *limits) { l.files = 0 },
		"LimitAS":                      func(l *limits) { l.space, l.threads = 0, 0 },
		"LimitSTACK":                   func(l *limits) { l.stack = 0 },
		"TasksMax and LimitNPROC in t": func(l *limits) { l.threads = 0 },
	} {
		l := enough
		change(&l)
		if err := l.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
