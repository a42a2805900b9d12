// Package store keeps the state of the cluster: one SQLite database that dqlite's Raft replicates.
//
// It and its engine are the only packages that speak SQL and dqlite. Every mutation is one transaction that runs on the
// leader (ErrNotLeader elsewhere), writes its own audit row and raises the cluster's revision; every call has a
// deadline. DESIGN.md says why it is built as it is.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"muster/migrations"
	"muster/store/engine"
	"muster/store/foreign"
)

// Config says where a member's state lives and how it reaches the others.
type Config struct {
	Dir      string              // data directory of the member
	NodeID   uint64              // raft node id; 1 founds a cluster when Dir is empty
	Identity *age.X25519Identity // opens this member's wraps of the data-encryption key
	Dial     DialRaft            // authenticated streams to the dqlite port of other members
	// Nudge tells other Raft servers that leadership has just been handed over, so that they look at once.
	Nudge func(nodes []uint64)
	// Prepare asks another voter to get ready for the leadership that it is about to get.
	Prepare func(ctx context.Context, node uint64, p Preparation) (revision uint64, err error)
	// Fetch gets another member's mirror into a file if it is newer than a revision; for members outside Raft.
	Fetch func(ctx context.Context, after uint64, path string) (newer bool, err error)
	// what the first transaction of a new cluster writes; nil on members that joined
	Founding *Founding
	Ask      func(ctx context.Context, nodes []uint64, need int) bool // do that many of the nodes follow this one now?
	Logger   *slog.Logger
	Now      func() time.Time

	NetworkLatency    time.Duration // one way; the election time-out is 15 times that
	SnapshotThreshold uint64        // log entries between two snapshots
	SnapshotTrailing  uint64        // log entries kept behind a snapshot for slow followers

	EventWindow int // events kept in memory for readers of the stream; 0 stands for 2048
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

	repeated map[string]bool // keys of requests that members have repeated in this leadership; the writer's own

	inventories inventories
	queries     chan struct{} // bounds how many statements of callers run at once
}

// Open starts the member's engine, which follows the leadership. It does not wait for a leader.
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

// schema is what this binary knows of the schema when it opens a store.
func schema() engine.Schema { return engine.Schema{Steps: migrations.FS, Latest: migrations.Latest} }

// hooks tell the engine what it must know of the tables.
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
		Check:     checkSizes,
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

// noteBeginning writes the audit rows of a leadership that begins.
func (t *Tx) noteBeginning(b engine.Beginning) error {
	if b.Migrated != "" {
		if err := t.audit("schema.migrate", fmt.Sprintf("schema/%d", b.Schema), b.Migrated); err != nil {
			return err
		}
	}
	return t.audit("leader.elected", nodeObject(t.actor.NodeID), fmt.Sprintf("epoch %d", b.Epoch))
}

var errNoAudit = errors.New("store: a mutation without an audit row")

// transact runs fn on a transaction of the engine. A mutation must have written an audit row.
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

// Write runs fn in a transaction on the leader; see the engine's Write. What fn changes, it must write an audit row of.
func (s *Store) Write(ctx context.Context, actor Actor, fn func(*Tx) error) error {
	if actor.RequestID == "" {
		actor.RequestID = newRequestID()
	}
	return s.Engine.Write(ctx, actor.RequestID, func(t *engine.Tx) error { return s.transact(t, actor, fn) })
}

// Read runs fn on one consistent state; see the engine's Read for what it returns.
func (s *Store) Read(ctx context.Context, c Consistency, fn func(*View) error) error {
	return s.Engine.Read(ctx, c, func(v *engine.View) error { return fn(view(v)) })
}

// local reads the leader's working copy or, elsewhere, the mirror, whichever is there; it asks nobody.
func (s *Store) local(ctx context.Context, fn func(*View) error) error {
	return s.Local(ctx, func(v *engine.View) error { return fn(view(v)) })
}

// recall is a read of a noun that is asked for often: the leader answers from memory while none of the tables has
// changed.
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

// LatestSchema is the newest database schema that this binary works with.
func LatestSchema() int64 { return migrations.Latest }

// The nouns of the cluster. Each is a view of the store with the methods that concern it, and is reached as a field of
// Store. Who reads says from which state: Linearisable, AsLeader or Stale.
type (
	// Members are the machines of the cluster: who joins, announces itself, is drained, removed and talked to.
	Members struct{ s *Store }
	// Leases say what still runs on a member.
	Leases struct{ s *Store }
	// JoinTokens admit machines to the cluster.
	JoinTokens struct{ s *Store }
	// APITokens are the credentials of the API.
	APITokens struct{ s *Store }
	// APIKeys are credentials in Elasticsearch's form, enrollment tokens among them.
	APIKeys struct{ s *Store }
	// Enrollments are what was handed out to other software.
	Enrollments struct{ s *Store }
	// Peerings are connections to other clusters, with what those export.
	Peerings struct{ s *Store }
	// Keys are the keys of the cluster and the data-encryption key that all secrets are sealed under.
	Keys struct{ s *Store }
	// Secrets are values that operators keep in the cluster.
	Secrets struct{ s *Store }
	// Authorities are the certificate authorities with their rotations and what members trust.
	Authorities struct{ s *Store }
	// Certificates are the leaves that the authorities have issued.
	Certificates struct{ s *Store }
	// Workloads are software that gets identities.
	Workloads struct{ s *Store }
	// Settings are what operators and members have set, by name.
	Settings struct{ s *Store }
	// Audit says who did what.
	Audit struct{ s *Store }
	// Events are the audit as a stream.
	Events struct{ s *Store }
	// Archives are snapshots of the state and what is made of them.
	Archives struct{ s *Store }
	// Backups are the records of what members save by themselves.
	Backups struct{ s *Store }
)

