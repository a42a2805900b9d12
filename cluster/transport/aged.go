package transport

import (
	"errors"
	"net/http"
	"slices"
)

// A cluster that was off for longer than its leaves are valid must still elect a leader, which alone issues new ones.
// So members that know each other's key accept an expired leaf for Raft, and for the requests below, which renew it. An
// expired leaf gives access to nothing else.

// renewalPaths are the internal requests of a renewal: the leader probes its members and sends them new trust; they
// send it their addresses, which the new leaf names, and request the leaf.
var renewalPaths = []string{PathProbe, PathAnnounce, PathTrust, PathCertificates}

// onlyRenewal serves a connection with an expired leaf. Each request is its last: the next connection may have a new
// leaf.
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

// roundTrip sends an internal request. A request of a renewal is sent even if a leaf has expired.
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
