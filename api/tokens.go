package api

import "time"

// APIToken is a credential of the API.
type APIToken struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	Token     string    `json:"token,omitempty"` // the secret: when it was just made, never again
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // zero: never
}

// JoinToken lets machines join.
type JoinToken struct {
	ID        string            `json:"id"`
	Token     string            `json:"token,omitempty"`  // the text: when it was just made, never again
	NodeID    uint64            `json:"nodeId,omitempty"` // 0: not bound to one
	Mode      string            `json:"mode,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Format    string            `json:"format"` // "muster" or "zlayer"
	BindCIDR  string            `json:"bindCidr,omitempty"`
	BindName  string            `json:"bindName,omitempty"`
	BindKey   string            `json:"bindKey,omitempty"`
	Hosts     []string          `json:"hosts,omitempty"`
	UsedBy    []TokenUse        `json:"usedBy,omitempty"`
	State     string            `json:"state"` // "valid", "used", "expired" or "revoked"
	Uses      int               `json:"uses"`
	MaxUses   int               `json:"maxUses"`
	CreatedBy string            `json:"createdBy"`
	CreatedAt time.Time         `json:"createdAt"`
	ExpiresAt time.Time         `json:"expiresAt"`
}

// TokenUse is one member that was admitted by a join token.
type TokenUse struct {
	NodeID uint64    `json:"nodeId"`
	UsedAt time.Time `json:"usedAt"`
	Remote string    `json:"remote"` // the address it came from
}

// EnrollToken lets other software enroll.
type EnrollToken struct {
	ID        string    `json:"id"`
	Token     string    `json:"token,omitempty"` // the text: when it was just made, never again
	Name      string    `json:"name"`
	Scope     string    `json:"scope"` // "node" or "kibana"
	State     string    `json:"state"` // "valid", "used", "expired" or "revoked"
	Uses      int       `json:"uses"`
	MaxUses   int       `json:"maxUses"`
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	Warnings  []string  `json:"warnings,omitempty"`
}

// Enrollment is the record of key material that was handed to other software, without that material.
type Enrollment struct {
	ID              string    `json:"id"`
	Kind            string    `json:"kind"`  // "node" or "kibana"
	State           string    `json:"state"` // "valid", "expired" or "revoked"
	EnrolledBy      string    `json:"enrolledBy"`
	Remote          string    `json:"remote"`                    // the address it came from
	TokenID         string    `json:"tokenId,omitempty"`         // of the enrollment token or API key
	TransportSerial string    `json:"transportSerial,omitempty"` // of its transport certificate, lower-case hex
	HTTPCASerial    string    `json:"httpCaSerial,omitempty"`    // of its intermediate HTTP CA, if it has one
	ServiceTokenID  string    `json:"serviceTokenId,omitempty"`  // the API token that a Kibana was given
	EnrolledAt      time.Time `json:"enrolledAt"`
	ExpiresAt       time.Time `json:"expiresAt"`
	RevokedAt       time.Time `json:"revokedAt,omitzero"`
}
