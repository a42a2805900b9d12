package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// ErrConfig means that New cannot use its Config: an address, a token or a CA certificate in an invalid form.
var ErrConfig = errors.New("the configuration of the client is invalid")

// ErrNoServer means that no address answered; errors.Is finds it in a *NoServerError.
var ErrNoServer = errors.New("no server answered")

// ErrUnknownOutcome means that a request may or may not have been executed: it was sent, no answer came, and a
// repetition was unsafe or failed; or a server has reported an unknown outcome. After any other error the request was
// not executed.
var ErrUnknownOutcome = errors.New("the answer did not come, so the request may or may not have been carried out")

// ErrNoLeader means that no answering server knew a leader: the request was not executed.
var ErrNoLeader = errors.New("the cluster has no leader")

// headerOutcome marks an answer after which the request may have been executed.
const headerOutcome = "X-Muster-Outcome"

// Error is a server's answer that reports a refusal or failure.
type Error struct {
	Status     int           // HTTP status, 300 or more
	Code       string        // machine-readable code where the API family has one (join), otherwise empty
	Message    string        // the server's own sentence
	RetryAfter time.Duration // the server's requested wait before the next attempt; negative if absent
	Scope      string        // the missing scope of a known caller; otherwise empty
	Unknown    bool          // the request may have been executed: errors.Is finds ErrUnknownOutcome
}

// Is reports whether the error is a target: ErrUnknownOutcome or ErrNoLeader.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrUnknownOutcome:
		return e.Unknown
	case ErrNoLeader: // in the words of every family
		return e.Status >= http.StatusInternalServerError && strings.Contains(strings.ToLower(e.Message),
			"no cluster leader")
	}
	return false
}

// Error returns the server's sentence and the HTTP status.
func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Status) }

// Attempt is one address that did not answer, and the reason.
type Attempt struct {
	Addr string
	Err  error
}

// NoServerError lists every attempted address in order. errors.Is(err, ErrNoServer) is true.
type NoServerError struct {
	Tried   []Attempt
	Reading bool // the request would have changed nothing
}

// Error names each address and its cause, a line each.
func (e *NoServerError) Error() string {
	if len(e.Tried) == 1 {
		return fmt.Sprintf("no answer from %s: %v", e.Tried[0].Addr, e.Tried[0].Err)
	}
	var b strings.Builder
	b.WriteString(ErrNoServer.Error() + ":")
	for _, t := range e.Tried {
		fmt.Fprintf(&b, "\n  %s: %v", t.Addr, t.Err)
	}
	return b.String()
}

// Unwrap returns ErrNoServer and the cause of each attempt.
func (e *NoServerError) Unwrap() []error {
	errs := []error{ErrNoServer}
	for _, t := range e.Tried {
		errs = append(errs, t.Err)
	}
	return errs
}

// plainError is a clear sentence, with the cause for errors.Is and errors.As.
type plainError struct {
	text  string
	cause error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.cause }

// explain turns net/http's error of a failed request into a sentence.
func (c *Client) explain(err error, waited time.Duration) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		timeout   net.Error
	)
	say := func(format string, args ...any) error { return &plainError{fmt.Sprintf(format, args...), err} }
	switch {
	case errors.As(err, &authority) && c.ownCA:
		return say("its certificate is not from the given CA: is it a member of another cluster?")
	case errors.As(err, &authority):
		return say("its certificate is from a CA that this machine does not know: give the cluster's CA with " +
			"--cacert FILE or MUSTER_CACERT (ca.crt in a member's data directory), or --data DIR on the member itself")
	case errors.As(err, &host):
		return say("its certificate is not valid for %s", host.Host)
	case errors.As(err, &record):
		return say("it does not speak TLS: a --plain-http address begins with http://")
	case errors.Is(err, syscall.ECONNREFUSED):
		return say("connection refused")
	case errors.As(err, &dns) && dns.IsNotFound:
		return say("no such host: %s", dns.Name)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return say("nothing came within %s", waited.Round(100*time.Millisecond))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return say("the connection broke")
	}
	return err
}

// answerError parses the API's three forms of errors: {"error":sentence}, {"error":code,"message":sentence}, and plain
// text.
func answerError(resp *http.Response, body []byte) *Error {
	e := &Error{
		Status:     resp.StatusCode,
		RetryAfter: retryAfter(resp),
		Scope:      resp.Header.Get("X-Muster-Scope"),
		Unknown:    resp.Header.Get(headerOutcome) == "unknown",
	}
	var envelope struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	switch {
	case json.Unmarshal(body, &envelope) == nil && envelope.Message != "":
		e.Code, e.Message = envelope.Error, envelope.Message
	case envelope.Error != "":
		e.Message = envelope.Error
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain"):
		e.Message = strings.TrimSpace(string(body[:min(len(body), 500)]))
	}
	if e.Status == http.StatusBadRequest && strings.HasPrefix(string(body),
		"Client sent an HTTP request to an HTTPS server") {
		e.Message = "this address speaks TLS: write it with https:// instead of http://"
	}
	if e.Message == "" {
		e.Message = http.StatusText(e.Status)
	}
	if e.Message == "" {
		e.Message = "the server refused the request"
	}
	return e
}
