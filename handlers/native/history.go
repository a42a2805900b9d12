package native

import (
	"net/http"

	"muster/handlers"
)

// history serves the last hour as recorded by the contacted member; it needs no leader.
func (s *service) history(q *handlers.Request) error {
	return q.Result(http.StatusOK, s.Cluster.History())
}
