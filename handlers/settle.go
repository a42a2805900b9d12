package handlers

import (
	"errors"
	"fmt"
	"net/http"

	"muster/store"
)

// settle runs a handler again, until the caller's deadline, while it fails for a transient reason: an equal request is
// in progress (store.ErrUnderWay), or a key or an authority changed while it was being prepared (store.ErrKeyMoved,
// store.ErrAuthorityMoved). In all three cases nothing has happened.
func (s *Server) settle(rt *Route, q *Request) error {
	if q.whole { // its body cannot be read twice
		return rt.Serve(q)
	}
	for {
		before := s.Replica.Revision()
		err := rt.Serve(q)
		switch {
		case errors.Is(err, store.ErrKeyMoved), errors.Is(err, store.ErrAuthorityMoved):
			if q.Context().Err() == nil {
				continue
			}
			return Fail(http.StatusConflict, "the cluster's keys were being rotated while this request waited; try again")
		case errors.Is(err, store.ErrUnderWay):
			s.Replica.AwaitChange(q.Context(), before, "operations")
			if !s.Replica.Leading() {
				return store.ErrNotLeader
			}
			if q.Context().Err() == nil {
				continue
			}
			return Fail(http.StatusConflict,
				fmt.Sprintf("%s; this request waited for as long as it could: try again", err))
		}
		return err
	}
}
