package native

import (
	"net/http"

	"muster/handlers"
)

// history shows what the member that was asked remembers of the last hour; it needs no leader.
func (s *service) history(q *handlers.Request) error {
	return q.Result(http.StatusOK, s.Cluster.History())
}
