package elastic_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/api"
	"muster/handlers/internal/sole"
	"muster/internal/enrolled"
)

// TestEnrollAnswer: the documented answer, from every member, and what it says of itself.
func TestEnrollAnswer(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	raft := []string{"127.0.0.1:7001", "127.0.0.1:7002"}
	root := rootCA(t, s)
	seen := map[string]bool{}
	for range 3 {
		a := u.Do("GET", enrollNode, "")
		e := parseEnrolled(t, s, a)
		if got := a.Header; got.Get("X-Elastic-Product") != "Elasticsearch" || got.Get("Cache-Control") != "no-store" ||
			got.Get("Content-Type") != "application/json" {
			t.Errorf("the headers are %v", got)
		}
		slices.Sort(e.NodesAddresses)
		if want := slices.Sorted(slices.Values(raft)); !slices.Equal(e.NodesAddresses, want) {
			t.Errorf("nodes_addresses is %v, want %v", e.NodesAddresses, want)
		}
		if !bytes.Equal(e.HTTPCACert, root.Raw) || !e.HTTPCA.IsCA || !enrolled.Fits(e.HTTPSigner, e.HTTPCA) {
			t.Errorf("the HTTP authority is not the cluster's, or the key not its key")
		}
		if !e.TransportCA.IsCA || e.Transport.IsCA || !enrolled.Fits(e.TransportSigner, e.Transport) ||
			e.Transport.CheckSignatureFrom(e.TransportCA) != nil {
			t.Errorf("the transport certificate is not one that the transport authority has signed for the key")
		}
		serial := e.Transport.SerialNumber.Text(16)
		if seen[serial] {
			t.Errorf("the transport certificate is not fresh")
		}
		seen[serial] = true
		i := slices.IndexFunc(enrollments(t, u), func(x api.Enrollment) bool { return x.TransportSerial == serial })
		if i < 0 {
			t.Errorf("the enrollment is not listed")
			continue
		}
		x := enrollments(t, u)[i]
		if x.Kind != "node" || x.State != "valid" || x.Remote != u.Remote ||
			!strings.HasPrefix(x.EnrolledBy, "admin (") || !x.ExpiresAt.Equal(e.Transport.NotAfter) {
			t.Errorf("%+v", x)
		}
		if want := fmt.Sprintf("spiffe://%s/enrolled/%s", s.ClusterID, x.ID); len(e.Transport.URIs) != 1 ||
			e.Transport.URIs[0].String() != want {
			t.Errorf("its identity is %v, want %s", e.Transport.URIs, want)
		}
	}
	a := u.Do("GET", enrollNode+"?filter_path=nodes_addresses", "",
		"Accept: application/vnd.elasticsearch+json;compatible-with=8")
	if want := fmt.Sprintf(`{"nodes_addresses":["%s","%s"]}`, raft[0], raft[1]); a.Status != 200 ||
		a.Body != want {
		t.Errorf("filtered: %v, want %s", a, want)
	}
	if kind := a.Header.Get("Content-Type"); kind != "application/vnd.elasticsearch+json;compatible-with=8" {
		t.Errorf("Content-Type is %s", kind)
	}
	a = u.Do("GET", enrollNode+"?pretty=true&human&error_trace=false&format=json&filter_path=nodes_*", "")
	if want := fmt.Sprintf("{\n  \"nodes_addresses\" : [\n    \"%s\",\n    \"%s\"\n  ]\n}\n", raft[0],
		raft[1]); a.Status != 200 || a.Body != want {
		t.Errorf("pretty: %v, want %s", a, want)
	}
}

// The certificate of an enrollment is in the books, under the enrollment that made it, and revoking that revokes it.
func TestEnrollmentRevoked(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	e := parseEnrolled(t, s, u.Do("GET", enrollNode, ""))
	serial := e.Transport.SerialNumber.Text(16)
	all := enrollments(t, u)
	last := all[len(all)-1]
	for range 2 { // twice is no error
		u.Do("DELETE", "/api/v1/cluster/enrollments/"+last.ID, "").Expect(t, "revoke an enrollment", 200,
			`{"result":{"message":"Enrollment revoked"}}`)
	}
	u.Do("DELETE", "/api/v1/cluster/enrollments/nothing", "").Expect(t, "revoke an unknown enrollment", 404,
		`{"error":"enrollment not found"}`)
	s.AwaitSQL("SELECT c.kind || ' ' || (c.revoked_at IS NOT NULL) || ' ' || e.id FROM certificates c JOIN enrollments "+
		"e ON "+
		"e.transport_serial = c.serial WHERE c.serial = '"+serial+"'",
		"enrolled 1 "+last.ID)
	s.AwaitSQL("SELECT group_concat(action || ' ' || detail, '; ') FROM audit WHERE object = 'enrollment/"+
		last.ID+"'",
		"enrollment.node certificate "+serial+", the key of the HTTP authority; enrollment.revoke certificate "+serial+
			", the key of the HTTP authority")
	// Whoever verifies certificates of enrollments finds it in the list of the transport authority, and only there.
	for path, signer := range map[string]*x509.Certificate{"/.well-known/transport.crl": e.TransportCA,
		"/.well-known/http.crl": e.HTTPCA} {
		a := s.Nobody().Do("GET", path, "")
		list, err := x509.ParseRevocationList([]byte(a.Body))
		if err != nil || a.Header.Get("Content-Type") != "application/pkix-crl" {
			t.Fatalf("%s: %v, %v", path, a, err)
		}
		if err := list.CheckSignatureFrom(signer); err != nil || time.Until(list.NextUpdate) < 23*time.Hour {
			t.Errorf("%s: %v, next update %v", path, err, list.NextUpdate)
		}
		found := slices.ContainsFunc(list.RevokedCertificateEntries, func(r x509.RevocationListEntry) bool {
			return r.SerialNumber.Cmp(e.Transport.SerialNumber) == 0
		})
		if found != (signer == e.TransportCA) {
			t.Errorf("%s has it: %v", path, found)
		}
	}
}

