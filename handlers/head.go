package handlers

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/mux"
)

// withHead serves HEAD as GET, without the body; a stream ends with its headers.
func withHead(next http.Handler, stream bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		get := r.WithContext(r.Context())
		get.Method = http.MethodGet
		head := &headWriter{ResponseWriter: w, stream: stream}
		next.ServeHTTP(head, get)
		head.send(true)
	})
}

// headWriter discards the body of a GET and counts its bytes for Content-Length.
type headWriter struct {
	http.ResponseWriter
	stream bool
	status int
	length int64
	sent   bool
}

// WriteHeader holds the status back until the length of the answer is known.
func (w *headWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write counts the bytes and drops them.
func (w *headWriter) Write(p []byte) (int, error) {
	if w.WriteHeader(http.StatusOK); w.sent {
		return 0, errHeadersSent
	}
	w.length += int64(len(p))
	return len(p), nil
}

var errHeadersSent = errors.New("the headers are sent, and HEAD has no body")

// FlushError sends the headers of a stream, without a length, and returns an error to end it.
func (w *headWriter) FlushError() error {
	if !w.stream {
		return nil
	}
	w.send(false)
	return errHeadersSent
}

// Unwrap lets http.ResponseController reach the connection.
func (w *headWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *headWriter) send(complete bool) {
	if w.sent {
		return
	}
	w.sent = true
	w.WriteHeader(http.StatusOK)
	bodiless := w.status == http.StatusNoContent || w.status == http.StatusNotModified
	if complete && !bodiless && w.Header().Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.FormatInt(w.length, 10))
	}
	w.ResponseWriter.WriteHeader(w.status)
}

// withSlash accepts a trailing slash on the path of any route.
func withSlash(m *mux.Router) http.Handler {
	serves := func(r *http.Request) bool {
		var match mux.RouteMatch
		m.Match(r, &match)
		return !errors.Is(match.MatchErr, mux.ErrNotFound)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.EscapedPath(); len(p) > 1 && strings.HasSuffix(p, "/") && !serves(r) {
			target := *r.URL
			target.Path, target.RawPath = strings.TrimSuffix(target.Path, "/"), strings.TrimSuffix(target.RawPath, "/")
			bare := r.WithContext(r.Context())
			if bare.URL = &target; serves(bare) {
				r = bare
			}
		}
		m.ServeHTTP(w, r)
	})
}
