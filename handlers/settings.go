package handlers

import (
	"encoding/json"
	"net/http"

	"muster/store"
)

// getSettings shows the value of every setting by its name.
func (s *Server) getSettings(q *request) error {
	values, err := s.Store.OptionValues(q.Context(), q.consistency())
	if err != nil {
		return err
	}
	return q.result(http.StatusOK, values)
}

// putSettings changes the settings that the body names, all or none; null stands for the default. Unlike elsewhere in the
// family an unknown name is refused, and names match exactly: a setting that was misspelt would silently not hold.
func (s *Server) putSettings(q *request) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(q.body, &values); err != nil || values == nil {
		return fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	for name := range values {
		scope, err := store.OptionScope(name)
		if err != nil {
			return err
		}
		if !q.token.Allows(scope) {
			return fail(http.StatusForbidden, "the setting "+name+" takes a token with the scope "+scope)
		}
	}
	values, err := s.Store.SetOptions(q.Context(), q.actor, values)
	if err != nil {
		return err
	}
	return q.result(http.StatusOK, values)
}
