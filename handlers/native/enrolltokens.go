package native

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"time"

	"muster/api"
	"muster/certs"
	"muster/handlers"
	"muster/internal/addr"
	"muster/store"
)

func (s *service) showEnrollToken(k *store.APIKey) api.EnrollToken {
	t := api.EnrollToken{
		ID:        k.ID,
		Token:     k.Text,
		Name:      k.Name,
		Scope:     store.EnrollNode,
		State:     k.State(s.Now()),
		Uses:      k.Uses,
		MaxUses:   k.MaxUses,
		CreatedBy: k.OwnerName + " (" + k.OwnerID + ")",
		CreatedAt: api.Time(k.CreatedAt),
		ExpiresAt: api.TimeOf(k.ExpiresAt),
	}
	if len(k.Scopes) == 1 && k.Scopes[0] == store.ScopeEnrollKibana {
		t.Scope = store.EnrollKibana
	}
	return t
}

const (
	maxEnrollTTL  = 366 * 86400
	maxEnrollUses = 1_000_000
)

// notByKey rejects API keys as credentials: with an enrollment token one could otherwise create more of them.
func notByKey(q *handlers.Request) error {
	if q.Key != nil {
		return handlers.Fail(http.StatusForbidden, "Forbidden")
	}
	return nil
}

// createEnrollToken creates an enrollment token, which the original creates with a tool: a key for one enrollment with
// the addresses to use and the CA to trust.
func (s *service) createEnrollToken(q *handlers.Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	k, ttl, err := enrollTokenRequest(q.Content)
	if err != nil {
		return err
	}
	q.OwnKey(&k, ttl)
	if k.Name == "" {
		k.Name = "enrollment_token_API_key_" + k.ID
	}
	if k.Text, err = s.enrollTokenText(q, &k); err != nil {
		return err
	}
	if k, err = s.APIKeys.Create(q.Context(), q.Actor, k); err != nil {
		return err
	}
	out := s.showEnrollToken(&k)
	out.State = "valid" // its state at creation, also for a repeated request
	if t, err := certs.ParseEnrollToken(k.Text); err == nil && nearOnly(t.Addresses) {
		out.Warnings = []string{"the token has loopback addresses only: it can be used on this machine only"}
	}
	return q.Result(http.StatusCreated, out)
}

// enrollTokenRequest reads the body, which may be empty.
func enrollTokenRequest(body []byte) (k store.APIKey, ttl time.Duration, err error) {
	f := &handlers.Fields{Status: http.StatusBadRequest}
	if len(body) > 0 {
		if f, err = handlers.ParseFields(body); err != nil {
			return k, 0, err
		}
	}
	k = store.APIKey{
		Kind:    store.KeyKindEnrollment,
		Name:    f.Line("name", false, 0, 256),
		MaxUses: max(1, int(f.Integer("maxUses", false, 1, maxEnrollUses))),
	}
	seconds, scope := f.Integer("ttlSeconds", false, 1, maxEnrollTTL), f.Text("scope", false, 1, 16)
	if err := f.End(); err != nil {
		return k, 0, err
	}
	privilege := ""
	switch scope {
	case "", store.EnrollNode:
		k.Scopes, privilege = []string{store.ScopeEnroll}, "node"
	case store.EnrollKibana:
		k.Scopes, privilege = []string{store.ScopeEnrollKibana}, "kibana"
	default:
		return k, 0, handlers.Fail(http.StatusBadRequest, "scope must be node or kibana")
	}
	k.RoleDescriptors = []byte(`{"create_enrollment_token":{"cluster":["cluster:admin/xpack/security/enroll/` +
		privilege + `"]}}`)
	if seconds == 0 {
		seconds = handlers.DefaultTokenTTL
	}
	return k, time.Duration(seconds) * time.Second, nil
}

