package handlers

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"muster/certs"
	"muster/store"
)

type apiToken struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Scopes    []string `json:"scopes"`
	Token     string   `json:"token,omitempty"`
	CreatedBy string   `json:"createdBy"`
	CreatedAt string   `json:"createdAt"`
	ExpiresAt string   `json:"expiresAt,omitempty"`
}

func showAPIToken(t *store.APIToken) apiToken {
	out := apiToken{ID: t.ID, Name: t.Name, Scopes: t.Scopes, Token: t.Secret, CreatedBy: t.CreatedBy, CreatedAt: t.CreatedAt.UTC().Format(timeFormat)}
	if t.ExpiresAt != nil {
		out.ExpiresAt = t.ExpiresAt.UTC().Format(timeFormat)
	}
	return out
}

const maxTokenTTL = 10 * 366 * 24 * 3600 // seconds

func (s *Server) createAPIToken(q *request) error {
	f, err := parseFields(q.body)
	if err != nil {
		return err
	}
	t := store.APIToken{ID: store.NewID(), Name: f.text("name", true, 1, 64), Scopes: f.texts("scopes", true)}
	ttl := f.integer("ttlSeconds", false, 1, maxTokenTTL)
	if err := f.err; err != nil {
		return err
	}
	if strings.ContainsFunc(t.Name, unicode.IsControl) {
		return fail(http.StatusBadRequest, "name must not contain control characters")
	}
	if len(t.Scopes) == 0 {
		return fail(http.StatusBadRequest, "scopes must name at least one scope of "+strings.Join(store.Scopes, ", "))
	}
	for _, scope := range t.Scopes {
		if !slices.Contains(store.Scopes, scope) {
			return fail(http.StatusBadRequest, "scopes must be of "+strings.Join(store.Scopes, ", "))
		}
	}
	slices.Sort(t.Scopes)
	t.Scopes = slices.Compact(t.Scopes)
	if ttl > 0 {
		at := s.Now().Add(time.Duration(ttl) * time.Second)
		t.ExpiresAt = &at
	}
	t.ExpiresAt = q.noLonger(t.ExpiresAt)
	t.Secret = certs.NewSecret()
	t.SecretHash = certs.HashSecret(t.Secret)
	if t, err = s.Store.CreateAPIToken(q.Context(), q.actor, t); err != nil {
		return err
	}
	return q.result(http.StatusCreated, showAPIToken(&t))
}

func (s *Server) listAPITokens(q *request) error {
	tokens, err := s.Store.APITokens(q.Context(), q.consistency())
	if err != nil {
		return err
	}
	list := make([]apiToken, len(tokens))
	for i := range tokens {
		list[i] = showAPIToken(&tokens[i])
	}
	return q.result(http.StatusOK, list)
}

func (s *Server) deleteAPIToken(q *request) error {
	if err := s.Store.DeleteAPIToken(q.Context(), q.actor, q.vars()["id"]); err != nil {
		return err
	}
	return q.result(http.StatusOK, message{"API token revoked"})
}
