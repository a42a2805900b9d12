package handlers

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
	"unicode"

	"muster/certs"
	"muster/store"
)

type enrollToken struct {
	ID        string   `json:"id"`
	Token     string   `json:"token,omitempty"`
	Name      string   `json:"name"`
	Scope     string   `json:"scope"`
	State     string   `json:"state"`
	Uses      int      `json:"uses"`
	MaxUses   int      `json:"maxUses"`
	CreatedBy string   `json:"createdBy"`
	CreatedAt string   `json:"createdAt"`
	ExpiresAt string   `json:"expiresAt"`
	Warnings  []string `json:"warnings,omitempty"`
}

func (s *Server) showEnrollToken(k *store.APIKey) enrollToken {
	t := enrollToken{ID: k.ID, Token: k.Text, Name: k.Name, Scope: store.EnrollNode, State: k.State(s.Now()), Uses: k.Uses, MaxUses: k.MaxUses,
		CreatedBy: k.OwnerName + " (" + k.OwnerID + ")", CreatedAt: k.CreatedAt.UTC().Format(TimeFormat)}
	if len(k.Scopes) == 1 && k.Scopes[0] == store.ScopeEnrollKibana {
		t.Scope = store.EnrollKibana
	}
	if k.ExpiresAt != nil {
		t.ExpiresAt = k.ExpiresAt.UTC().Format(TimeFormat)
	}
	return t
}

const (
	maxEnrollTTL  = 366 * 86400
	maxEnrollUses = 1_000_000
)

// notByKey refuses API keys: what an enrollment token may do once would make as many more of them as it likes.
func notByKey(q *Request) error {
	if q.Key != nil {
		return Fail(http.StatusForbidden, "Forbidden")
	}
	return nil
}

