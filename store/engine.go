package store

import (
	"errors"
	"time"

	"muster/store/engine"
)

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

// Errors that callers tell apart, besides the engine's (engine.go). All else is internal and its text is for the
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
