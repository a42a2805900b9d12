package elastic

import (
	"encoding/base64"
	"errors"
	"net/http"

	"muster/handlers"
	"muster/store"
)

// enrollNodeResponse is the answer to an enrolling node (reference es_enroll, section 2): DER in standard Base64, in
// the order of the original.
type enrollNodeResponse struct {
	HTTPCAKey       []byte   `json:"http_ca_key"` // PKCS#8, not encrypted
	HTTPCACert      []byte   `json:"http_ca_cert"`
	TransportCACert []byte   `json:"transport_ca_cert"`
	TransportKey    []byte   `json:"transport_key"` // PKCS#8, not encrypted
	TransportCert   []byte   `json:"transport_cert"`
	NodesAddresses  []string `json:"nodes_addresses"` // of the cluster listeners, host:port
}

// enrollNode hands key material to a node of other software.
func (s *service) enrollNode(q *handlers.Request) error {
	m, err := s.Enroller.Node(q.Context(), enrolling(q), keyID(q))
	switch {
	case errors.Is(err, store.ErrNoIntermediate):
		return refuse(http.StatusInternalServerError, "illegal_state_exception",
			"Unable to enroll node. The operator's HTTP authority must not certify another one")
	case errors.Is(err, store.ErrRootReplaced):
		return refuse(http.StatusForbidden, "security_exception",
			"the HTTP authority whose key this request was answered with is not the cluster's any more; "+
				"enroll with another enrollment token")
	case err != nil:
		return notEnrolled(err)
	}
	writeJSON(q.W, http.StatusOK, enrollNodeResponse{
		HTTPCAKey:       m.HTTPCAKey,
		HTTPCACert:      m.HTTPCACert,
		TransportCACert: m.TransportCACert,
		TransportKey:    m.TransportKey,
		TransportCert:   m.TransportCert,
		NodesAddresses:  m.NodesAddresses,
	})
	return nil
}

// keyID is that of the API key that enrolls; empty when it is an API token.
func keyID(q *handlers.Request) string {
	if q.Key == nil {
		return ""
	}
	return q.Key.ID
}

// enrolling is the actor of an enrollment.
func enrolling(q *handlers.Request) store.Actor {
	if q.Key != nil {
		q.Actor.Name = "API key " + q.Key.Name
	}
	return q.Actor
}

// notEnrolled is why an enrollment failed. What its transaction finds out about the key is told as if it had been known
// before.
func notEnrolled(err error) error {
	var refusal *store.Refusal
	if errors.As(err, &refusal) && refusal.Code == store.Unauthorized {
		return notAuthenticated(unableToAuthenticate, "API key: "+refusal.Message)
	}
	return err
}

// enrollKibana gives a Kibana the HTTP CA and a service token (reference es_enroll, section 7).
func (s *service) enrollKibana(q *handlers.Request) error {
	m, err := s.Enroller.Kibana(q.Context(), enrolling(q), keyID(q))
	if err != nil {
		return notEnrolled(err)
	}
	type token struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	writeJSON(q.W, http.StatusOK, struct {
		Token  token  `json:"token"`
		HTTPCA string `json:"http_ca"`
	}{token{m.ServiceToken.Name, m.ServiceToken.Secret}, base64.StdEncoding.EncodeToString(m.HTTPCACert)})
	return nil
}