// createEnrollToken makes what the original has a tool for: a key for one enrollment, with where to use it and whom to
// trust there.
func (s *Server) createEnrollToken(q *Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	f := &Fields{Status: http.StatusBadRequest}
	if len(q.Content) > 0 {
		var err error
		if f, err = ParseFields(q.Content); err != nil {
			return err
		}
	}
	k := store.APIKey{Kind: store.KeyKindEnrollment, Name: f.Text("name", false, 0, 256), MaxUses: int(f.Integer("maxUses", false, 1, maxEnrollUses))}
	ttl, scope := f.Integer("ttlSeconds", false, 1, maxEnrollTTL), f.Text("scope", false, 0, 16)
	if f.Err != nil {
		return f.Err
	}
	if strings.ContainsFunc(k.Name, unicode.IsControl) {
		return Fail(http.StatusBadRequest, "name must not contain control characters")
	}
	privilege := ""
	switch scope {
	case "", store.EnrollNode:
		k.Scopes, privilege = []string{store.ScopeEnroll}, "node"
	case store.EnrollKibana:
		k.Scopes, privilege = []string{store.ScopeEnrollKibana}, "kibana"
	default:
		return Fail(http.StatusBadRequest, "scope must be node or kibana")
	}
	k.RoleDescriptors = []byte(`{"create_enrollment_token":{"cluster":["cluster:admin/xpack/security/enroll/` + privilege + `"]}}`)
	if k.MaxUses == 0 {
		k.MaxUses = 1
	}
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	q.OwnKey(&k, time.Duration(ttl)*time.Second)
	if k.Name == "" {
		k.Name = "enrollment_token_API_key_" + k.ID
	}
	members, err := s.Store.Members.Raft(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	addresses, err := enrollAddresses(members)
	if err != nil {
		return err
	}
	ca, err := s.presentedCA(q)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(ca)
	if k.Text, err = (certs.EnrollToken{Version: elasticVersion, Addresses: addresses, Fingerprint: hex.EncodeToString(sum[:]), Key: k.ID + ":" + k.Secret}).Encode(); err != nil {
		return err
	}
	if k, err = s.Store.APIKeys.Create(q.Context(), q.Actor, k); err != nil {
		return err
	}
	out := s.showEnrollToken(&k)
	out.State = "valid" // as it was when it was made, also when the request is a repetition
	if t, err := certs.ParseEnrollToken(k.Text); err == nil && nearOnly(t.Addresses) {
		out.Warnings = []string{"the token names loopback addresses only: it can be used on this machine alone"}
	}
	return q.Result(http.StatusCreated, out)
}

// presentedCA is the certificate, in DER, whose fingerprint a joining node looks for behind the leaf.
func (s *Server) presentedCA(q *Request) ([]byte, error) {
	if chain := s.Chain(); len(chain) > 1 {
		return chain[1], nil
	}
	ca, err := s.Store.Authorities.Issuing(q.Context(), store.AsLeader, certs.HTTP)
	if err != nil {
		return nil, err
	}
	return ca.Cert.Raw, nil
}

func (s *Server) listEnrollTokens(q *Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	keys, err := s.Store.APIKeys.List(q.Context(), q.Consistency(), store.KeyKindEnrollment)
	if err != nil {
		return err
	}
	list := make([]enrollToken, len(keys))
	for i := range keys {
		list[i] = s.showEnrollToken(&keys[i])
	}
	return q.Result(http.StatusOK, list)
}

// revokeEnrollToken takes back what was enrolled with the token too, unless keepEnrollments=true.
func (s *Server) revokeEnrollToken(q *Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	keep := q.URL.Query().Get("keepEnrollments")
	if keep != "" && keep != "true" && keep != "false" {
		return Fail(http.StatusBadRequest, "keepEnrollments must be true or false")
	}
	id := q.Vars()["id"]
	revoked, err := s.Store.APIKeys.Revoke(q.Context(), q.Actor, func(k *store.APIKey) bool { return k.ID == id && k.Kind == store.KeyKindEnrollment }, keep != "true")
	if err != nil {
		return err
	}
	if len(revoked.Now)+len(revoked.Before) == 0 {
		return Fail(http.StatusNotFound, "Enrollment token not found")
	}
	return q.Result(http.StatusOK, struct {
		Message     string `json:"message"`
		Enrollments int    `json:"enrollments"`
	}{"Enrollment token revoked", revoked.Enrollments})
}

type enrollment struct {
	ID              string `json:"id"`
	Kind            string `json:"kind"`
	State           string `json:"state"`
	EnrolledBy      string `json:"enrolledBy"`
	Remote          string `json:"remote"`
	TokenID         string `json:"tokenId,omitempty"`
	TransportSerial string `json:"transportSerial,omitempty"`
	HTTPCASerial    string `json:"httpCaSerial,omitempty"`
	ServiceTokenID  string `json:"serviceTokenId,omitempty"`
	EnrolledAt      string `json:"enrolledAt"`
	ExpiresAt       string `json:"expiresAt"`
	RevokedAt       string `json:"revokedAt,omitempty"`
}

func (s *Server) listEnrollments(q *Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	rows, err := s.Store.Enrollments.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	list := make([]enrollment, len(rows))
	for i := range rows {
		e := &rows[i]
		list[i] = enrollment{ID: e.ID, Kind: e.Kind, State: e.State(s.Now()), EnrolledBy: e.EnrolledBy, Remote: e.Remote, TokenID: e.KeyID, TransportSerial: e.TransportSerial,
			HTTPCASerial: e.HTTPCASerial, ServiceTokenID: e.ServiceTokenID, EnrolledAt: e.EnrolledAt.UTC().Format(TimeFormat), ExpiresAt: e.ExpiresAt.UTC().Format(TimeFormat)}
		if e.RevokedAt != nil {
			list[i].RevokedAt = e.RevokedAt.UTC().Format(TimeFormat)
		}
	}
	return q.Result(http.StatusOK, list)
}

func (s *Server) revokeEnrollment(q *Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	if err := s.Store.Enrollments.Revoke(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, Message{"Enrollment revoked"})
}
