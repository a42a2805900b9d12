package store

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
	// ErrUnknownOutcome: leadership was lost, or the caller's time was up, while the transaction was being committed,
	// and it could not be found out in time whether it was. Repeating the request with the same Idempotency-Key, or the same join
	// token and key, is safe.
	ErrUnknownOutcome = errors.New("the outcome is unknown: leadership changed during the commit")
	// ErrUnderWay: another operation of the kind is under way and this one can begin when it is done. Nothing happened.
	ErrUnderWay = errors.New("another operation of the kind is under way")
	// ErrKeyMoved: a key that the request needs was rotated while it was being prepared. Nothing happened.
	ErrKeyMoved = errors.New("a key was rotated meanwhile")
	// ErrAuthorityMoved: a certificate authority was rotated while the request was being prepared. Nothing happened.
	ErrAuthorityMoved = errors.New("a certificate authority was rotated meanwhile")
	// ErrBusy: too many calls of this kind are under way, and none has ended in time. Nothing happened.
	ErrBusy = errors.New("too many at once")
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

func refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}