// TestEnrollIntermediate: the key of the root stays here, and what is handed out works under the root for other hosts.
func TestEnrollIntermediate(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	root := parseEnrolled(t, s, u.Do("GET", enrollNode, ""))
	set(t, u, `{"enrollment.http_ca":"intermediate","enrollment.lifetime":"48h","certificates.hosts":"es-1"}`)
	defer set(t, u, `{"enrollment.http_ca":null,"enrollment.lifetime":null,"certificates.hosts":null}`)
	e := parseEnrolled(t, s, u.Do("GET", enrollNode, ""))
	if bytes.Equal(e.HTTPCAKey, root.HTTPCAKey) || !e.HTTPCA.IsCA || !enrolled.Fits(e.HTTPSigner, e.HTTPCA) ||
		e.HTTPCA.CheckSignatureFrom(root.HTTPCA) != nil {
		t.Fatal("http_ca_cert is not an intermediate of its own")
	}
	for _, cert := range []*x509.Certificate{e.HTTPCA, e.Transport} {
		if d := time.Until(cert.NotAfter); d > 48*time.Hour || d < 47*time.Hour {
			t.Errorf("%s is valid for %v", cert.Subject.CommonName, d)
		}
	}
	list := enrollments(t, u)
	if last := list[len(list)-1]; last.HTTPCASerial != e.HTTPCA.SerialNumber.Text(16) ||
		last.TransportSerial != e.Transport.SerialNumber.Text(16) {
		t.Errorf("the list has %+v", last)
	}
	addr := enrolled.Serve(t, &tls.Config{Certificates: []tls.Certificate{e.HTTPLeaf(t, "127.0.0.1")}})
	if got, err := enrolled.Ask(trusting(t, s), addr); err != nil || got != "hello from 0" {
		t.Errorf("HTTPS with a leaf under the intermediate: %q, %v", got, err)
	}
}

// trusting is a client that knows nothing but the cluster's authority.
func trusting(t *testing.T, s *sole.Member) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(rootCA(t, s))
	return &tls.Config{RootCAs: pool}
}

// TestEnrollRSA: for software that takes nothing else.
func TestEnrollRSA(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	set(t, u, `{"enrollment.key_type":"rsa4096"}`)
	defer set(t, u, `{"enrollment.key_type":null}`)
	e := parseEnrolled(t, s, u.Do("GET", enrollNode, ""))
	if key, ok := e.TransportSigner.(*rsa.PrivateKey); !ok || key.N.BitLen() != 4096 || !enrolled.Fits(key, e.Transport) {
		t.Errorf("transport_key is a %T", e.TransportSigner)
	}
}

// TestEnrollKibana: a service token that shows who is calling and opens nothing, and that goes with its enrollment.
func TestEnrollKibana(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	x, token := enrollToken(t, u, `{"scope":"kibana"}`)
	golden(t, "kibana-token-for-a-node", nobody.Do("GET", enrollNode, "", apiKeyHeader(token.Key)), x.ID)
	var k struct {
		Token  struct{ Name, Value string }
		HTTPCA []byte `json:"http_ca"`
	}
	a := nobody.Do("GET", enrollKibana, "", apiKeyHeader(token.Key))
	decode(t, a, &k)
	s.Secret("a service token", k.Token.Value)
	root := rootCA(t, s)
	if !strings.HasPrefix(k.Token.Name, "enroll-process-token-") || string(k.HTTPCA) != string(root.Raw) ||
		!strings.HasPrefix(a.Body, `{"token":{"name":"enroll-process-token-`) {
		t.Errorf("the answer is %s", a.Body)
	}
	if got := why(nobody.Do("GET", enrollKibana, "", apiKeyHeader(token.Key))); got != "API key: api key ["+
		x.ID+"] has already been used" {
		t.Errorf("used again: %s", got)
	}
	service := s.As(k.Token.Value)
	for path, want := range map[string]int{"/": 200, "/_cluster/health": 403, enrollNode: 403, enrollKibana: 403,
		apiKeyPath: 403, "/api/v1/cluster/members": 403, "/v1/operator/raft/configuration": 403} {
		if a := service.Do("GET", path, ""); a.Status != want {
			t.Errorf("the service token for %s: %v, want %d", path, a, want)
		}
	}
	list := enrollments(t, u)
	last := list[len(list)-1]
	if last.Kind != "kibana" || last.TokenID != x.ID || last.ServiceTokenID == "" || last.TransportSerial != "" {
		t.Errorf("the list has %+v", last)
	}
	u.Do("DELETE", enrollTokens+"/"+x.ID, "").Expect(t, "revoke", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":1}}`)
	if a := service.Do("GET", "/", ""); a.Status != 401 {
		t.Errorf("the service token after that: %v", a)
	}
}
