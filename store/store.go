// Package store keeps the state of the cluster: one SQLite database that dqlite's Raft replicates.
//
// It and its subpackages are the only ones that use SQL and dqlite. Every mutation is one transaction that runs on the
// leader (ErrNotLeader elsewhere), writes its own audit row and raises the cluster's revision; every call has a
// deadline. DESIGN.md explains the design.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"filippo.io/age"

	"muster/migrations"
	"muster/store/engine"
	"muster/store/sizes"
)

// Config configures a member's store.
type Config struct {
	Dir      string              // data directory of the member
	NodeID   uint64              // Raft node id; 1 founds a cluster when Dir is empty
	Identity *age.X25519Identity // opens this member's wraps of the data-encryption key
	Dial     DialRaft            // opens an authenticated stream to the dqlite port of a member
	// Nudge tells other Raft servers that leadership has just been handed over, so that they look at once.
	Nudge func(nodes []uint64)
	// Prepare asks another voter to get ready for the leadership that it is about to get.
	Prepare func(ctx context.Context, node uint64, p Preparation) (revision uint64, err error)
	// Fetch gets another member's mirror into a file if it is newer than a revision; for members outside Raft.
	Fetch func(ctx context.Context, after uint64, path string) (newer bool, err error)
	// the first transaction of a new cluster; nil on members that joined
	Founding *Founding
	Ask      func(ctx context.Context, nodes []uint64, need int) bool // reports whether need of the nodes follow this one
	Logger   *slog.Logger
	Now      func() time.Time

	NetworkLatency    time.Duration // one way; the election timeout is 15 times that
	SnapshotThreshold uint64        // log entries between two snapshots
	SnapshotTrailing  uint64        // log entries kept behind a snapshot for slow followers

	EventWindow int // events in memory for readers of the stream; 0: 2048
}

// Store is one member's replica of the cluster's tables. All methods are safe for concurrent use.
type Store struct {
	*engine.Engine

	Members      Members
	Leases       Leases
	JoinTokens   JoinTokens
	APITokens    APITokens
	APIKeys      APIKeys
	Enrollments  Enrollments
	Peerings     Peerings
	Keys         Keys
	Secrets      Secrets
	Authorities  Authorities
	Certificates Certificates
	Settings     Settings
	Workloads    Workloads
	Audit        Audit
	Events       Events
	Archives     Archives
	Backups      Backups

	cfg     Config
	log     *slog.Logger
	events  feed
	counts  counts
	rejoins rejoinings
	keys    keyring

	repeated map[string]bool // keys of forwarded requests that were repeated in this leadership; only the writer uses it

	inventories inventories
	queries     chan struct{} // limits concurrent queries of callers
}

