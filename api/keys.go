package api

import "time"

// Generation is one generation of the cluster's data-encryption key.
type Generation struct {
	Generation uint64    `json:"generation"`
	State      string    `json:"state"`  // "active" for the newest, then "re-encrypting" and "retired"
	Reason     string    `json:"reason"` // why it was generated
	CreatedAt  time.Time `json:"createdAt"`
	Holders    int       `json:"holders"`   // members that can open it
	Total      int       `json:"total"`     // values that were to be re-encrypted when it became active
	Remaining  int       `json:"remaining"` // of those, not re-encrypted yet; for the active generation
}

// JoinKeys is the result of a rotation of the join keys.
type JoinKeys struct {
	KIDs       map[string]string `json:"kids"` // key id by purpose, "join-hmac" and "join-signing"
	GraceUntil time.Time         `json:"graceUntil"`

	// TokensEnded is how many join tokens the rotation superseded; they stay valid during the grace period only.
	TokensEnded int `json:"tokensEnded"`
}

// NodeToken is the identity of a node, a JSON Web Token (EdDSA).
type NodeToken struct {
	NodeJWT   string    `json:"nodeJwt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// SecretInfo describes a secret without its value.
type SecretInfo struct {
	Name       string    `json:"name"`
	Version    uint64    `json:"version"`    // rises by one with each PutSecret
	Generation uint64    `json:"generation"` // of the data-encryption key that seals it
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt"`
}

// SecretValue is a secret with its value.
type SecretValue struct {
	SecretInfo
	Value    string `json:"value"`
	Encoding string `json:"encoding,omitempty"` // "base64" when the value is not text
}
