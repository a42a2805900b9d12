package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
)

// A member that was away for a whole rotation of the transport authority is left behind: it does not trust the others'
// certificates, or they refuse its own. It can only learn that by trying, and has to say what mends it.

const leftBehindEvery = time.Minute // how often the log says so

// troubles remembers whose certificates do not agree with this member's.
type troubles struct {
	mu     sync.Mutex
	with   map[uint64]string
	warned time.Time
}

// note takes the outcome of talking to a member. Whoever talks to this one shows that it is not left behind.
func (t *troubles) note(id uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status *transport.StatusError
	switch trouble := transport.TroubleOf(err); {
	case trouble != "":
		if t.with == nil {
			t.with = map[uint64]string{}
		}
		t.with[id] = trouble
	case err == nil || errors.As(err, &status):
		clear(t.with)
	default:
		delete(t.with, id) // it is not there, which says nothing
	}
}

// text is one sentence about it, "" when there is nothing to say.
func (t *troubles) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.with) == 0 {
		return ""
	}
	ids := make([]uint64, 0, len(t.with))
	for id := range t.with {
		ids = append(ids, id)
	}
	id := slices.Min(ids)
	return fmt.Sprintf("this member is left behind: node %d runs, and %s", id, t.with[id])
}

// leftBehind says in a sentence that this member is left behind and what to do; empty when it is not.
func (an *announcer) leftBehind() string {
	if an.Store.LeaderID() != 0 {
		return ""
	}
	if text := an.troubles.text(); text != "" {
		return text + "; " + datadir.NextRejoin
	}
	return ""
}

// warnLeftBehind says it in the log, once a minute.
func (an *announcer) warnLeftBehind() {
	text := an.leftBehind()
	an.troubles.mu.Lock()
	tell := text != "" && time.Since(an.troubles.warned) > leftBehindEvery
	if tell {
		an.troubles.warned = time.Now()
	}
	an.troubles.mu.Unlock()
	if tell {
		an.log.Warn(text)
	}
}
