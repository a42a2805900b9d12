package native

import (
	"net/http"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

// whoami describes the caller's credential; any valid one is accepted.
func (s *service) whoami(q *handlers.Request) error {
	t := q.Token
	me := api.Whoami{Kind: api.CredentialToken, ID: t.ID, Name: t.Name, Scopes: t.Scopes}
	switch {
	case q.Node != nil:
		me.Kind, me.NodeID = api.CredentialNode, q.Node.NodeID
	case q.Key != nil && q.Key.Kind == store.KeyKindEnrollment:
		me.Kind = api.CredentialEnroll
	case q.Key != nil:
		me.Kind = api.CredentialKey
	case q.Header.Get("X-ZLayer-Internal-Token") != "" && t.ID == "internal":
		me.Kind = api.CredentialMember
	}
	if me.Scopes == nil {
		me.Scopes = []string{}
	}
	me.ExpiresAt = api.TimeOf(t.ExpiresAt)
	return q.Result(http.StatusOK, me)
}
