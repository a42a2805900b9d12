package handlers

import (
	"errors"
	"net/http"

	"muster/store"
)

const sqlRows = 10_000

// sql runs one read-only query on the mirror of the member that is asked.
func (s *Server) sql(q *request) error {
	f, err := parseFields(q.body)
	if err != nil {
		return err
	}
	query := f.text("query", true, 1, 100_000)
	if f.err != nil {
		return f.err
	}
	a, err := s.Store.Query(q.Context(), query, sqlRows)
	if errors.Is(err, store.ErrBusy) {
		return later("too many queries at once; try again")
	}
	if err != nil {
		return err
	}
	return q.result(http.StatusOK, struct {
		Columns   []string `json:"columns"`
		Rows      [][]any  `json:"rows"`
		Truncated bool     `json:"truncated"`
	}{a.Columns, a.Rows, a.Truncated})
}
