package native

import (
	"net/http"

	"muster/handlers"
	"muster/store"
)

// Kinds of credentials, as whoami names them.
const (
	credentialToken  = "api-token"
	credentialKey    = "api-key"
	credentialEnroll = "enrollment-token"
	credentialNode   = "node"   // a member's identity
	credentialMember = "member" // the bearer that all members share
)

// whoami is what the cluster knows of the credential that a request shows; the secret is not part of it.
type whoami struct {
	Kind      string   `json:"kind"`
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Scopes    []string `json:"scopes"` // what it allows; management includes all others
	ExpiresAt string   `json:"expiresAt,omitempty"`
	NodeID    uint64   `json:"nodeId,omitempty"` // of a member's identity
}

// whoami tells callers who they are; any credential that the cluster knows will do.
func (s *service) whoami(q *handlers.Request) error {
	t := q.Token
	me := whoami{Kind: credentialToken, ID: t.ID, Name: t.Name, Scopes: t.Scopes}
	switch {
	case q.Node != nil:
		me.Kind, me.NodeID = credentialNode, q.Node.NodeID
	case q.Key != nil && q.Key.Kind == store.KeyKindEnrollment:
		me.Kind = credentialEnroll
	case q.Key != nil:
		me.Kind = credentialKey
	case q.Header.Get("X-ZLayer-Internal-Token") != "" && t.ID == "internal":
		me.Kind = credentialMember
	}
	if me.Scopes == nil {
		me.Scopes = []string{}
	}
	if t.ExpiresAt != nil {
		me.ExpiresAt = t.ExpiresAt.UTC().Format(handlers.TimeFormat)
	}
	return q.Result(http.StatusOK, me)
}