// enrollTokenText returns the token of a key: the addresses, the CA to trust, and the key.
func (s *service) enrollTokenText(q *handlers.Request, k *store.APIKey) (string, error) {
	members, err := s.Members.Raft(q.Context(), store.AsLeader)
	if err != nil {
		return "", err
	}
	addresses, err := enrollAddresses(members)
	if err != nil {
		return "", err
	}
	ca, err := s.presentedCA(q)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(ca)
	return certs.EnrollToken{
		Version:     certs.EnrollVersion,
		Addresses:   addresses,
		Fingerprint: hex.EncodeToString(sum[:]),
		Key:         k.ID + ":" + k.Secret,
	}.Encode()
}

// presentedCA returns the certificate, in DER, whose fingerprint a joining node looks for in the presented chain.
func (s *service) presentedCA(q *handlers.Request) ([]byte, error) {
	if chain := s.Chain(); len(chain) > 1 {
		return chain[1], nil
	}
	ca, err := s.Authorities.Issuing(q.Context(), store.AsLeader, certs.HTTP)
	if err != nil {
		return nil, err
	}
	return ca.Cert.Raw, nil
}

func (s *service) listEnrollTokens(q *handlers.Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	keys, err := s.APIKeys.List(q.Context(), q.Consistency(), store.KeyKindEnrollment)
	if err != nil {
		return err
	}
	list := make([]api.EnrollToken, len(keys))
	for i := range keys {
		list[i] = s.showEnrollToken(&keys[i])
	}
	return q.Result(http.StatusOK, list)
}

// revokeEnrollToken also revokes the enrollments made with the token, unless keepEnrollments=true.
func (s *service) revokeEnrollToken(q *handlers.Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	query := q.URL.Query()
	keep := query.Get("keepEnrollments")
	if query.Has("keepEnrollments") && keep != "true" && keep != "false" {
		return handlers.Fail(http.StatusBadRequest, "keepEnrollments must be true or false")
	}
	id := q.Vars()["id"]
	revoked, err := s.APIKeys.Revoke(q.Context(), q.Actor,
		func(k *store.APIKey) bool { return k.ID == id && k.Kind == store.KeyKindEnrollment }, keep != "true")
	if err != nil {
		return err
	}
	if len(revoked.Now)+len(revoked.Before) == 0 {
		return handlers.Fail(http.StatusNotFound, "Enrollment token not found")
	}
	return q.Result(http.StatusOK, struct {
		Message     string `json:"message"`
		Enrollments int    `json:"enrollments"`
	}{"Enrollment token revoked", revoked.Enrollments})
}

func (s *service) listEnrollments(q *handlers.Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	rows, err := s.Enrollments.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	list := make([]api.Enrollment, len(rows))
	for i := range rows {
		e := &rows[i]
		list[i] = api.Enrollment{
			ID:              e.ID,
			Kind:            e.Kind,
			State:           e.State(s.Now()),
			EnrolledBy:      e.EnrolledBy,
			Remote:          e.Remote,
			TokenID:         e.KeyID,
			TransportSerial: e.TransportSerial,
			HTTPCASerial:    e.HTTPCASerial,
			ServiceTokenID:  e.ServiceTokenID,
			EnrolledAt:      api.Time(e.EnrolledAt),
			ExpiresAt:       api.Time(e.ExpiresAt),
			RevokedAt:       api.TimeOf(e.RevokedAt),
		}
	}
	return q.Result(http.StatusOK, list)
}

func (s *service) revokeEnrollment(q *handlers.Request) error {
	if err := notByKey(q); err != nil {
		return err
	}
	if err := s.Enrollments.Revoke(q.Context(), q.Actor, q.Vars()["id"]); err != nil {
		return err
	}
	return q.Result(http.StatusOK, handlers.Message{Message: "Enrollment revoked"})
}

// enrollAddresses returns the API addresses for an enrollment token.
func enrollAddresses(members []store.Member) ([]string, error) {
	list, err := certs.FilterEnrollAddresses(store.JoinAddresses(members))
	if err == nil && len(list) == 0 {
		err = handlers.Fail(http.StatusConflict,
			"no member advertises an address that others can dial: start members with --advertise")
	}
	return list, err
}

// nearOnly reports whether all addresses are loopback addresses.
func nearOnly(list []string) bool {
	near := true
	for _, a := range list {
		host, _, err := net.SplitHostPort(a)
		near = near && err == nil && addr.Loopback(host)
	}
	return near
}
