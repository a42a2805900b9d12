// Package store keeps the state of the cluster: one SQLite database that dqlite's Raft replicates.
//
// It is the only package that speaks SQL and dqlite. Every mutation is one transaction that runs on the leader
// (ErrNotLeader elsewhere), writes its own audit row and raises the cluster's revision; every call has a
// deadline. DESIGN.md says why it is built as it is.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/canonical/go-dqlite/v3/client"
)

const databaseName = "muster"

// Times that bound every wait. The sum of a commit and its resolution stays under the 5 s in which a caller is
// promised an answer.
const (
	leaderPoll     = 100 * time.Millisecond // while there is a leader
	electionPoll   = 20 * time.Millisecond  // while there is none
	commitTimeout  = 3 * time.Second
	commitPerMiB   = 500 * time.Millisecond // more, for a restore: its transaction can be as large as the database
	resolveTimeout = 1500 * time.Millisecond
	controlTimeout = 500 * time.Millisecond
)

// Config says where a member's state lives and how it reaches the others.
type Config struct {
	Dir      string              // data directory of the member
	NodeID   uint64              // raft node id; 1 founds a cluster when Dir is empty
	Identity *age.X25519Identity // opens this member's wraps of the data-encryption key
	Dial     DialRaft            // authenticated streams to the dqlite port of other members
	// Nudge tells other Raft servers that leadership has just been handed over, so that they look at once.
	Nudge func(nodes []uint64)
	// Fetch gets another member's mirror into a file if it is newer than a revision; for members outside Raft.
	Fetch    func(ctx context.Context, after uint64, path string) (newer bool, err error)
	Founding *Founding                                                // what the first transaction of a new cluster writes; nil on members that joined
	Ask      func(ctx context.Context, nodes []uint64, need int) bool // do that many of the nodes follow this one now?
	Logger   *slog.Logger
	Now      func() time.Time

	NetworkLatency    time.Duration // one way; the election time-out is 15 times that
	SnapshotThreshold uint64        // log entries between two snapshots
	SnapshotTrailing  uint64        // log entries kept behind a snapshot for slow followers

	EventWindow int // events kept in memory for readers of the stream; 0 stands for 2048
}

// Store is one member's replica and, while the member leads, the cluster's single writer.
// All methods are safe for concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	node    *node
	mirror  *mirror
	changes changes
	events  feed
	keys    keyring
	metrics instruments

	inventories inventories
	queries     chan struct{} // bounds how many statements of callers run at once

	leaderID atomic.Uint64 // as the local Raft server knows it, 0 for none
	lastLed  atomic.Int64  // when it last knew one, in nanoseconds; 0 for not yet
	hint     atomic.Pointer[leaderHint]
	restless atomic.Int64  // until when the leader is looked for often, Unix nanoseconds
	lost     atomic.Int64  // when this member's leadership ended, Unix nanoseconds; 0 once it follows another leader or leads again
	observed atomic.Int64  // when leadership was last known to be unbroken, Unix nanoseconds
	beat     atomic.Int64  // when followLeadership last began a round, Unix nanoseconds
	look     chan struct{} // wakes followLeadership before its time
	closing  atomic.Bool
	schema   atomic.Pointer[migration] // asked for; applied when leadership is taken up next
	yielding atomic.Bool               // a transfer is under way: leadership is not taken up again meanwhile

	mu      sync.Mutex
	lead    *leadership   // nil while another member leads
	turned  chan struct{} // closed and replaced whenever leaderID or lead changes
	term    term          // of the leader that this member follows
	servers []Server      // last known Raft configuration
	ending  chan struct{} // closed when the last leadership has let go of its files; nil before the first one

	stop context.CancelFunc
	done sync.WaitGroup
}

// Open starts the member's dqlite server and follows the leadership. It does not wait for a leader.
func Open(cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.NetworkLatency == 0 {
		cfg.NetworkLatency = 24 * time.Millisecond
	}
	if cfg.SnapshotThreshold == 0 {
		cfg.SnapshotThreshold = 256
	}
	if cfg.SnapshotTrailing == 0 {
		cfg.SnapshotTrailing = 256
	}
	if err := removeWorking(cfg.Dir); err != nil {
		return nil, err
	}
	removeTemporary(cfg.Dir)
	if cfg.Founding != nil && cfg.NodeID != founderID {
		if err := bootstrap(cfg.Dir, cfg.NodeID); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{cfg: cfg, log: cfg.Logger, turned: make(chan struct{}), look: make(chan struct{}, 1), stop: cancel,
		queries: make(chan struct{}, 2)}
	n, err := startNode(cfg, s.Suspect)
	if err != nil {
		cancel()
		return nil, err
	}
	s.node = n
	s.changes.init()
	s.events.init(cfg.EventWindow)
	s.metrics.init()
	s.keys.init(cfg.Identity, cfg.NodeID)
	s.mirror = newMirror(filepath.Join(cfg.Dir, "muster.db"), cfg.Logger)
	s.done.Add(2)
	go func() { defer s.done.Done(); s.followLeadership(ctx) }()
	go func() { defer s.done.Done(); s.mirror.keep(ctx, s) }()
	return s, nil
}

// Close hands leadership over when this member has it and stops the server. Handing over takes no longer than ctx.
func (s *Store) Close(ctx context.Context) error {
	if s.closing.Swap(true) {
		return nil
	}
	s.HandOver(ctx)
	s.stop()
	s.done.Wait()
	s.descend(ErrClosed)
	s.mirror.close()
	return s.node.close()
}

// NodeID returns the raft node id of this member.
func (s *Store) NodeID() uint64 { return s.cfg.NodeID }

// Now is the time that transactions would have.
func (s *Store) Now() time.Time { return s.cfg.Now() }

// Leading tells whether this member leads and accepts writes.
func (s *Store) Leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lead != nil
}

