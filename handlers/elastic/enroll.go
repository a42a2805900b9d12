package elastic

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"muster/certs"
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

// enrollNode hands key material to a node of other software. Its transport key and certificate are made for this call
// alone; all is prepared before the transaction that consumes the credential and records it.
func (s *service) enrollNode(q *handlers.Request) error {
	ctx := q.Context()
	options, err := s.Store.Settings.Enrollment(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	trust, err := s.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	root := trust.HTTP
	members, err := s.Store.Members.List(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	e := s.newEnrolling(q, store.EnrollNode, options.Lifetime)
	if e.Replay, err = s.Store.Answered(ctx, q.Actor); err != nil {
		return err
	}
	if e.Replay {
		return s.finishNode(q, e, root)
	}
	for i := range members {
		e.Material.NodesAddresses = append(e.Material.NodesAddresses, members[i].RaftAddress)
	}
	if err := e.MakeTransport(trust.Transport.CA, options.KeyType, s.ClusterID, s.Now()); err != nil {
		return err
	}
	e.Material.HTTPCACert = root.Cert.Raw
	// The key of an authority that the operator has brought is not the cluster's to give away.
	if options.HTTPCA == store.HTTPCAIntermediate || root.Operators {
		if err := s.makeIntermediate(q, &e, root, options.KeyType, members); err != nil {
			return err
		}
	}
	return s.finishNode(q, e, root)
}

// makeIntermediate makes an authority of its own for the machine that enrolls.
func (s *service) makeIntermediate(q *handlers.Request, e *store.Enrolling, root store.Issuer, keyType string,
	members []store.Member) error {
	if root.Cert.MaxPathLenZero {
		return refuse(http.StatusInternalServerError, "illegal_state_exception",
			"Unable to enroll node. The operator's HTTP authority must not certify another one")
	}
	allowed, err := s.Store.Settings.CertificateHosts(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	permitted := certs.Permitted{Names: allowed.Exact, Below: allowed.Below, Networks: allowed.Networks}
	return e.MakeIntermediate(root.CA, keyType, s.ClusterID, s.Now(), permitted, members, q.Actor.Remote)
}

// finishNode commits an enrollment and answers with what it has made, or with what a request that this one repeats was
// answered. The key of the root is in no answer that is remembered: it is handed out again while it is the same one.
func (s *service) finishNode(q *handlers.Request, e store.Enrolling, root store.Issuer) error {
	rootKey, err := certs.MarshalKey(root.Key)
	if err != nil {
		return err
	}
	if e, err = s.enroll(q, e); err != nil {
		return err
	}
	m := &e.Material
	out := enrollNodeResponse{
		HTTPCAKey:       m.HTTPCAKey,
		HTTPCACert:      m.HTTPCACert,
		TransportCACert: m.TransportCACert,
		TransportKey:    m.TransportKey,
		TransportCert:   m.TransportCert,
		NodesAddresses:  m.NodesAddresses,
	}
	if m.HTTPCAKey == nil {
		if root.Operators || !bytes.Equal(m.HTTPCACert, root.Cert.Raw) {
			return refuse(http.StatusForbidden, "security_exception",
				"the HTTP authority whose key this request was answered with is not the cluster's any more; "+
					"enroll with another enrollment token")
		}
		out.HTTPCAKey = rootKey
	}
	writeJSON(q.W, http.StatusOK, out)
	return nil
}

func (s *service) newEnrolling(q *handlers.Request, kind string, lifetime time.Duration) store.Enrolling {
	e := store.Enrolling{Enrollment: store.Enrollment{ID: store.NewID(), Kind: kind,
		ExpiresAt: s.Now().Add(lifetime).Truncate(time.Second)}}
	if q.Key != nil {
		e.KeyID = q.Key.ID
	}
	return e
}

// enroll commits an enrollment. What the transaction finds out about the key is told as if it had been known before.
func (s *service) enroll(q *handlers.Request, e store.Enrolling) (store.Enrolling, error) {
	if q.Key != nil {
		q.Actor.Name = "API key " + q.Key.Name
	}
	done, err := s.Store.Enrollments.Enroll(q.Context(), q.Actor, e)
	var refusal *store.Refusal
	if errors.As(err, &refusal) && refusal.Code == store.Unauthorized {
		return done, notAuthenticated(unableToAuthenticate, "API key: "+refusal.Message)
	}
	return done, err
}

// kibanaTokenLifetime is how long the service token of a Kibana is good.
const kibanaTokenLifetime = 30 * 24 * time.Hour

// enrollKibana gives a Kibana the HTTP CA and a service token (reference es_enroll, section 7). The token is an API
// token without any scope: it shows who is calling and opens nothing of the cluster.
func (s *service) enrollKibana(q *handlers.Request) error {
	root, err := s.Store.Authorities.Issuing(q.Context(), store.AsLeader, certs.HTTP)
	if err != nil {
		return err
	}
	e := s.newEnrolling(q, store.EnrollKibana, kibanaTokenLifetime)
	e.Material.HTTPCACert = root.Cert.Raw
	t := store.APIToken{
		ID:        store.NewID(),
		Name:      fmt.Sprintf("enroll-process-token-%d", s.Now().UnixMilli()),
		Scopes:    []string{},
		Secret:    certs.NewSecret(),
		ExpiresAt: &e.ExpiresAt,
	}
	t.SecretHash = certs.HashSecret(t.Secret)
	e.Material.ServiceToken = t
	if e, err = s.enroll(q, e); err != nil {
		return err
	}
	type token struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	writeJSON(q.W, http.StatusOK, struct {
		Token  token  `json:"token"`
		HTTPCA string `json:"http_ca"`
	}{token{e.Material.ServiceToken.Name,
		e.Material.ServiceToken.Secret}, base64.StdEncoding.EncodeToString(e.Material.HTTPCACert)})
	return nil
}
