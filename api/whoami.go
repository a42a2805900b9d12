package api

import "time"

// Kinds of credentials.
const (
	CredentialToken  = "api-token"
	CredentialKey    = "api-key"
	CredentialEnroll = "enrollment-token"
	CredentialNode   = "node"   // a member's identity
	CredentialMember = "member" // the bearer that all members share
)

// Whoami is what the cluster knows of the credential that a request shows; the secret is not part of it.
type Whoami struct {
	Kind      string    `json:"kind"`
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`             // what it allows; management includes all others
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // zero: never
	NodeID    uint64    `json:"nodeId,omitempty"`   // of a member's identity
}