// FollowsNow asks the local Raft server which leader it follows at this moment, 0 for none.
func (s *Store) FollowsNow(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	return s.node.leader(ctx)
}

// DialOwn connects to the dqlite server of this process.
func (s *Store) DialOwn(ctx context.Context) (net.Conn, error) { return s.node.dialLocal(ctx, "") }

// AwaitLeader blocks until there is a leader and, if it is this member, until it accepts writes.
// It returns ErrNoLeader when ctx ends first.
func (s *Store) AwaitLeader(ctx context.Context) (uint64, error) {
	for {
		s.mu.Lock()
		turned, leading := s.turned, s.lead != nil
		s.mu.Unlock()
		if s.closing.Load() {
			return 0, ErrClosed
		}
		if id := s.LeaderID(); id != 0 && (id != s.cfg.NodeID || leading) {
			return id, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return 0, ErrNoLeader
		}
	}
}

// Leadership returns a channel that is closed when leadership next changes in any way, for loops that run on
// the leader only.
func (s *Store) Leadership() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turned
}

// Servers returns the Raft configuration as last read from the local server. It does not block.
func (s *Store) Servers() []Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Server(nil), s.servers...)
}

// RefreshServers reads the Raft configuration from the local server.
func (s *Store) RefreshServers(ctx context.Context) ([]Server, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	list, err := s.node.servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the Raft configuration: %w", err)
	}
	s.mu.Lock()
	s.servers = list
	s.mu.Unlock()
	return list, nil
}

// Assign brings a node into the Raft configuration with a role, or changes the role it has. It blocks until the
// change is committed or ctx ends; a new voter must catch up first. Only the leader can do it.
func (s *Store) Assign(ctx context.Context, id uint64, role Role) error {
	have := RoleNone
	for _, v := range s.Servers() {
		if v.NodeID == id {
			have = v.Role
		}
	}
	if role != RoleVoter && have == RoleVoter && !slices.ContainsFunc(s.Servers(), func(v Server) bool { return v.NodeID != id && v.Role == RoleVoter }) {
		return fmt.Errorf("node %d is the last voter of the Raft configuration, which must not be without one", id)
	}
	err := s.node.change(ctx, func(ctx context.Context, c *client.Client) error {
		switch {
		case role == RoleNone:
			return c.Remove(ctx, id)
		case have == RoleNone:
			if err := c.Add(ctx, client.NodeInfo{ID: id, Address: raftName(id), Role: client.Spare}); err != nil {
				return err
			}
			if role == RoleSpare {
				return nil
			}
			return c.Assign(ctx, id, role.dqlite())
		case have == role:
			return nil
		default:
			return c.Assign(ctx, id, role.dqlite())
		}
	})
	if _, e := s.RefreshServers(context.WithoutCancel(ctx)); e != nil && err == nil {
		err = e
	}
	return err
}

// Beat returns when this member last set out to look who leads, which it does all the time while it is well.
func (s *Store) Beat() time.Time { return time.Unix(0, s.beat.Load()) }

// Look makes this member find out at once who leads, instead of at its next look.
func (s *Store) Look() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// followLeadership keeps leaderID, the configuration and the leadership of this process in step with Raft.
func (s *Store) followLeadership(ctx context.Context) {
	for round := 0; ; round++ {
		s.beat.Store(time.Now().UnixNano())
		asked := time.Now()
		id, err := s.FollowsNow(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("the local Raft server does not answer", "err", err)
			id = 0
		}
		if l := s.current(); l != nil && id == s.cfg.NodeID {
			// Between two looks that are an election apart, leadership may have been lost and won again.
			if !s.unbroken() && !l.verify(ctx) {
				s.log.Warn("leadership was lost and won again unnoticed; it starts afresh")
				s.descend(ErrNotLeader)
			}
			s.observed.Store(asked.UnixNano())
		}
		s.observeLeader(id)
		switch {
		case id == s.cfg.NodeID && !s.Leading() && !s.yielding.Load() && !s.closing.Load():
			if err := s.ascend(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("leadership could not be taken up", "err", err)
				if errors.Is(err, errNewSchema) || errors.Is(err, errDiskHolds) {
					_, _ = s.RefreshServers(ctx)
					s.passOn(ctx)
				}
			}
		case id != s.cfg.NodeID:
			s.descend(ErrNotLeader)
		}
		if round%10 == 0 {
			_, _ = s.RefreshServers(ctx)
		}
		poll := leaderPoll
		if id == 0 && !s.Outside() || time.Now().UnixNano() < s.restless.Load() {
			poll = electionPoll
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(poll):
		case <-s.look:
		}
	}
}

// unbroken tells whether leadership was looked at so recently that no other member can have led since: that takes an
// election, 15 times the network latency.
func (s *Store) unbroken() bool {
	return time.Since(time.Unix(0, s.observed.Load())) < 15*s.cfg.NetworkLatency
}

func removeWorking(dir string) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(filepath.Join(dir, workingName+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the data directory cannot be used: %w", err)
		}
	}
	return nil
}
