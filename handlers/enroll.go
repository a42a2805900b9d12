package handlers

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"time"

	"muster/addr"
	"muster/certs"
	"muster/store"
)

// enrollNodeResponse is the answer to an enrolling node (reference es_enroll, section 2): DER in standard Base64, in the
// order of the original.
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
func (s *Server) enrollNode(q *Request) error {
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
	if err := s.makeTransport(ctx, &e, options.KeyType); err != nil {
		return err
	}
	e.Material.HTTPCACert = root.Cert.Raw
	// The key of an authority that the operator has brought is not the cluster's to give away.
	if options.HTTPCA == store.HTTPCAIntermediate || root.Operators {
		if root.Cert.MaxPathLenZero {
			return elasticRefusal(http.StatusInternalServerError, "illegal_state_exception", "Unable to enroll node. The operator's HTTP authority must not certify another one")
		}
		if err := s.makeIntermediate(ctx, &e, root.CA, options.KeyType, members, q.Actor.Remote); err != nil {
			return err
		}
	}
	return s.finishNode(q, e, root)
}

// finishNode commits an enrollment and answers with what it has made, or with what a request that this one repeats
// was answered. The key of the root is in no answer that is remembered: it is handed out again while it is the same one.
func (s *Server) finishNode(q *Request, e store.Enrolling, root store.Issuer) error {
	rootKey, err := certs.MarshalKey(root.Key)
	if err != nil {
		return err
	}
	if e, err = s.enroll(q, e); err != nil {
		return err
	}
	m := &e.Material
	out := enrollNodeResponse{HTTPCAKey: m.HTTPCAKey, HTTPCACert: m.HTTPCACert, TransportCACert: m.TransportCACert, TransportKey: m.TransportKey,
		TransportCert: m.TransportCert, NodesAddresses: m.NodesAddresses}
	if m.HTTPCAKey == nil {
		if root.Operators || !bytes.Equal(m.HTTPCACert, root.Cert.Raw) {
			return elasticRefusal(http.StatusForbidden, "security_exception",
				"the HTTP authority whose key this request was answered with is not the cluster's any more; enroll with another enrollment token")
		}
		out.HTTPCAKey = rootKey
	}
	elasticJSON(q.W, http.StatusOK, out)
	return nil
}

func (s *Server) newEnrolling(q *Request, kind string, lifetime time.Duration) store.Enrolling {
	e := store.Enrolling{Enrollment: store.Enrollment{ID: store.NewID(), Kind: kind, ExpiresAt: s.Now().Add(lifetime).Truncate(time.Second)}}
	if q.Key != nil {
		e.KeyID = q.Key.ID
	}
	return e
}

// enroll commits an enrollment. What the transaction finds out about the key is told as if it had been known before.
func (s *Server) enroll(q *Request, e store.Enrolling) (store.Enrolling, error) {
	if q.Key != nil {
		q.Actor.Name = "API key " + q.Key.Name
	}
	done, err := s.Store.Enrollments.Enroll(q.Context(), q.Actor, e)
	var refusal *store.Refusal
	if errors.As(err, &refusal) && refusal.Code == store.Unauthorized {
		return done, notAuthenticated("unable to authenticate with provided credentials and anonymous access is not allowed for this request", "API key: "+refusal.Message)
	}
	return done, err
}

func newKeyOf(kind string) (crypto.Signer, error) {
	if kind == store.KeyTypeRSA {
		return certs.NewRSAKey()
	}
	return certs.NewKey()
}

// newEnrolled makes a key and the record of the certificate that is to be signed for it.
func (s *Server) newEnrolled(e *store.Enrolling, kind certs.Kind, keyType string) (key crypto.Signer, der []byte, in certs.Enrolled, err error) {
	if key, err = newKeyOf(keyType); err != nil {
		return nil, nil, in, err
	}
	if der, err = certs.MarshalKey(key); err != nil {
		return nil, nil, in, err
	}
	record := store.NewCertificate(kind, s.Now())
	record.ExpiresAt = e.ExpiresAt
	e.Certificates = append(e.Certificates, record)
	serial, ok := new(big.Int).SetString(record.Serial, 16)
	if !ok {
		return nil, nil, in, fmt.Errorf("%q is not a serial number", record.Serial)
	}
	return key, der, certs.Enrolled{ClusterID: s.ClusterID, EnrollmentID: e.ID, Serial: serial, NotBefore: record.IssuedAt.Add(-time.Hour), NotAfter: record.ExpiresAt}, nil
}

