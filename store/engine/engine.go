// Package engine replicates one SQLite database with dqlite's Raft. It has the single writer, the leader's working
// copy, every member's mirror, and reads of a stated consistency; it follows who leads and takes leadership up.
//
// It does not know what the database is for. It knows two tables: cluster, whose one row has the revision and the
// epoch, and goose's table of schema steps. For everything else it asks its Hooks. DESIGN.md of package store explains
// the design.
package engine

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const databaseName = "muster"

// Times that bound every wait. The sum of a commit and its resolution stays under the 5 s in which a caller is
// promised an answer.
const (
	leaderPoll     = 100 * time.Millisecond // while the leader is silent
	calmPoll       = 500 * time.Millisecond // while the leader sends
	electionPoll   = 20 * time.Millisecond  // without a leader
	serversEvery   = 2 * time.Second        // interval of reads of the Raft configuration, unless others read it
	commitTimeout  = 3 * time.Second
	commitPerMiB   = 500 * time.Millisecond // added for large transactions: a restore replaces the whole database
	resolveTimeout = 1500 * time.Millisecond
	controlTimeout = 500 * time.Millisecond
	// askTimeout bounds a question to the voters, or to dqlite, whether this leadership still holds. A caller waits for
	// it.
	askTimeout = time.Second
	// migrateTimeout bounds schema steps, which may copy tables. No request is answered meanwhile.
	migrateTimeout = 30 * time.Second
	// dialTimeout bounds one connection attempt of dqlite, which retries. It is short because each attempt at a member
	// that is down holds a goroutine.
	dialTimeout = 3 * time.Second
	// dumpTimeout bounds a copy of the local replica. A copy that takes longer is dropped and the mirror stays as it is
	// until the next one.
	dumpTimeout = 10 * time.Second
	// leaderSpin is the interval between questions to the local Raft server while leadership changes hands, which takes
	// milliseconds.
	leaderSpin = 2 * time.Millisecond
)

// defaultLatency makes elections begin after about 360 ms: enough for a busy disk, short for callers that wait.
const defaultLatency = 24 * time.Millisecond

// Config says where a member's state lives, how it reaches the others and whose tables these are.
type Config struct {
	Dir    string   // data directory of the member
	NodeID uint64   // raft node id; 1 founds a cluster when Dir is empty
	Dial   DialRaft // authenticated streams to the dqlite port of other members
	// Nudge tells other Raft servers that leadership has just been handed over, so that they look at once.
	Nudge func(nodes []uint64)
	// Prepare asks another voter to prepare for the leadership that it is about to get, see PrepareToLead.
	Prepare func(ctx context.Context, node uint64, p Preparation) (revision uint64, err error)
	// Fetch gets another member's mirror into a file if it is newer than a revision; for members outside Raft.
	Fetch func(ctx context.Context, after uint64, path string) (newer bool, err error)
	// Ask reports whether at least need of the nodes follow this one now.
	Ask    func(ctx context.Context, nodes []uint64, need int) bool
	Logger *slog.Logger
	Now    func() time.Time

	NetworkLatency    time.Duration // one way; the election time-out is 15 times that
	SnapshotThreshold uint64        // log entries between two snapshots
	SnapshotTrailing  uint64        // log entries kept behind a snapshot for slow followers

	Schema Schema
	Hooks  Hooks
}

// Hooks are calls to the owner of the tables. Those that are nil do nothing.
type Hooks struct {
	// Found writes the first transaction of a new cluster, which inserts the row of the table cluster with revision 1. It
	// is nil on a member that does not found one.
	Found func(*Tx) error
	// Import names a database file. Its rows become the first transaction of a new cluster, instead of Found's.
	Import string
	// Prepare is called with the newest state when a leadership begins, before its first commit.
	Prepare func(*View) error
	// Begin adds to the first transaction of a leadership.
	Begin func(*Tx, Beginning) error
	// Lead is called after that commit and before the leader accepts writes.
	Lead func(*View)
	// Committed is called by the writer after a batch was committed and its callers have their answers.
	Committed func()
	// Yield is called when a leadership has ended or could not be taken up.
	Yield func()
	// Check rejects a statement for its arguments, before it runs.
	Check func(query string, args []any) error
	// Happened reports whether a transaction of a request was committed at a revision. When the commit of a batch has
	// failed, it decides the answer to the callers.
	Happened func(v *View, revision uint64, request string) (bool, error)
}

// Beginning describes the beginning of a leadership.
type Beginning struct {
	Epoch    uint64
	Schema   int64
	Migrated string // schema step that it begins with, and who asked for it; empty for none
}

// Schema is the source of the schema's steps, for goose.
type Schema struct {
	Steps  fs.FS
	Latest int64 // version after all steps
}

