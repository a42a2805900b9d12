package engine

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart. All else is internal and its text is for the log only.
var (
	// ErrNotLeader: this member does not lead; the request belongs to the leader. Nothing happened.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoLeader: there is no leader that a majority follows. Nothing happened.
	ErrNoLeader = errors.New("no cluster leader")
	// ErrUnknownOutcome: leadership was lost, or the caller's time was up, while the transaction was being committed, and
	// it could not be found out in time whether it was. Repeating the request with the same Idempotency-Key, or the same
	// join token and key, is safe.
	ErrUnknownOutcome = errors.New("the outcome is unknown: leadership changed during the commit")
	// ErrClosed: the member is shutting down.
	ErrClosed = errors.New("shutting down")
)

// Code classifies a refusal.
type Code int

// The classes of refusals that every API family knows how to express.
const (
	Invalid Code = iota + 1
	Unauthorized
	Forbidden
	NotFound
	Conflict
	Exhausted
	Full // there are as many of something as a setting allows
)

// Refusal is an error that is meant for the caller: Message names what was wrong and the rule, and never holds
// a secret, a path or SQL.
type Refusal struct {
	Code    Code
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Refuse makes a refusal.
func Refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}
