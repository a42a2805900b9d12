package transport

import (
	"errors"
	"net/http"
	"slices"
)

// A cluster that was off for longer than its leaves live must be able to elect a leader, who alone can issue new ones.
// So members that know each other's key accept an expired leaf for Raft, and for the requests below, which lead to a
// fresh one. Nothing else is open to it.

// renewalPaths are the internal requests that renewal consists of: the leader hears of its members and tells them of
// new trust, they tell it their addresses, for the names in the new leaf, and ask for it.
var renewalPaths = []string{PathProbe, PathAnnounce, PathTrust, PathCertificates}

// onlyRenewal serves a connection on which an expired leaf was presented. Each request is its last: the next connection
// may have a fresh one.
func onlyRenewal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		if !slices.Contains(renewalPaths, r.URL.Path) {
			http.Error(w, ErrExpired.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// roundTrip sends an internal request. One of renewal is sent although a leaf has expired.
func (t *Transport) roundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.client.RoundTrip(r)
	if !errors.Is(err, ErrExpired) || !slices.Contains(renewalPaths, r.URL.Path) {
		return resp, err
	}
	if r.GetBody != nil {
		if r.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.renewal.RoundTrip(r)
}
