package transport

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"muster/store"
)

// headerNotLeader marks an answer that means that a forwarded request was not begun.
const headerNotLeader = "X-Muster-Not-Leader"

// StatusLeftOut tells a member that a recovery has left it out.
const StatusLeftOut = http.StatusPreconditionFailed

// LeftOut reports whether err is such an answer of another member.
func LeftOut(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Status == StatusLeftOut
}

// LeftOutSince returns since when the cluster that has left this member out has had a leader, if the error has that;
// otherwise "".
func LeftOutSince(err error) string {
	var status *StatusError
	if errors.As(err, &status) && status.Status == StatusLeftOut {
		return status.Recovered
	}
	return ""
}

// admits is the fence. It also knows removals that the replica does not show yet.
func (t *Transport) admits(nodeID uint64) error {
	if _, gone := t.gone.Load(nodeID); gone {
		return store.NotMember(nodeID, true)
	}
	return t.fence(nodeID)
}

// Expel rejects a removed member from now on and closes all its connections.
func (t *Transport) Expel(nodeID uint64) {
	t.gone.Store(nodeID, true)
	t.Cut(nodeID)
}

// fenced passes only requests of members to handler.
func (t *Transport) fenced(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := t.creds.member(*r.TLS)
		t.admit(w, r.WithContext(WithMember(r.Context(), id)), id, err, handler)
	})
}

// admit passes one request of a member to handler. unproven is why its connection does not prove its identity; nil if
// it does.
func (t *Transport) admit(w http.ResponseWriter, r *http.Request, id uint64, unproven error, handler http.Handler) {
	err := unproven
	if err == nil {
		err = t.admits(id)
	}
	if err == nil && t.service.Confirm != nil {
		err = t.service.Confirm(r, id)
	}
	if err != nil { // nothing happened, so the member may try a forwarded request again
		w.Header().Set(headerNotLeader, "1")
	}
	switch {
	case errors.Is(err, store.ErrNotMember):
		if store.WasRemoved(err) {
			w.Header().Set(headerRemoved, "1")
		}
		http.Error(w, err.Error(), http.StatusGone)
	case errors.Is(err, store.ErrLeftOut):
		if since := t.service.Recovered; since != nil {
			w.Header().Set(headerRecovered, since(r.Context()))
		}
		http.Error(w, err.Error(), StatusLeftOut)
	case err != nil: // unknown now; the caller must not mistake that for its removal
		http.Error(w, "whether node "+strconv.FormatUint(id, 10)+" is a member cannot be confirmed now",
			http.StatusServiceUnavailable)
	default:
		handler.ServeHTTP(w, r)
	}
}

type memberKey struct{}

// WithMember returns the context of an internal request that came over the connection of a member.
func WithMember(ctx context.Context, nodeID uint64) context.Context {
	return context.WithValue(ctx, memberKey{}, nodeID)
}

// MemberID returns the member whose connection an internal request came over.
func MemberID(ctx context.Context) uint64 {
	id, _ := ctx.Value(memberKey{}).(uint64)
	return id
}
