package store

import "muster/store/engine"

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
