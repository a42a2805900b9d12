package native

import (
	"errors"
	"net/http"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

const sqlRows = 10_000

// sql runs one read-only query on the mirror of the member that received the request.
func (s *service) sql(q *handlers.Request) error {
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return err
	}
	query := f.Text("query", true, 1, 100_000)
	if err := f.End(); err != nil {
		return err
	}
	a, err := s.Replica.Query(q.Context(), query, sqlRows)
	if errors.Is(err, store.ErrBusy) {
		return handlers.Later("too many queries at once; try again")
	}
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, api.SQLResult{Columns: a.Columns, Rows: a.Rows, Truncated: a.Truncated})
}
