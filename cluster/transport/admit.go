package transport

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"muster/store"
)

// headerNotLeader is how handlers know that what they have passed on was not begun.
const headerNotLeader = "X-Muster-Not-Leader"

// StatusLeftOut is how a member is told that a recovery has left it out.
const StatusLeftOut = http.StatusPreconditionFailed

// LeftOut reports whether another member has told this one so.
func LeftOut(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Status == StatusLeftOut
}

// admits is the fence, and knows of removals that the replica does not show yet.
func (t *Transport) admits(nodeID uint64) error {
	if _, gone := t.gone.Load(nodeID); gone {
		return store.NotMember(nodeID, true)
	}
	return t.fence(nodeID)
}

// Expel refuses a removed member from now on and closes all connections with it.
func (t *Transport) Expel(nodeID uint64) {
	t.gone.Store(nodeID, true)
	t.Cut(nodeID)
}

// fenced lets in the requests of members.
func (t *Transport) fenced(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := t.creds.member(*r.TLS)
		t.admit(w, r.WithContext(WithMember(r.Context(), id)), id, err, handler)
	})
}

// admit lets in one request of a member. unproven is why its connection does not show who it is, nil if it does.
func (t *Transport) admit(w http.ResponseWriter, r *http.Request, id uint64, unproven error, handler http.Handler) {
	err := unproven
	if err == nil {
		err = t.admits(id)
	}
	if err == nil && t.service.Confirm != nil {
		err = t.service.Confirm(r, id)
	}
	if err != nil { // nothing happened: what a member has passed on is its own to answer, and is tried again while it may
		w.Header().Set(headerNotLeader, "1")
	}
	switch {
	case errors.Is(err, store.ErrNotMember):
		if store.WasRemoved(err) {
			w.Header().Set(headerRemoved, "1")
		}
		http.Error(w, err.Error(), http.StatusGone)
	case errors.Is(err, store.ErrLeftOut):
		http.Error(w, err.Error(), StatusLeftOut)
	case err != nil: // not known now; the caller must not take that for its removal
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