// Open starts the member's engine. It does not wait for a leader.
func Open(cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	removeTemporary(cfg.Dir)
	s := &Store{cfg: cfg, log: cfg.Logger, queries: make(chan struct{}, 2)}
	s.bind()
	s.events.init(cfg.EventWindow)
	s.keys.init(cfg.Identity, cfg.NodeID)
	var err error
	s.Engine, err = engine.Open(engine.Config{
		Dir:               cfg.Dir,
		NodeID:            cfg.NodeID,
		Dial:              cfg.Dial,
		Nudge:             cfg.Nudge,
		Prepare:           cfg.Prepare,
		Fetch:             cfg.Fetch,
		Ask:               cfg.Ask,
		Logger:            cfg.Logger,
		Now:               cfg.Now,
		NetworkLatency:    cfg.NetworkLatency,
		SnapshotThreshold: cfg.SnapshotThreshold,
		SnapshotTrailing:  cfg.SnapshotTrailing,
		Schema:            schema(),
		Hooks:             s.hooks(),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// schema returns the schema of this binary.
func schema() engine.Schema { return engine.Schema{Steps: migrations.FS, Latest: migrations.Latest} }

// hooks connect the engine with the tables.
func (s *Store) hooks() engine.Hooks {
	h := engine.Hooks{
		Prepare: func(v *engine.View) error {
			s.counts.forget()
			s.repeated = nil
			if err := s.events.takeUp(view(v)); err != nil {
				return fmt.Errorf("read the newest events: %w", err)
			}
			return nil
		},
		Begin: func(t *engine.Tx, b engine.Beginning) error {
			return s.transact(t, Actor{Name: "muster"}, func(tx *Tx) error { return tx.noteBeginning(b) })
		},
		Lead: func(v *engine.View) {
			if err := s.keys.load(view(v)); err != nil {
				s.log.Error("this member cannot open the data-encryption key", "err", err)
			}
		},
		Committed: s.events.publish,
		Yield:     s.events.yield,
		Check:     sizes.CheckStatement,
		Happened: func(v *engine.View, revision uint64, request string) (bool, error) {
			return v.Get("SELECT 1 FROM audit WHERE revision = ? AND request_id = ?", []any{int64(revision), request}, new(int))
		},
	}
	if f := s.cfg.Founding; f != nil {
		h.Found = func(t *engine.Tx) error { return s.transact(t, Actor{Name: "muster"}, f.apply) }
		if f.Import != "" {
			h.Import = filepath.Join(s.cfg.Dir, f.Import)
		}
	}
	return h
}

// noteBeginning writes the audit rows of the beginning of a leadership.
func (t *Tx) noteBeginning(b engine.Beginning) error {
	if b.Migrated != "" {
		if err := t.audit("schema.migrate", fmt.Sprintf("schema/%d", b.Schema), b.Migrated); err != nil {
			return err
		}
	}
	return t.audit("leader.elected", nodeObject(t.actor.NodeID), fmt.Sprintf("epoch %d", b.Epoch))
}

var errNoAudit = errors.New("store: a mutation without an audit row")

// transact runs fn on a transaction of the engine. It fails for a mutation that wrote no audit row.
func (s *Store) transact(t *engine.Tx, actor Actor, fn func(*Tx) error) error {
	if actor.NodeID == 0 {
		actor.NodeID = s.cfg.NodeID
	}
	tx := newTx(t, actor)
	tx.self = s.NodeID()
	tx.rejoins = &s.rejoins
	tx.counts = &s.counts
	if err := fn(tx); err != nil {
		return err
	}
	if !t.Changed() {
		return nil
	}
	if len(tx.audits) == 0 {
		return errNoAudit
	}
	t.OnCommit(func() { s.events.stage(tx.audits) })
	return nil
}

// Write runs fn in a transaction on the leader; see the engine's Write. If fn changes data it must write an audit row.
func (s *Store) Write(ctx context.Context, actor Actor, fn func(*Tx) error) error {
	if actor.RequestID == "" {
		actor.RequestID = newRequestID()
	}
	return s.Engine.Write(ctx, actor.RequestID, func(t *engine.Tx) error { return s.transact(t, actor, fn) })
}

// Read runs fn on one consistent state; see the engine's Read.
func (s *Store) Read(ctx context.Context, c Consistency, fn func(*View) error) error {
	return s.Engine.Read(ctx, c, func(v *engine.View) error { return fn(view(v)) })
}

// local reads the leader's working copy or, elsewhere, the mirror, without asking other members.
func (s *Store) local(ctx context.Context, fn func(*View) error) error {
	return s.Local(ctx, func(v *engine.View) error { return fn(view(v)) })
}

// recall is Read with a cache, for frequent reads: the leader answers from memory while none of the tables has changed.
func recall[T any](ctx context.Context, s *Store, c Consistency, key string, tables []string,
	load func(*View) (T, error)) (T, error) {
	return engine.Recall(ctx, s.Engine, c, key, tables, func(v *engine.View) (T, error) { return load(view(v)) })
}

// Migrate brings the schema to a version, see the engine's Migrate.
func (s *Store) Migrate(ctx context.Context, actor Actor, version int64) error {
	return s.Engine.Migrate(ctx, actor.Name, version)
}

// Dir returns the member's data directory.
func (s *Store) Dir() string { return s.cfg.Dir }

// LatestSchema returns the newest schema version that this binary supports.
func LatestSchema() int64 { return migrations.Latest }

// The nouns of the cluster. Each is a field of Store with the methods that concern it. Every read states its
// consistency: Linearisable, AsLeader or Stale.
type (
	// Members are the machines of the cluster: joins, announcements, drains, removals, and the fence.
	Members struct{ s *Store }
	// Leases record what runs on members.
	Leases struct{ s *Store }
	// JoinTokens admit machines to the cluster.
	JoinTokens struct{ s *Store }
	// APITokens are the credentials of the API.
	APITokens struct{ s *Store }
	// APIKeys are credentials in Elasticsearch's form, including enrollment tokens.
	APIKeys struct{ s *Store }
	// Enrollments are the records of key material issued to other software.
	Enrollments struct{ s *Store }
	// Peerings are connections to other clusters, with the members that those export.
	Peerings struct{ s *Store }
	// Keys are the cluster's keys and the data-encryption key that seals all secrets.
	Keys struct{ s *Store }
	// Secrets are values that operators store in the cluster.
	Secrets struct{ s *Store }
	// Authorities are the certificate authorities, their rotations and the members' trust.
	Authorities struct{ s *Store }
	// Certificates are the leaves that the authorities have issued.
	Certificates struct{ s *Store }
	// Workloads are the registrations of software that gets identities.
	Workloads struct{ s *Store }
	// Settings are the cluster's settings, by name.
	Settings struct{ s *Store }
	// Audit records who did what.
	Audit struct{ s *Store }
	// Events are the audit as a stream.
	Events struct{ s *Store }
	// Archives are snapshots of the state, their backup and restore.
	Archives struct{ s *Store }
	// Backups are the records of scheduled and requested backups.
	Backups struct{ s *Store }
)

// bind sets the nouns.
func (s *Store) bind() {
	s.Members = Members{s}
	s.Leases = Leases{s}
	s.JoinTokens = JoinTokens{s}
	s.APITokens = APITokens{s}
	s.APIKeys = APIKeys{s}
	s.Enrollments = Enrollments{s}
	s.Peerings = Peerings{s}
	s.Keys = Keys{s}
	s.Secrets = Secrets{s}
	s.Authorities = Authorities{s}
	s.Certificates = Certificates{s}
	s.Settings = Settings{s}
	s.Workloads = Workloads{s}
	s.Audit = Audit{s}
	s.Events = Events{s}
	s.Archives = Archives{s}
	s.Backups = Backups{s}
}

// openFile opens a database file that no process writes.
func openFile(path string) (*engine.File, error) { return engine.OpenFile(path, LatestSchema()) }

func viewOf(f *engine.File) *View { return view(f.View(time.Time{})) }

// Errors that callers distinguish, besides those of the engine. All others are internal, with texts for the log only.
var (
	// ErrUnderWay: another operation of this kind is in progress, and this one must wait for it. Nothing happened.
	ErrUnderWay = errors.New("another operation of this kind is in progress")
	// ErrKeyMoved: a key that the request needs was rotated while it was being prepared. Nothing happened.
	ErrKeyMoved = errors.New("a key was rotated in the meantime")
	// ErrAuthorityMoved: a certificate authority was rotated while the request was being prepared. Nothing happened.
	ErrAuthorityMoved = errors.New("a certificate authority was rotated in the meantime")
	// ErrBusy: too many calls of this kind are in progress, and none ended in time. Nothing happened.
	ErrBusy = errors.New("too many at once")
)

func refuse(code Code, format string, args ...any) error { return engine.Refuse(code, format, args...) }

// The engine's types that callers need. Only this package imports the engine.
type (
	// Consistency is the state that a read may be answered from.
	Consistency = engine.Consistency
	// Role is a server's role in the Raft configuration.
	Role = engine.Role
	// Server is one entry of the Raft configuration.
	Server = engine.Server
	// Since is a revision after which changes of some tables count.
	Since = engine.Since
	// DialRaft opens an authenticated stream to the dqlite port of a member.
	DialRaft = engine.DialRaft
	// Preparation is what a leader sends to the voter that it will hand over to.
	Preparation = engine.Preparation
	// Refusal is an error with a text for the caller.
	Refusal = engine.Refusal
	// Code classifies a refusal.
	Code = engine.Code
	// Effects records whether the writes of one request have changed anything.
	Effects = engine.Effects
	// Diagnosis is a known reason why dqlite does not start, and what to do about it.
	Diagnosis = engine.Diagnosis
	// RaftFiles is what the file names in a Raft directory reveal.
	RaftFiles = engine.RaftFiles
	// Entry identifies an entry of a Raft log.
	Entry = engine.Entry
)

// Consistencies of reads; see the engine's.
const (
	Linearisable = engine.Linearisable
	AsLeader     = engine.AsLeader
	Stale        = engine.Stale
)

// Roles of Raft servers.
const (
	RoleNone    = engine.RoleNone
	RoleSpare   = engine.RoleSpare
	RoleStandBy = engine.RoleStandBy
	RoleVoter   = engine.RoleVoter
)

// Codes of refusals, which every API family can express.
const (
	Invalid      = engine.Invalid
	Unauthorized = engine.Unauthorized
	Forbidden    = engine.Forbidden
	NotFound     = engine.NotFound
	Conflict     = engine.Conflict
	Exhausted    = engine.Exhausted
	Full         = engine.Full
)

// Threads tries how many threads this process can start.
func Threads(n int) int { return engine.Threads(n) }

// TrialFile is the file beside the Raft log that a member writes to test its disk.
const TrialFile = engine.TrialFile

// Errors of the engine that callers distinguish.
var (
	ErrNotLeader      = engine.ErrNotLeader
	ErrNoLeader       = engine.ErrNoLeader
	ErrUnknownOutcome = engine.ErrUnknownOutcome
	ErrClosed         = engine.ErrClosed
	ErrOldSchema      = engine.ErrOldSchema
)

// Functions of the engine for the files of a stopped member, and for streams.
var (
	WithEffects      = engine.WithEffects
	Splice           = engine.Splice
	Direct           = engine.Direct
	Diagnose         = engine.Diagnose
	InspectRaft      = engine.InspectRaft
	LostVotes        = engine.LostVotes
	LastEntry        = engine.LastEntry
	Reconfigure      = engine.Reconfigure
	Configuration    = engine.Configuration
	CheckRecoverable = engine.CheckRecoverable
)
