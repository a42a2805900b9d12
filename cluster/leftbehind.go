package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster/cluster/transport"
	"muster/store"
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
func (c *Cluster) leftBehind() string {
	if c.Store.LeaderID() != 0 {
		return ""
	}
	if text := c.troubles.text(); text != "" {
		return text + "; " + nextRejoin
	}
	return ""
}

// warnLeftBehind says it in the log, once a minute.
func (c *Cluster) warnLeftBehind() {
	text := c.leftBehind()
	c.troubles.mu.Lock()
	tell := text != "" && time.Since(c.troubles.warned) > leftBehindEvery
	if tell {
		c.troubles.warned = time.Now()
	}
	c.troubles.mu.Unlock()
	if tell {
		c.log.Warn(text)
	}
}

// accepted finds out, for a member that does not run, whether the others would talk to it.
func (x *doctor) accepted(ctx context.Context, members []store.Member) {
	creds, err := x.d.Credentials(x.node)
	if err != nil || x.running {
		return // said already, or the member itself knows better
	}
	creds.Known = func(id uint64) string {
		key, _ := store.MirrorCertKey(x.d.file(mirrorFile), id)
		return key
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	heard, refused, removed := 0, "", false
	for i := range members {
		m := &members[i]
		if m.Role == store.RoleNone || m.NodeID == x.node.NodeID {
			continue
		}
		wait.Go(func() {
			o := transport.HearOut(ctx, creds, m.NodeID, m.RaftAddress)
			mu.Lock()
			defer mu.Unlock()
			removed = removed || o.Removed
			switch {
			case o.Heard:
				heard++
			case o.Trouble:
				refused = fmt.Sprintf("node %d runs, and %s", m.NodeID, o.Said)
			}
		})
	}
	wait.Wait()
	switch {
	case removed:
		x.say("membership", FindingFail, "to join again, start with an empty data directory and a new token", "another member says that this one was removed")
	case heard == 0 && refused != "":
		x.say("membership", FindingFail, nextRejoin, "this member is left behind: %s", refused)
	case heard > 0:
		x.say("membership", FindingOK, "", "the others take this member for one of them")
	}
}
