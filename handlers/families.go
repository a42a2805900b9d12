package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"syscall"

	"muster/store"
)

// Family is one of the APIs: its routes, envelope, headers and texts.
type Family struct {
	Name   string
	Routes []Route
	// Paths are path prefixes: a path that no route serves belongs to the family with the longest matching prefix.
	Paths []string
	// Speaks reports whether a request that no route serves comes from a client of this family, whatever its path; nil:
	// never.
	Speaks  func(*http.Request) bool
	Headers func(http.ResponseWriter)
	Fail    func(w http.ResponseWriter, status int, code store.Code, message string)

	Unauthenticated Failure // no valid credential
	Forbidden       Failure // the credential lacks the scope
	NoLeader        Failure
	UnknownOutcome  Failure

	// What a family does in its own way; nil or empty means the common way.

	// Aside answers before routing.
	Aside *Aside
	// Credential reads a credential from the family's own header, which takes precedence. Without a Secret there is none.
	Credential func(*http.Request) (c Credential, ok bool)
	// Denied replaces Unauthenticated and Forbidden.
	Denied func(q *Request, d *Denial) error
	// Wrap transforms every answer on its way to the client.
	Wrap func(http.ResponseWriter, *http.Request) Finisher
	// NoRoute answers for a path that no route serves, NoMethod for a method that no route of the path serves.
	NoRoute  func(w http.ResponseWriter, r *http.Request)
	NoMethod func(w http.ResponseWriter, r *http.Request, allowed []string)
	// Age has the family's own names of the headers of a stale answer.
	Age *AgeHeaders
	// Repeat tells the caller how to repeat a request whose outcome is unknown.
	Repeat string
}

// headers sets the headers of every answer and those of the family.
func (f *Family) headers(w http.ResponseWriter) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	f.Headers(w)
}

// Aside answers requests before routing, as the router of an original does.
type Aside struct {
	Method, Path string // labels in metrics
	Takes        func(*http.Request) bool
	Serve        http.HandlerFunc
}

// AgeHeaders are a family's names of HeaderKnownLeader and HeaderLastContact; its answers always have both.
type AgeHeaders struct{ KnownLeader, LastContact string }

// OwnError is an error that a family renders itself.
type OwnError interface {
	error
	HTTPStatus() int
	Write(http.ResponseWriter)
}

// Finisher buffers an answer until it is complete.
type Finisher interface {
	http.ResponseWriter
	Finish()
}

type Failure struct {
	Status int
	Text   string
}

// Error is an error with the exact status and text of its answer.
type Error struct {
	Status int
	Text   string
	later  bool // set Retry-After
}

func (e *Error) Error() string { return e.Text }

func Fail(status int, text string) error { return &Error{Status: status, Text: text} }

// Later returns a 503 for a request that was not carried out and can be retried soon.
func Later(text string) error { return &Error{http.StatusServiceUnavailable, text, true} }

var statusOf = map[store.Code]int{
	store.Invalid:      http.StatusBadRequest,
	store.Unauthorized: http.StatusUnauthorized,
	store.Forbidden:    http.StatusForbidden,
	store.NotFound:     http.StatusNotFound,
	store.Conflict:     http.StatusConflict,
	store.Exhausted:    http.StatusInternalServerError,
	store.Full:         http.StatusConflict,
}

// Render writes an error in the family's envelope. An internal error becomes a plain 500, and internal is true: the
// caller of Render logs it.
func (f *Family) Render(w http.ResponseWriter, err error) (internal bool) {
	var known *Error
	var refusal *store.Refusal
	var own OwnError
	send := func(x Failure) {
		w.Header().Set("Retry-After", "1")
		f.Fail(w, x.Status, 0, x.Text)
	}
	switch {
	case errors.As(err, &own):
		own.Write(w)
	case errors.As(err, &known) && known.later:
		send(Failure{known.Status, known.Text})
	case errors.As(err, &known):
		f.Fail(w, known.Status, 0, known.Text)
	case errors.As(err, &refusal):
		f.Fail(w, statusOf[refusal.Code], refusal.Code, refusal.Message)
	case errors.Is(err, syscall.ENOSPC):
		f.Fail(w, http.StatusInternalServerError, 0, "the disk of the member that carries this out is full")
	case errors.Is(err, context.DeadlineExceeded):
		send(Failure{http.StatusServiceUnavailable, "this takes longer than it may at the moment; try again"})
	case errors.Is(err, store.ErrOldSchema):
		send(Failure{http.StatusServiceUnavailable, store.ErrOldSchema.Error()})
	case errors.Is(err, store.ErrNoLeader), errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrClosed):
		send(f.NoLeader)
	default:
		f.Fail(w, http.StatusInternalServerError, 0, "internal error")
		return true
	}
	return false
}

// PlainFail writes an error as plain text, for families with plain-text errors.
func PlainFail(w http.ResponseWriter, status int, _ store.Code, message string) {
	if message != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(message))
}

// WriteJSON writes v on one line without a trailing newline, as the originals do.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	data := MustJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// MustJSON marshals a value that cannot fail.
func MustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
