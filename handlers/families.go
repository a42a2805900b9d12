package handlers

import (
	"encoding/json"
	"errors"
	"net/http"
	"syscall"

	"muster/store"
)

// Family is one of the documented APIs: its rows of the table, its envelope, its headers, its texts.
type Family struct {
	Name   string
	Routes []Route
	// Paths are beginnings of the paths that are its own where no row serves them; the longest of all families counts.
	Paths []string
	// Speaks reports whether a request that no row serves comes from a client of this family, wherever its path leads; nil:
	// that cannot be told.
	Speaks  func(*http.Request) bool
	Headers func(http.ResponseWriter)
	Fail    func(w http.ResponseWriter, status int, code store.Code, message string)

	Unauthenticated Failure // no valid credential
	Forbidden       Failure // a credential that does not allow it
	NoLeader        Failure
	UnknownOutcome  Failure

	// What a family does in a way of its own; nil or empty is the common way.

	// Aside answers before the table is asked.
	Aside *Aside
	// Credential is where the family looks for one first; without a Secret there is none.
	Credential func(*http.Request) (c Credential, ok bool)
	// Denied replaces Unauthenticated and Forbidden.
	Denied func(q *Request, d *Denial) error
	// Wrap shapes every answer on its way to the client.
	Wrap func(http.ResponseWriter, *http.Request) Finisher
	// NoRoute answers where nobody serves the path, NoMethod where nobody serves the method.
	NoRoute  func(w http.ResponseWriter, r *http.Request)
	NoMethod func(w http.ResponseWriter, r *http.Request, allowed []string)
	// Age is the family's own spelling of the headers of a stale answer.
	Age *AgeHeaders
	// Repeat says how to repeat a request whose outcome is unknown.
	Repeat string
}

// Aside takes requests before the table of routes is asked, as the router of an original would.
type Aside struct {
	Method, Path string // how metrics count it
	Takes        func(*http.Request) bool
	Serve        http.HandlerFunc
}

// AgeHeaders are the names of a family's headers that mean what HeaderKnownLeader and HeaderLastContact do; both are
// always there.
type AgeHeaders struct{ KnownLeader, LastContact string }

// OwnError is an error that a family writes in a way of its own.
type OwnError interface {
	error
	HTTPStatus() int
	Write(http.ResponseWriter)
}

// Finisher holds an answer back until it is complete.
type Finisher interface {
	http.ResponseWriter
	Finish()
}

type Failure struct {
	Status int
	Text   string
}

// Error is an answer whose status and text the handler knows exactly.
type Error struct {
	Status int
	Text   string
	later  bool // Retry-After says so
}

func (e *Error) Error() string { return e.Text }

func Fail(status int, text string) error { return &Error{Status: status, Text: text} }

// Later is 503 for what was not done and can be in a moment.
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

// Render writes an error as the family does. What is not meant for callers becomes a plain 500; the caller of
// render logs it.
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
		f.Fail(w, http.StatusInternalServerError, 0, "there is no room left on the disk of the member that does this")
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

// PlainFail writes an error as plain text, for families whose errors are that.
func PlainFail(w http.ResponseWriter, status int, _ store.Code, message string) {
	if message != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(message))
}

// WriteJSON writes v on one line without a newline behind it, as the families do.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	data := MustJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// MustJSON marshals what always can be.
func MustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