func (s *Server) makeTransport(ctx context.Context, e *store.Enrolling, keyType string) error {
	ca, err := s.Store.Authorities.Issuing(ctx, store.AsLeader, certs.Transport)
	if err != nil {
		return err
	}
	key, der, in, err := s.newEnrolled(e, store.CertEnrolled, keyType)
	if err != nil {
		return err
	}
	m := &e.Material
	m.TransportKey, m.TransportCACert, e.TransportSerial = der, ca.Cert.Raw, in.Serial.Text(16)
	m.TransportCert, err = ca.SignEnrolled(key.Public(), in)
	return err
}

// makeIntermediate makes an authority for the machine that enrolls and for what the setting allows. It cannot sign for the
// members' own hosts, except for those on that machine.
func (s *Server) makeIntermediate(ctx context.Context, e *store.Enrolling, root certs.CA, keyType string, members []store.Member, remote string) error {
	allowed, err := s.Store.Settings.CertificateHosts(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	permitted := certs.Permitted{Names: allowed.Exact, Below: allowed.Below, Networks: allowed.Networks}
	if ip, err := netip.ParseAddr(remote); err == nil {
		ip = ip.WithZone("").Unmap()
		permitted.Networks = append(permitted.Networks, netip.PrefixFrom(ip, ip.BitLen()))
	}
	key, der, in, err := s.newEnrolled(e, store.CertIntermediate, keyType)
	if err != nil {
		return err
	}
	var except []string
	for i := range members {
		for _, host := range members[i].Hosts() {
			if host != remote {
				except = append(except, host)
			}
		}
	}
	m := &e.Material
	m.HTTPCAKey, e.HTTPCASerial = der, in.Serial.Text(16)
	m.HTTPCACert, err = root.SignIntermediate(key.Public(), in, permitted, except)
	return err
}

// kibanaTokenLifetime is how long the service token of a Kibana is good.
const kibanaTokenLifetime = 30 * 24 * time.Hour

// enrollKibana gives a Kibana the HTTP CA and a service token (reference es_enroll, section 7). The token is an API token
// without any scope: it shows who is calling and opens nothing of the cluster.
func (s *Server) enrollKibana(q *Request) error {
	root, err := s.Store.Authorities.Issuing(q.Context(), store.AsLeader, certs.HTTP)
	if err != nil {
		return err
	}
	e := s.newEnrolling(q, store.EnrollKibana, kibanaTokenLifetime)
	e.Material.HTTPCACert = root.Cert.Raw
	t := store.APIToken{ID: store.NewID(), Name: fmt.Sprintf("enroll-process-token-%d", s.Now().UnixMilli()), Scopes: []string{}, Secret: certs.NewSecret(), ExpiresAt: &e.ExpiresAt}
	t.SecretHash = certs.HashSecret(t.Secret)
	e.Material.ServiceToken = t
	if e, err = s.enroll(q, e); err != nil {
		return err
	}
	type token struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	elasticJSON(q.W, http.StatusOK, struct {
		Token  token  `json:"token"`
		HTTPCA string `json:"http_ca"`
	}{token{e.Material.ServiceToken.Name, e.Material.ServiceToken.Secret}, base64.StdEncoding.EncodeToString(e.Material.HTTPCACert)})
	return nil
}

// enrollAddresses are the API addresses that an enrollment token carries.
func enrollAddresses(members []store.Member) ([]string, error) {
	list, err := certs.FilterEnrollAddresses(joinAddresses(members))
	if err == nil && len(list) == 0 {
		err = Fail(http.StatusConflict, "no member advertises an address that others can dial: start them with --advertise")
	}
	return list, err
}

// nearOnly tells whether addresses mean the machine itself.
func nearOnly(list []string) bool {
	near := true
	for _, a := range list {
		host, _, err := net.SplitHostPort(a)
		near = near && err == nil && addr.Loopback(host)
	}
	return near
}
