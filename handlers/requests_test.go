package handlers_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"testing"

	"muster/certs"
	"muster/handlers/internal/sole"
)

// hostileRequests are certificate requests that ask for what is not theirs, in every way in which one can ask.
func hostileRequests(t *testing.T, cluster string) map[string]x509.CertificateRequest {
	t.Helper()
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	raw := func(oid asn1.ObjectIdentifier, value []byte) []pkix.Extension {
		return []pkix.Extension{{Id: oid, Critical: true, Value: value}}
	}
	san := asn1.ObjectIdentifier{2, 5, 29, 17}
	// a UPN
	other := []byte{0x30, 0x12, 0xa0, 0x10, 0x06, 0x0a, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x14, 2, 3, 0xa0, 2, 0x0c, 0}
	list := map[string]x509.CertificateRequest{
		"e-mail":                {EmailAddresses: []string{"root@bank.example"}},
		"another member":        {URIs: []*url.URL{certs.NodeURI(cluster, 1)}},
		"a member of elsewhere": {URIs: uri("spiffe://other/node/1")},
		"a workload":            {URIs: uri("spiffe://" + cluster + "/workload/x")},
		"an address": {IPAddresses: []net.IP{net.IPv4(192, 0, 2, 77), net.IPv4(169, 254, 169, 254),
			net.ParseIP("::1")}},
		"other name":    {ExtraExtensions: raw(san, other)},
		"no SAN at all": {ExtraExtensions: raw(san, []byte{0x30, 0})},
		"noise as SAN":  {ExtraExtensions: raw(san, []byte{0x30, 0x05, 0x82, 0x03, 0xff, 0xfe, 0})},
		"an authority":  {ExtraExtensions: raw(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 3, 1, 1, 0xff})},
		"code signing": {ExtraExtensions: raw(asn1.ObjectIdentifier{2, 5, 29, 37},
			[]byte{0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3})},
		"names for all": {ExtraExtensions: raw(asn1.ObjectIdentifier{2, 5, 29, 30}, []byte{0x30, 0})},
	}
	for _, name := range []string{"api.bank.example", "*.bank.example", "*", "xn--bcher-kva.example", "bank.example.",
		"BANK.example", "one", "localhost",
		"127.0.0.1", "[::1]", "0x7f.1", "node-1", cluster, "a..b", "-x", "a\x00.bank.example", " bank.example"} {
		list["name "+name] = x509.CertificateRequest{DNSNames: []string{name}, Subject: pkix.Name{CommonName: name}}
	}
	return list
}

// TestRequestsNameNobody: of a certificate request only its key counts, whatever it asks for, when a machine joins in
// either format and when it joins again.
func TestRequestsNameNobody(t *testing.T) {
	s := sole.New(t)
	port := 7300
	for _, format := range []string{"muster", "zlayer"} {
		for name, request := range hostileRequests(t, s.ClusterID) {
			w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, fmt.Sprintf(`{"format":%q}`, format))
			var made struct{ Result struct{ Token string } }
			if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			c := newCandidate(t, made.Result.Token, false)
			c.body["raft_port"], c.body["api_port"] = port, port+1
			port += 2
			for _, field := range []string{"http_csr", "transport_csr"} {
				key, err := certs.NewKey()
				if err != nil {
					t.Fatal(err)
				}
				der, err := x509.CreateCertificateRequest(rand.Reader, &request, key)
				if err != nil {
					t.Logf("%s cannot be asked for: %v", name, err)
					der = nil
				}
				c.body[field] = base64.StdEncoding.EncodeToString(der)
			}
			if c.body["http_csr"] == "" {
				continue
			}
			for range 2 {
				w := s.Call("POST", "/api/v1/cluster/join", "", c.with("advertise_addr", "192.0.2.1"), "Content-Type",
					"application/json")
				if w.Code == 422 { // it is malformed, and nobody is let in
					continue
				}
				var out struct {
					certificates
					RaftNodeID uint64 `json:"raft_node_id"`
				}
				if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
					t.Errorf("%s %s: %d %.200s", format, name, w.Code, w.Body)
					continue
				}
				for _, text := range []string{out.HTTPCert, out.TransportCert} {
					if hosts := namesOf(t, text); !slices.Equal(hosts, []string{"192.0.2.1"}) {
						t.Errorf("%s %s: a certificate for %q", format, name, hosts)
					}
					chain, err := certs.ParseCerts([]byte(text))
					if err != nil {
						t.Fatal(err)
					}
					leaf := chain[0]
					if id, err := certs.NodeID(leaf, s.ClusterID); err != nil || id != out.RaftNodeID || id == 1 {
						t.Errorf("%s %s: a certificate of node %d, %v; it is node %d", format, name, id, err, out.RaftNodeID)
					}
					if leaf.IsCA || len(leaf.EmailAddresses)+len(leaf.UnhandledCriticalExtensions) > 0 || len(leaf.ExtKeyUsage) != 2 ||
						len(leaf.UnknownExtKeyUsage) > 0 || leaf.PermittedDNSDomains != nil || leaf.MaxPathLen > 0 {
						t.Errorf("%s %s: the certificate may more than a member's", format, name)
					}
				}
			}
		}
	}
}
