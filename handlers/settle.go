package handlers

import (
	"errors"
	"fmt"
	"net/http"

	"muster/store"
)

// settle runs a handler until its outcome rests on nothing that passes by itself: what another request held it up with
// (store.ErrUnderWay) or changed while it was being prepared (store.ErrKeyMoved, store.ErrAuthorityMoved) is waited for
// up to the caller's deadline. In all three cases nothing has happened.
func (s *Server) settle(rt *Route, q *Request) error {
	if q.whole { // its body cannot be served twice
		return rt.Serve(q)
	}
	for {
		before := s.Store.Revision()
		err := rt.Serve(q)
		switch {
		case errors.Is(err, store.ErrKeyMoved), errors.Is(err, store.ErrAuthorityMoved):
			if q.Context().Err() == nil {
				continue
			}
			return Fail(http.StatusConflict, "the cluster's keys were being rotated until the request's time was up; try again")
		case errors.Is(err, store.ErrUnderWay):
			s.Store.AwaitChange(q.Context(), before, "operations")
			if !s.Store.Leading() {
				return store.ErrNotLeader
			}
			if q.Context().Err() == nil {
				continue
			}
			return Fail(http.StatusConflict,
				fmt.Sprintf("%s; it was waited for as long as this request may take: try again", err))
		}
		return err
	}
}
