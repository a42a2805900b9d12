package handlers

import "net/http"

// history shows what the member that was asked remembers of the last hour; it needs no leader.
func (s *Server) history(q *Request) error { return q.Result(http.StatusOK, s.History()) }
