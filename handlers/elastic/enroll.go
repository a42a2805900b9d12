package elastic

import (
	"encoding/base64"
	"errors"
	"net/http"

	"muster/handlers"
	"muster/store"
)

// enrollNodeResponse is the answer to an enrolling node (reference es_enroll, section 2): DER in standard Base64,
// fields in wire order.
type enrollNodeResponse struct {
	HTTPCAKey       []byte   `json:"http_ca_key"` // PKCS#8, not encrypted
	HTTPCACert      []byte   `json:"http_ca_cert"`
	TransportCACert []byte   `json:"transport_ca_cert"`
	TransportKey    []byte   `json:"transport_key"` // PKCS#8, not encrypted
	TransportCert   []byte   `json:"transport_cert"`
	NodesAddresses  []string `json:"nodes_addresses"` // of the cluster listeners, host:port
}

// enrollNode issues key material to a node of other software.
func (s *service) enrollNode(q *handlers.Request) error {
	m, err := s.Enroller.Node(q.Context(), enrolling(q), keyID(q))
	switch {
	case errors.Is(err, store.ErrNoIntermediate):
		return refuse(http.StatusInternalServerError, "illegal_state_exception",
			"Unable to enroll node. The operator's HTTP authority must not certify another one")
	case errors.Is(err, store.ErrRootReplaced):
		return refuse(http.StatusForbidden, "security_exception",
			"the HTTP authority has been replaced since this request was first answered; "+
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

// keyID returns the id of the API key that enrolls; empty for an API token.
func keyID(q *handlers.Request) string {
	if q.Key == nil {
		return ""
	}
	return q.Key.ID
}

// enrolling returns the actor of an enrollment.
func enrolling(q *handlers.Request) store.Actor {
	if q.Key != nil {
		q.Actor.Name = "API key " + q.Key.Name
	}
	return q.Actor
}

// notEnrolled words a failed enrollment. A refusal of the key inside the transaction reads like a failed
// authentication.
func notEnrolled(err error) error {
	var refusal *store.Refusal
	if errors.As(err, &refusal) && refusal.Code == store.Unauthorized {
		return notAuthenticated(unableToAuthenticate, "API key: "+refusal.Message)
	}
	return err
}

// enrollKibana issues the HTTP CA certificate and a service token to a Kibana (reference es_enroll, section 7).
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
