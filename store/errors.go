package store

import (
	"errors"

	"muster/store/engine"
)

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
