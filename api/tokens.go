package api

import "time"

// APIToken is a credential of the API.
type APIToken struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	Token     string    `json:"token,omitempty"` // the secret; only in the answer that creates it
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // zero: never
}

// JoinToken lets machines join.
type JoinToken struct {
	ID        string            `json:"id"`
	Token     string            `json:"token,omitempty"`  // the text; only in the answer that creates it
	NodeID    uint64            `json:"nodeId,omitempty"` // 0: any
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

// TokenUse is one use of a join token: the member that it admitted.
type TokenUse struct {
	NodeID uint64    `json:"nodeId"`
	UsedAt time.Time `json:"usedAt"`
	Remote string    `json:"remote"` // the address it came from
}

// EnrollToken lets other software enroll.
type EnrollToken struct {
	ID        string    `json:"id"`
	Token     string    `json:"token,omitempty"` // the text; only in the answer that creates it
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

// Enrollment is the record of key material issued to other software, without the material.
type Enrollment struct {
	ID              string    `json:"id"`
	Kind            string    `json:"kind"`  // "node" or "kibana"
	State           string    `json:"state"` // "valid", "expired" or "revoked"
	EnrolledBy      string    `json:"enrolledBy"`
	Remote          string    `json:"remote"`                    // the address it came from
	TokenID         string    `json:"tokenId,omitempty"`         // of the enrollment token or API key
	TransportSerial string    `json:"transportSerial,omitempty"` // of its transport certificate, lower-case hex
	HTTPCASerial    string    `json:"httpCaSerial,omitempty"`    // of its intermediate HTTP CA, if any
	ServiceTokenID  string    `json:"serviceTokenId,omitempty"`  // the API token issued to a Kibana
	EnrolledAt      time.Time `json:"enrolledAt"`
	ExpiresAt       time.Time `json:"expiresAt"`
	RevokedAt       time.Time `json:"revokedAt,omitzero"`
}
