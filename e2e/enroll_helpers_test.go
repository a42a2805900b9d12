package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"strings"
	"testing"

	"muster/certs"
	"muster/client"
)

const (
	enrollNode   = "/_security/enroll/node"
	enrollKibana = "/_security/enroll/kibana"
	apiKeyPath   = "/_security/api_key"
	enrollTokens = "/api/v1/cluster/enrollment-tokens"
	settingsPath = "/api/v1/cluster/settings"
)

// enrolled is the documented answer, decoded and parsed as a joining node does it.
type enrolled struct {
	HTTPCAKey       []byte   `json:"http_ca_key"`
	HTTPCACert      []byte   `json:"http_ca_cert"`
	TransportCACert []byte   `json:"transport_ca_cert"`
	TransportKey    []byte   `json:"transport_key"`
	TransportCert   []byte   `json:"transport_cert"`
	NodesAddresses  []string `json:"nodes_addresses"`

	httpCA, transportCA, transport *x509.Certificate
	httpKey, transportKey          any
}

// parseEnrolled checks the form of an answer: six fields in their order, one certificate or key in each.
func parseEnrolled(t *testing.T, c *cluster, a answer) (e enrolled) {
	t.Helper()
	if a.err != nil || a.status != 200 {
		t.Fatalf("enroll: %v", a)
	}
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	order := []string{"http_ca_key", "http_ca_cert", "transport_ca_cert", "transport_key", "transport_cert",
		"nodes_addresses"}
	for i, at := 0, -1; i < len(order); i++ {
		next := strings.Index(a.body, `"`+order[i]+`":`)
		if next <= at {
			t.Errorf("%s is missing or not in its place", order[i])
		}
		at = next
	}
	for what, key := range map[string][]byte{"an HTTP authority's key": e.HTTPCAKey, "a transport key": e.TransportKey} {
		c.secret(what+" in DER", string(key))
		c.secret(what, base64.StdEncoding.EncodeToString(key))
	}
	var err error
	for der, into := range map[*[]byte]**x509.Certificate{&e.HTTPCACert: &e.httpCA, &e.TransportCACert: &e.transportCA,
		&e.TransportCert: &e.transport} {
		if *into, err = x509.ParseCertificate(*der); err != nil {
			t.Fatal(err)
		}
	}
	if e.httpKey, err = x509.ParsePKCS8PrivateKey(e.HTTPCAKey); err != nil {
		t.Fatal(err)
	}
	if e.transportKey, err = x509.ParsePKCS8PrivateKey(e.TransportKey); err != nil {
		t.Fatal(err)
	}
	return e
}

// pair is the transport key and certificate as TLS uses them.
func (e *enrolled) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{e.TransportCert}, PrivateKey: e.transportKey}
}

// enrollToken makes an enrollment token and takes it apart.
func (u *user) enrollToken(t *testing.T, m *member, body string) (client.NewEnrollToken, certs.EnrollToken) {
	t.Helper()
	x := get[client.NewEnrollToken](t, u, m, "POST", enrollTokens, body)
	token, err := certs.ParseEnrollToken(x.Token)
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(token.Key, ":")
	u.cluster.secret("an enrollment token", x.Token)
	u.cluster.secret("the secret of an enrollment token", secret)
	return x, token
}

// apiKeyHeader is how the key of a token is shown.
func apiKeyHeader(key string) string {
	return "Authorization: ApiKey " + base64.StdEncoding.EncodeToString([]byte(key))
}

// createdKey is the answer of POST /_security/api_key.
type createdKey struct {
	ID, Name   string
	Expiration int64
	APIKey     string `json:"api_key"`
	Encoded    string
}

func (k createdKey) header() string { return "Authorization: ApiKey " + k.Encoded }

func (u *user) enrollments(t *testing.T, m *member) []client.Enrollment {
	t.Helper()
	return get[[]client.Enrollment](t, u, m, "GET", "/api/v1/cluster/enrollments", "")
}

func basicHeader(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func decode(t *testing.T, a answer, v any) {
	t.Helper()
	if a.err != nil || a.status != 200 {
		t.Fatalf("%v", a)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

var errNotYet = errors.New("not yet")

func (u *user) enrollTokens(t *testing.T, m *member) []client.EnrollToken {
	t.Helper()
	return get[[]client.EnrollToken](t, u, m, "GET", enrollTokens, "")
}

func (u *user) apiKey(t *testing.T, m *member, body string) (k createdKey) {
	t.Helper()
	a := u.do(m, "POST", apiKeyPath, body)
	if err := json.Unmarshal([]byte(a.body), &k); a.err != nil || a.status != 200 || err != nil {
		t.Fatalf("create an API key: %v", a)
	}
	u.cluster.secret("the secret of an API key", k.APIKey)
	return k
}
