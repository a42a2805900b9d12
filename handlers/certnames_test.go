package handlers_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/curve25519"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// namesOf lists the hosts that a certificate is for, without those that every HTTP certificate has.
func namesOf(t *testing.T, text string) (list []string) {
	t.Helper()
	chain, err := certs.ParseCerts([]byte(text))
	if err != nil {
		t.Fatalf("%v: %.80s", err, text)
	}
	for _, ip := range chain[0].IPAddresses {
		list = append(list, ip.String())
	}
	list = append(list, chain[0].DNSNames...)
	return slices.DeleteFunc(list, func(h string) bool {
		return h == "localhost" || h == "127.0.0.1" || h == "::1" || strings.Contains(h, ".peering.")
	})
}

// candidate is a machine that wants to join.
type candidate struct {
	body map[string]any
}

func newCandidate(t *testing.T, token string, withCSR bool) candidate {
	t.Helper()
	private := make([]byte, 32)
	copy(private, certs.NewSecret())
	public, err := curve25519.X25519(private, curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make([]int, 32)
	for i, b := range public {
		numbers[i] = int(b)
	}
	c := candidate{map[string]any{"token": token, "advertise_addr": "127.0.0.1", "overlay_port": 1, "raft_port": 7300,
		"api_port":      5300,
		"wg_public_key": "", "secrets_pubkey": numbers}}
	if withCSR {
		for _, name := range []string{"http_csr", "transport_csr"} {
			key, err := certs.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			csr, err := certs.NewCSR(key, "x")
			if err != nil {
				t.Fatal(err)
			}
			c.body[name] = base64.StdEncoding.EncodeToString(csr)
		}
	}
	return c
}

// with is the body of its request with other fields.
func (c candidate) with(fields ...string) string {
	body := maps.Clone(c.body)
	for i := 0; i+1 < len(fields); i += 2 {
		body[fields[i]] = fields[i+1]
	}
	return string(handlers.MustJSON(body))
}

// certificates are the leaves in the answer to a join, PEM.
type certificates struct {
	HTTPCert      string `json:"http_cert"`
	TransportCert string `json:"transport_cert"`
}

// TestNamesInCertificates walks the ways to certificates over the API: the join in both formats, by HTTP alone, once
// more, and repeated. Requests come from 192.0.2.1.
func TestNamesInCertificates(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"muster", "zlayer"} {
		t.Run(format, func(t *testing.T) {
			s := sole.New(t)
			token := func(fields string) string {
				w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin,
					fmt.Sprintf(`{"format":%q,"maxUses":9%s}`, format, fields))
				var made struct{ Result struct{ Token string } }
				if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != 201 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				return made.Result.Token
			}
			join := func(body string, headers ...string) (int, string, certificates) {
				w := s.Call("POST", "/api/v1/cluster/join", "", body, append(headers, "Content-Type", "application/json")...)
				var out certificates
				_ = json.Unmarshal(w.Body.Bytes(), &out)
				return w.Code, w.Body.String(), out
			}
			plain := token("")
			for _, x := range []struct{ field, value, host string }{
				{"api_address", "api.bank.example:5000", "api.bank.example"},
				{"raft_address", "api.bank.example:7000", "api.bank.example"},
				{"advertise_addr", "api.bank.example", "api.bank.example"}, {"api_address", "192.0.2.2:5000", "192.0.2.2"},
				{"raft_address", "[2001:db8::2]:7000", "2001:db8::2"}, {"advertise_addr", "192.0.2.2", "192.0.2.2"},
			} {
				before := s.Store.Revision()
				code, text, _ := join(newCandidate(t, plain, true).with(x.field, x.value))
				if code != 403 || !strings.Contains(text, x.host) || !strings.Contains(text, "--host") ||
					!strings.Contains(text, "certificates.hosts") {
					t.Errorf("%s %s: %d %s", x.field, x.value, code, text)
				}
				if s.Store.Revision() != before {
					t.Errorf("%s %s: the refusal has changed something", x.field, x.value)
				}
				code, text, _ = join(newCandidate(t, plain, false).with(x.field, x.value))
				if name := strings.Contains(x.host, "bank"); name != (code == 403) || !name && code != 200 {
					t.Errorf("by HTTP alone, %s %s: %d %s", x.field, x.value, code, text)
				}
			}
			machine := newCandidate(t, plain, true)
			code, text, out := join(machine.with("advertise_addr", "192.0.2.1"))
			if code != 200 || !slices.Equal(namesOf(t, out.HTTPCert), []string{"192.0.2.1"}) ||
				!slices.Equal(namesOf(t, out.TransportCert), []string{"192.0.2.1"}) {
				t.Errorf("from its own address: %d %.300s", code, text)
			}
			if code, text, _ = join(machine.with("advertise_addr", "192.0.2.1", "api_address",
				"api.bank.example:1")); code != 403 {
				t.Errorf("once more, with a name: %d %.300s", code, text)
			}
			if code, _, out = join(machine.with("advertise_addr", "192.0.2.1")); code != 200 ||
				!slices.Equal(namesOf(t, out.HTTPCert), []string{"192.0.2.1"}) {
				t.Errorf("once more: %d %q", code, out.HTTPCert)
			}
			named := newCandidate(t, token(`,"hosts":["db1.example","*.apps.example","10.1.0.0/16"]`), true)
			code, text, out = join(named.with("advertise_addr", "10.1.2.3", "api_address", "DB1.example:5000", "raft_address",
				"a.apps.example:7000"))
			if code != 200 || !slices.Equal(namesOf(t, out.HTTPCert), []string{"10.1.2.3", "db1.example", "a.apps.example"}) {
				t.Errorf("as its token says: %d %.300s", code, text)
			}
			other := newCandidate(t, token(`,"hosts":["*.example"]`), true)
			if code, text, _ = join(other.with("advertise_addr", "192.0.2.1", "raft_address", "192.0.2.1:7301", "api_address",
				"db1.example:5001")); code != 403 || !strings.Contains(text, "node ") {
				t.Errorf("another member's name: %d %.300s", code, text)
			}
			s.Option(store.SettingCertificateHosts, `"set.example"`)
			later := newCandidate(t, plain, true).with("advertise_addr", "192.0.2.1", "raft_port", "x")
			later = strings.Replace(later, `"raft_port":"x"`, `"raft_port":7400`, 1)
			later = strings.Replace(later, `"advertise_addr"`, `"api_address":"set.example:5000","advertise_addr"`, 1)
			if code, text, out = join(later, "Idempotency-Key", "k"); code != 200 ||
				!slices.Contains(namesOf(t, out.HTTPCert), "set.example") {
				t.Errorf("as the setting says: %d %.300s", code, text)
			}
			s.Option(store.SettingCertificateHosts, "null")
			if code, text, out = join(later, "Idempotency-Key", "k"); code == 200 &&
				slices.Contains(namesOf(t, out.HTTPCert), "set.example") {
				t.Errorf("repeated when the setting says so no more: %d %.300s", code, text)
			}
			if list := s.Call("GET", "/api/v1/cluster/members", s.Admin, "").Body.String(); strings.Contains(list, "bank") {
				t.Error("the members list has it:", list)
			}
			if list := s.Call("GET", "/api/v1/cluster/join-tokens", s.Admin, "").Body.String(); !strings.Contains(list,
				`"hosts":["db1.example","*.apps.example","10.1.0.0/16"]`) {
				t.Error("the tokens are listed without their hosts:", list)
			}
		})
	}
}