// Engine is one member's replica and, while the member leads, the cluster's single writer.
// All methods are safe for concurrent use.
type Engine struct {
	Mirror *Mirror

	cfg     Config
	hooks   Hooks
	log     *slog.Logger
	node    *node
	changes changes
	metrics instruments

	leaderID atomic.Uint64 // according to the local Raft server; 0 for none
	lastLed  moment        // when that server last knew a leader
	hint     atomic.Pointer[leaderHint]

	files struct { // of the Raft directory, as last read
		sync.Mutex
		at   time.Time
		last RaftFiles
		term uint64
	}
	restless moment // until then, poll is electionPoll
	eager    moment // until then, poll is leaderSpin
	// when this member's leadership ended; nil once it follows another leader or leads again
	lost     atomic.Pointer[time.Time]
	observed moment        // when this member was last known to lead without a break
	beat     moment        // when followLeadership last began to look
	spoke    moment        // when the leader's Raft server last sent something
	grown    chan struct{} // wakes the mirror: Raft has received entries
	look     chan struct{} // wakes followLeadership before its time
	closing  atomic.Bool
	schema   atomic.Pointer[migration] // requested; applied when leadership is next taken up
	yielding atomic.Bool               // a transfer is in progress: leadership is not taken up meanwhile

	heir heir // working copy for the leadership that this member is about to get

	mu      sync.Mutex
	lead    *leadership   // nil while another member leads
	turned  chan struct{} // closed and replaced whenever leaderID or lead changes
	term    term          // following one leader
	servers []Server      // last known Raft configuration
	read    time.Time     // when servers was read
	ending  chan struct{} // closed when the last leadership has closed its files; nil before the first one

	stop context.CancelFunc
	done sync.WaitGroup
}

// Open starts the member's dqlite server and follows the leadership. It does not wait for a leader.
func Open(cfg Config) (*Engine, error) {
	cfg.setDefaults()
	if err := removeWorking(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Hooks.Found != nil && cfg.NodeID != founderID {
		if err := bootstrap(cfg.Dir, cfg.NodeID); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		cfg:    cfg,
		hooks:  cfg.Hooks,
		log:    cfg.Logger,
		turned: make(chan struct{}),
		look:   make(chan struct{}, 1),
		grown:  make(chan struct{}, 1),
		stop:   cancel,
	}
	n, err := startNode(cfg, e.Suspect)
	if err != nil {
		cancel()
		return nil, err
	}
	e.node = n
	e.changes.init()
	e.metrics.init()
	e.Mirror = newMirror(filepath.Join(cfg.Dir, "muster.db"), cfg.Schema.Latest, cfg.Logger)
	e.done.Add(2)
	go func() { defer e.done.Done(); e.followLeadership(ctx) }()
	go func() { defer e.done.Done(); e.Mirror.keep(ctx, e) }()
	return e, nil
}

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.NetworkLatency = cmp.Or(c.NetworkLatency, defaultLatency)
	c.SnapshotThreshold, c.SnapshotTrailing = cmp.Or(c.SnapshotThreshold, 256), cmp.Or(c.SnapshotTrailing, 256)
	h := &c.Hooks
	if h.Prepare == nil {
		h.Prepare = func(*View) error { return nil }
	}
	if h.Begin == nil {
		h.Begin = func(*Tx, Beginning) error { return nil }
	}
	if h.Lead == nil {
		h.Lead = func(*View) {}
	}
	if h.Committed == nil {
		h.Committed = func() {}
	}
	if h.Yield == nil {
		h.Yield = func() {}
	}
	if h.Happened == nil {
		h.Happened = func(*View, uint64, string) (bool, error) {
			return false, errors.New("engine: no hook Happened, so the outcome is unknown")
		}
	}
}

// Close hands leadership over, if this member has it, and stops the server. It blocks until both are done; ctx bounds
// the handing over.
func (e *Engine) Close(ctx context.Context) error {
	if e.closing.Swap(true) {
		return nil
	}
	e.HandOver(ctx)
	e.stop()
	e.done.Wait()
	e.descend(ErrClosed)
	if ending := e.ended(); ending != nil {
		select {
		case <-ending:
		case <-time.After(endingWait):
		}
	}
	e.heir.drop()
	e.Mirror.close()
	return e.node.close()
}

// NodeID returns the raft node id of this member.
func (e *Engine) NodeID() uint64 { return e.cfg.NodeID }

// Now returns the time that a transaction that begins now would have.
func (e *Engine) Now() time.Time { return e.cfg.Now() }

// Leading reports whether this member leads and accepts writes.
func (e *Engine) Leading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lead != nil
}

// FollowsNow asks the local Raft server which leader it follows; 0 for none. It blocks for at most controlTimeout.
func (e *Engine) FollowsNow(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	return e.node.leader(ctx)
}

// DialOwn opens a stream from another member's Raft server to the one of this process. It blocks until the stream is
// open or ctx ends.
func (e *Engine) DialOwn(ctx context.Context, from uint64) (net.Conn, error) {
	c, err := e.node.dialLocal(ctx, "")
	if err != nil {
		return nil, err
	}
	return &listened{Conn: c, heard: func(n int) { e.heard(from, n) }}, nil
}
