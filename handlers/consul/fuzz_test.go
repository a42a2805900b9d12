package consul

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/handlerstest"
)

func FuzzParsePeeringToken(f *testing.F) {
	ca, err := certs.NewCA(certs.Transport, certs.NewUUID(), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(PeeringToken{
		CA:                  []string{string(certs.EncodeCert(ca.Cert.Raw))},
		ServerAddresses:     []string{"127.0.0.1:7000"},
		ServerName:          certs.PeeringName("dc1", certs.NewUUID()),
		PeerID:              certs.NewUUID(),
		EstablishmentSecret: certs.NewUUID(),
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), `{}`, `null`, `[]`, `{"CA":[""],"ServerAddresses":["a:1"]}`,
		`{"CA":null,"ServerName":"\r\n"}`} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(seed)))
	}
	f.Add("====")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parsePeeringToken(text)
		if err != nil {
			handlerstest.RefusedWell(t, err)
			return
		}
		if !certs.ValidPeeringName(token.ServerName) || len(token.ServerAddresses)+len(token.ManualServerAddresses) == 0 ||
			token.PeerID == "" {
			t.Fatalf("accepted %+v", token)
		}
	})
}

func FuzzPeeringBodies(f *testing.F) {
	for _, seed := range []string{`{"PeerName":"a","PeeringToken":"e30="}`,
		`{"PeerName":"a","Meta":{"a":"b"},"ServerExternalAddresses":["10.0.0.1:1"]}`, `{"PeerName":1}`,
		`null`, `{"PeerName":"a","TokenTTL":"1h"}`, `{"PeerName":"token"}`, `{"x":1}`, `{"Meta":{"":""}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q := &handlers.Request{Request: httptest.NewRequest("POST", "/v1/peering/token", http.NoBody), Content: body}
		in, _, err := tokenRequest(q)
		switch {
		case err != nil:
			handlerstest.RefusedWell(t, err)
		case !peerName.MatchString(in.PeerName) || len(in.ServerExternalAddresses) > maxExternalAddresses:
			t.Fatalf("accepted %+v", in)
		}
		out, _, err := establishRequest(q)
		switch {
		case err != nil:
			handlerstest.RefusedWell(t, err)
		case !peerName.MatchString(out.PeerName):
			t.Fatalf("accepted %+v", out)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{`Name == "a"`, `Meta.x != y and not (State matches "A.*")`, `((((((((((((`,
		"not not not Name", "Name matches `a{1000}`", `"" in Meta`, `Meta is empty`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("GET", "/v1/peerings", http.NoBody)
		r.URL.RawQuery = url.Values{"filter": {text}}.Encode()
		begin := time.Now()
		filter, err := peeringFilter(r)
		if err != nil {
			handlerstest.RefusedWell(t, err)
		} else if filter != nil {
			_, _ = filter.Evaluate(peering{Name: "a", Meta: map[string]string{"x": "y"}})
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("%v for %d bytes", took, len(text))
		}
	})
}

func FuzzCredential(f *testing.F) {
	f.Add("token=x", "x", "Bearer x")
	f.Add("token=anonymous", "", "bearer")
	f.Fuzz(func(t *testing.T, query, token, authorization string) {
		r := httptest.NewRequest("GET", "/v1/peerings", http.NoBody)
		r.URL.RawQuery = query
		r.Header.Set("X-Consul-Token", token)
		r.Header.Set("Authorization", authorization)
		if c, ok := peeringCredential(r); ok && c.Secret == "" {
			t.Fatalf("a credential without a secret: %+v", c)
		}
	})
}