// TestHostsOfTokens: what is no host is refused with the field and the rule.
func TestHostsOfTokens(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, bad := range []string{`["*"]`, `[""]`, `["a b"]`, `["10.0.0.1/8"]`, `["a:1"]`, `["0.0.0.0"]`, `"a"`, `[1]`,
		`{}`} {
		if w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{"hosts":`+bad+`}`); w.Code != 400 ||
			!strings.Contains(w.Body.String(), "hosts must be") {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
	for _, bad := range []string{`""`, `"*"`, `"a,,b"`, `["a"]`, `1`} {
		if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, `{"certificates.hosts":`+bad+`}`); w.Code != 400 ||
			!strings.Contains(w.Body.String(), "certificates.hosts must be") {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
	if w := s.Call("PUT", "/api/v1/cluster/settings", s.Token(store.ScopeClusterManage),
		`{"certificates.hosts":"a"}`); w.Code != 403 {
		t.Errorf("with cluster:manage: %d %s", w.Code, w.Body)
	}
}

// TestEnrolledIntermediate: the authority that enrolling software gets is for its own machine and for what the setting
// allows.
func TestEnrolledIntermediate(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	s.Option(store.SettingEnrollmentHTTPCA, `"intermediate"`)
	get := func() *x509.Certificate {
		w := s.Call("GET", "/_security/enroll/node", "", "", "Authorization", s.EnrollKey(`{}`))
		var out struct {
			HTTPCACert []byte `json:"http_ca_cert"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		cert, err := x509.ParseCertificate(out.HTTPCACert)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	c := get()
	if got := fmt.Sprint(c.PermittedDNSDomains, c.PermittedIPRanges,
		c.PermittedDNSDomainsCritical); got != "[localhost] [127.0.0.0/8 ::1/128 192.0.2.1/32] true" {
		t.Error(got)
	}
	s.Option(store.SettingCertificateHosts, `"es.example.org,*.apps.example.org,10.0.0.0/8"`)
	c = get()
	if got := fmt.Sprint(c.PermittedDNSDomains,
		c.PermittedIPRanges); got != "[localhost es.example.org .apps.example.org] [127.0.0.0/8 ::1/128 10.0.0.0/8 "+
		"192.0.2.1/32]" {
		t.Error(got)
	}
}
