package api

import "time"

// Kinds of credentials.
const (
	CredentialToken  = "api-token"
	CredentialKey    = "api-key"
	CredentialEnroll = "enrollment-token"
	CredentialNode   = "node"   // a member's identity
	CredentialMember = "member" // the bearer token that all members share
)

// Whoami describes the credential of a request, without its secret.
type Whoami struct {
	Kind      string    `json:"kind"`
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`             // management includes all others
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // zero: never
	NodeID    uint64    `json:"nodeId,omitempty"`   // of a member's identity
}
