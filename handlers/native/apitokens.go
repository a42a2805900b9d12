package native

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/store"
)

func showAPIToken(t *store.APIToken) api.APIToken {
	return api.APIToken{
		ID:        t.ID,
		Name:      t.Name,
		Scopes:    t.Scopes,
		Token:     t.Secret,
		CreatedBy: t.CreatedBy,
		CreatedAt: api.Time(t.CreatedAt),
		ExpiresAt: api.TimeOf(t.ExpiresAt),
	}
}

func (s *service) createAPIToken(q *handlers.Request) error {
	f, err := handlers.ParseFields(q.Content)
	if err != nil {
		return err
	}
	t := store.APIToken{ID: store.NewID(), Name: f.Line("name", true, 1, 64), Scopes: f.Texts("scopes", true)}
	ttl := f.Integer("ttlSeconds", false, 1, handlers.MaxTokenTTL)
	if err := f.End(); err != nil {
		return err
	}
	if len(t.Scopes) == 0 {
		return handlers.Fail(http.StatusBadRequest,
			"scopes must name at least one scope of "+strings.Join(store.Scopes, ", "))
	}
	for _, scope := range t.Scopes {
		if !slices.Contains(store.Scopes, scope) {
			return handlers.Fail(http.StatusBadRequest, "scopes must be of "+strings.Join(store.Scopes, ", "))
		}
	}
	slices.Sort(t.Scopes)
	t.Scopes = slices.Compact(t.Scopes)
	if ttl > 0 {
		at := s.Now().Add(time.Duration(ttl) * time.Second)
		t.ExpiresAt = &at
	}
	t.ExpiresAt = q.NoLonger(t.ExpiresAt)
	t.Secret = certs.NewSecret()
	t.SecretHash = certs.HashSecret(t.Secret)
	if t, err = s.APITokens.Create(q.Context(), q.Actor, t); err != nil {
		return err
	}
	return q.Result(http.StatusCreated, showAPIToken(&t))
}

func (s *service) listAPITokens(q *handlers.Request) error {
	tokens, err := s.APITokens.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	list := make([]api.APIToken, len(tokens))
	for i := range tokens {
		list[i] = showAPIToken(&tokens[i])
	}
	return q.Result(http.StatusOK, list)
}

func (s *service) deleteAPIToken(q *handlers.Request) error {
	if err := s.APITokens.Delete(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "API token revoked"})
}
