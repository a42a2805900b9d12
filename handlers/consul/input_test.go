package consul

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
)

// goodPeeringToken is one that all checks let pass, with a certificate made for it.
func goodPeeringToken(t *testing.T) PeeringToken {
	t.Helper()
	ca, err := certs.NewCA(certs.Transport, certs.NewUUID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return PeeringToken{
		CA:                  []string{string(certs.EncodeCert(ca.Cert.Raw))},
		ServerAddresses:     []string{"127.0.0.1:7000", "peer.example.org:7000"},
		ServerName:          certs.PeeringName("dc1", certs.NewUUID()),
		PeerID:              certs.NewUUID(),
		EstablishmentSecret: certs.NewUUID(),
		Remote:              remote{Datacenter: "dc1"},
	}
}

// Everything in a token that is sent, dialled or stored has a form and a size.
func TestPeeringTokensAreStrict(t *testing.T) {
	good := goodPeeringToken(t)
	parse := func(change func(*PeeringToken)) error {
		k := good
		k.ServerAddresses = append([]string{}, good.ServerAddresses...)
		change(&k)
		data, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsePeeringToken(base64.StdEncoding.EncodeToString(data))
		return err
	}
	block := func(kind, data string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(data)}))
	}
	for _, fine := range []string{good.CA[0], good.CA[0] + "\r\n\n", good.CA[0] + good.CA[0],
		strings.ReplaceAll(good.CA[0], "\n", "\r\n")} {
		if err := parse(func(k *PeeringToken) { k.CA = []string{fine} }); err != nil {
			t.Fatal(err)
		}
	}
	for field, x := range map[string]struct {
		set   func(*PeeringToken, string)
		rule  string
		wrong []string
	}{
		"ServerName": {func(k *PeeringToken, v string) { k.ServerName = v }, "server name",
			[]string{"", "a", "x\r\nHost: y", "GET / HTTP/1.1\r\n\r\n", "a b.c", "A.example",
				"127.0.0.1", "::1", "a..b", ".a.b", "a.b.", "-a.b", "a-.b", "a_b.c", "ä.b", "a\x00.b", "a.b\n", "*.example.org",
				strings.Repeat("a.", 130) + "b", strings.Repeat("a", 64) + ".b"}},
		"ServerAddresses": {func(k *PeeringToken, v string) { k.ServerAddresses[1] = v },
			"is not a valid peering server address", []string{"", "a", "a:0", "a b:1", "a\r\n:1",
				"0.0.0.0:7000", "[::]:7000", "10.0.0.256:7000", "169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80",
				"[fd00:ec2::254]:80", "100.100.100.200:80"}},
		"ManualServerAddresses": {func(k *PeeringToken, v string) { k.ManualServerAddresses = []string{v} },
			"is not a valid peering server address", []string{"", "a", "a:0",
				"user@host:80", "0.0.0.0:7000", "169.254.1.1:80", "224.0.0.1:80"}},
		"PeerID": {func(k *PeeringToken, v string) { k.PeerID = v }, "peer ID",
			[]string{"", "a b", "a\r\n", strings.Repeat("a", 65), "é"}},
		"EstablishmentSecret": {func(k *PeeringToken, v string) { k.EstablishmentSecret = v }, "establishment secret",
			[]string{"a b", strings.Repeat("a", 65), "\x00"}},
		"Datacenter": {func(k *PeeringToken, v string) { k.Remote.Datacenter = v }, "datacenter",
			[]string{"A", "a b", "a.b", strings.Repeat("a", 64), "\n"}},
		"CA": {func(k *PeeringToken, v string) { k.CA = []string{v} }, "CA",
			[]string{"", "x", strings.Repeat("x", maxCAText+1), good.CA[0] + strings.Repeat("\n", maxCAText),
				good.CA[0] + "x", good.CA[0] + block("PRIVATE KEY", "\x30\x00"), block("PRIVATE KEY", "\x30\x00") + good.CA[0],
				good.CA[0] + block("CERTIFICATE", "\x30\x00"),
				block("CERTIFICATE", ""), block("CERTIFICATE REQUEST", "\x30\x00"),
				block("CERTIFICATE", strings.Repeat("\x30\x80", 2000)), "\x00" + good.CA[0] + "\x00"}},
	} {
		for _, v := range x.wrong {
			err := parse(func(k *PeeringToken) { x.set(k, v) })
			if err == nil || !strings.Contains(err.Error(), x.rule) && !strings.Contains(err.Error(), "too large") ||
				len(err.Error()) > 600 {
				t.Errorf("%s %.80q: %v, want a sentence with %q", field, v, err, x.rule)
			}
		}
	}
	for what, change := range map[string]func(*PeeringToken){
		"addresses": func(k *PeeringToken) {
			k.ServerAddresses = strings.Fields(strings.Repeat("a:1 ", maxTokenAddresses+1))
		},
		"manual addresses": func(k *PeeringToken) {
			k.ManualServerAddresses = strings.Fields(strings.Repeat("a:1 ", maxTokenAddresses+1))
		},
		"CAs": func(k *PeeringToken) { k.CA = make([]string, maxTokenCAs+1) },
	} {
		if parse(change) == nil {
			t.Errorf("a token with too many %s is taken", what)
		}
	}
}

func TestExternalAddressesAreStrict(t *testing.T) {
	request := func(addresses ...string) error {
		body, err := json.Marshal(PeeringGenerateTokenRequest{PeerName: "p", ServerExternalAddresses: addresses})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = tokenRequest(&handlers.Request{Request: httptest.NewRequest("POST", "/v1/peering/token", nil),
			Content: body})
		return err
	}
	for _, a := range []string{"1.2.3.4", "2001:db8::1", "1.2.3.4:5", "[2001:db8::1]:5", "peer.example.org:7000",
		"127.0.0.1:7000"} {
		if err := request(a); err != nil {
			t.Errorf("%q: %v", a, err)
		}
	}
	for _, a := range []string{"", "x", "peer.example.org", "0.0.0.0", "::", "0.0.0.0:7000", "[::]:7000",
		"10.0.0.256:7000", "10.0.0.256", "169.254.169.254", "169.254.169.254:80",
		"fe80::1%eth0", "a\r\nb:80", "a b:80", "a:65536", "255.255.255.255:1", strings.Repeat("a", 300) + ":80"} {
		if err := request("1.2.3.4:5", a); err == nil ||
			!strings.Contains(err.Error(), "is not a valid peering server address") {
			t.Errorf("%q: %v", a, err)
		}
	}
}