// bind makes the nouns: views of the store.
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

// Answer is what a query has found.
type Answer = foreign.Answer

// Query runs one reading statement of the caller's on the local mirror, with or without a leader, and returns at most
// limit rows and 4 MiB of values. It blocks until the statement is done, ctx ends or its deadline has come. Memory,
// time and what the statement may use are bounded; two statements run at a time, others wait. What is wrong
// with the statement is a Refusal; ErrBusy comes when none could be begun in time.
func (s *Store) Query(ctx context.Context, query string, limit int) (Answer, error) {
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	case <-ctx.Done():
		return Answer{}, ErrBusy
	}
	if _, err := os.Stat(s.Mirror.Path()); err != nil {
		return Answer{}, ErrNoLeader // there is no mirror yet
	}
	return foreign.Query(ctx, s.Mirror.Path(), query, limit)
}

// What callers need of the engine's words. Nobody but this package imports the engine.
type (
	// Consistency says which state a read may be answered from.
	Consistency = engine.Consistency
	// Role is a server's role in the Raft configuration.
	Role = engine.Role
	// Server is one entry of the Raft configuration.
	Server = engine.Server
	// DialRaft opens an authenticated stream to the dqlite port of a member.
	DialRaft = engine.DialRaft
	// Preparation is what a leader sends to the voter that it is about to hand over to.
	Preparation = engine.Preparation
	// Refusal is an error that is meant for the caller.
	Refusal = engine.Refusal
	// Code classifies a refusal.
	Code = engine.Code
	// Effects remembers whether the writes of one request have changed anything.
	Effects = engine.Effects
	// Diagnosis is a known reason why dqlite does not start, and what to do about it.
	Diagnosis = engine.Diagnosis
	// RaftFiles is what the names of the files of a Raft directory tell.
	RaftFiles = engine.RaftFiles
	// Entry names the last entry of a Raft log.
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

// The classes of refusals that every API family knows how to express.
const (
	Invalid      = engine.Invalid
	Unauthorized = engine.Unauthorized
	Forbidden    = engine.Forbidden
	NotFound     = engine.NotFound
	Conflict     = engine.Conflict
	Exhausted    = engine.Exhausted
	Full         = engine.Full
)

// TrialFile is a file beside the Raft log with which a member finds out whether it can store.
const TrialFile = engine.TrialFile

// Errors of the engine that callers tell apart.
var (
	ErrNotLeader      = engine.ErrNotLeader
	ErrNoLeader       = engine.ErrNoLeader
	ErrUnknownOutcome = engine.ErrUnknownOutcome
	ErrClosed         = engine.ErrClosed
	ErrOldSchema      = engine.ErrOldSchema
)

// Functions of the engine for the files of a member that does not run, and for streams.
var (
	WithEffects      = engine.WithEffects
	Splice           = engine.Splice
	Direct           = engine.Direct
	Diagnose         = engine.Diagnose
	InspectRaft      = engine.InspectRaft
	LastEntry        = engine.LastEntry
	Reconfigure      = engine.Reconfigure
	Configuration    = engine.Configuration
	CheckRecoverable = engine.CheckRecoverable
)

// openFile opens a database file that nobody writes.
func openFile(path string) (*engine.File, error) { return engine.OpenFile(path, LatestSchema()) }

func viewOf(f *engine.File) *View { return view(f.View(time.Time{})) }

// Errors that callers tell apart, besides those of the engine (engine.go). All else is internal and its text is for the
// log only.
var (
	// ErrUnderWay: another operation of the kind is under way and this one can begin when it is done. Nothing happened.
	ErrUnderWay = errors.New("another operation of the kind is under way")
	// ErrKeyMoved: a key that the request needs was rotated while it was being prepared. Nothing happened.
	ErrKeyMoved = errors.New("a key was rotated meanwhile")
	// ErrAuthorityMoved: a certificate authority was rotated while the request was being prepared. Nothing happened.
	ErrAuthorityMoved = errors.New("a certificate authority was rotated meanwhile")
	// ErrBusy: too many calls of this kind are under way, and none has ended in time. Nothing happened.
	ErrBusy = errors.New("too many at once")
)

func refuse(code Code, format string, args ...any) error { return engine.Refuse(code, format, args...) }
