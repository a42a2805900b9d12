package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	askDial     = 1500 * time.Millisecond // a running machine accepts a connection within that time
	probeWithin = 3 * time.Second
)

// CertificateFault returns the mismatch of certificates behind an error of a connection to another member, in words; ""
// for other errors.
func CertificateFault(err error) string {
	var unknown x509.UnknownAuthorityError
	var op *net.OpError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is of an authority that this member does not trust"
	case errors.As(err, &op) && op.Op == "remote error":
		return "it refuses this member's certificate"
	}
	return ""
}

// TakesConnection reports whether a process listens at an address. It blocks for at most 1.5 s.
func TakesConnection(ctx context.Context, addr string) bool {
	dialer := net.Dialer{Timeout: askDial}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// ProbeResult is the result of a connection to a cluster listener.
type ProbeResult struct {
	Text     string // in words; "" when no process accepts the connection
	Answered bool   // a member has answered
	Mismatch bool   // the certificates do not match
	Removed  bool   // it reports that this member was removed
}

// Probe connects to a cluster listener and requests the member's health. It blocks for a few seconds at most.
func Probe(ctx context.Context, creds *Credentials, id uint64, addr string) ProbeResult {
	if !TakesConnection(ctx, addr) {
		return ProbeResult{}
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	everywhere := Table(func(uint64) (string, bool) { return addr, true })
	one := New(creds, everywhere, func(uint64) error { return nil }, slog.New(slog.DiscardHandler))
	defer one.Close()
	err := one.Call(ctx, http.MethodGet, id, PathProbe, nil, nil)
	var answer *StatusError
	switch {
	case err == nil:
		return ProbeResult{Text: fmt.Sprintf("it answers as node %d", id), Answered: true}
	case errors.As(err, &answer) && answer.Status == http.StatusGone && answer.Removed:
		return ProbeResult{Text: "it says that this member was removed", Removed: true}
	case errors.As(err, &answer) && answer.Status == http.StatusGone:
		return ProbeResult{Text: "it says that this member is not in the cluster"}
	case errors.As(err, &answer):
		return ProbeResult{Text: fmt.Sprintf("it answers %d", answer.Status), Answered: true}
	}
	if trouble := CertificateFault(err); trouble != "" {
		return ProbeResult{Text: trouble, Mismatch: true}
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return ProbeResult{Text: "it takes connections and then: " + text}
}
