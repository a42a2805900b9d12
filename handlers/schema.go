package handlers

import "net/http"

// getSchema says which schema the database has and which members keep it there.
func (s *Server) getSchema(q *request) error {
	if err := s.Store.Confirm(q.Context()); err != nil {
		return err
	}
	state, err := s.Schema(q.Context())
	if err != nil {
		return err
	}
	return q.result(http.StatusOK, state)
}

// migrateSchema applies the newest schema now. The leader does so by itself when every live member can work with it; this is
// for leaving out members that are gone.
func (s *Server) migrateSchema(q *request) error {
	var exclude []uint64
	if len(q.body) > 0 {
		f, err := parseFields(q.body)
		if err != nil {
			return err
		}
		f.get("exclude", false, "an array of node ids", &exclude)
		if f.err != nil {
			return f.err
		}
	}
	state, err := s.MigrateSchema(q.Context(), q.actor, exclude)
	if err != nil {
		return err
	}
	return q.result(http.StatusOK, state)
}
