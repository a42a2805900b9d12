package native

import (
	"encoding/json"
	"net/http"

	"muster/handlers"
	"muster/store"
)

// getSettings serves the values of all settings by name.
func (s *service) getSettings(q *handlers.Request) error {
	values, err := s.Settings.Values(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, values)
}

// putSettings changes the settings in the body, all or none; null means the default. Unlike elsewhere in the family,
// unknown names are rejected and names are case-sensitive: a misspelt setting would silently have no effect.
func (s *service) putSettings(q *handlers.Request) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(q.Content, &values); err != nil || values == nil {
		return handlers.Fail(http.StatusBadRequest, "the body must be a JSON object")
	}
	for name := range values {
		scope, err := store.SettingScope(name)
		if err != nil {
			return err
		}
		if !q.Token.Allows(scope) {
			return handlers.Lacks(scope,
				handlers.Fail(http.StatusForbidden, "the setting "+name+" needs a token with the scope "+scope))
		}
	}
	values, err := s.Settings.Set(q.Context(), q.Actor, values)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, values)
}
