package handlers

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"muster/certs"
	"muster/store"
)

// The fuzz targets of this package are the decoders that meet the bytes of callers. None panics, each is done in a moment,
// and what is refused is refused with a text and a status of its own.

// refusedWell fails unless an error is one that a caller may see.
func refusedWell(t *testing.T, err error) {
	t.Helper()
	var known *Error
	var own *elasticError
	switch {
	case errors.As(err, &known) && known.Status >= 400 && known.Status < 500 && known.Text != "":
	case errors.As(err, &own) && own.Status >= 400 && own.Status < 500:
	default:
		t.Fatalf("no refusal: %v", err)
	}
}

func FuzzParsePeeringToken(f *testing.F) {
	ca, err := certs.NewCA(certs.Transport, certs.NewUUID(), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(PeeringToken{CA: []string{string(certs.EncodeCert(ca.Cert.Raw))}, ServerAddresses: []string{"127.0.0.1:7000"},
		ServerName: certs.PeeringName("dc1", certs.NewUUID()), PeerID: certs.NewUUID(), EstablishmentSecret: certs.NewUUID()})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), `{}`, `null`, `[]`, `{"CA":[""],"ServerAddresses":["a:1"]}`, `{"CA":null,"ServerName":"\r\n"}`} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(seed)))
	}
	f.Add("====")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parsePeeringToken(text)
		if err != nil {
			refusedWell(t, err)
			return
		}
		if !certs.ValidPeeringName(token.ServerName) || len(token.ServerAddresses)+len(token.ManualServerAddresses) == 0 || token.PeerID == "" {
			t.Fatalf("accepted %+v", token)
		}
	})
}

func FuzzPeeringBodies(f *testing.F) {
	for _, seed := range []string{`{"PeerName":"a","PeeringToken":"e30="}`, `{"PeerName":"a","Meta":{"a":"b"},"ServerExternalAddresses":["10.0.0.1:1"]}`, `{"PeerName":1}`,
		`null`, `{"PeerName":"a","TokenTTL":"1h"}`, `{"PeerName":"token"}`, `{"x":1}`, `{"Meta":{"":""}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q := &Request{Request: httptest.NewRequest("POST", "/v1/peering/token", http.NoBody), Content: body}
		in, _, err := tokenRequest(q)
		switch {
		case err != nil:
			refusedWell(t, err)
		case !peerName.MatchString(in.PeerName) || len(in.ServerExternalAddresses) > maxExternalAddresses:
			t.Fatalf("accepted %+v", in)
		}
		out, _, err := establishRequest(q)
		switch {
		case err != nil:
			refusedWell(t, err)
		case !peerName.MatchString(out.PeerName):
			t.Fatalf("accepted %+v", out)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{`Name == "a"`, `Meta.x != y and not (State matches "A.*")`, `((((((((((((`, "not not not Name", "Name matches `a{1000}`", `"" in Meta`, `Meta is empty`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("GET", "/v1/peerings", http.NoBody)
		r.URL.RawQuery = url.Values{"filter": {text}}.Encode()
		begin := time.Now()
		filter, err := peeringFilter(r)
		if err != nil {
			refusedWell(t, err)
		} else if filter != nil {
			_, _ = filter.Evaluate(peering{Name: "a", Meta: map[string]string{"x": "y"}})
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("%v for %d bytes", took, len(text))
		}
	})
}

func FuzzFilterPath(f *testing.F) {
	const answer = `{"nodes":{"a":{"http":{"bound":["1:1","2:2"]},"x":null}},"list":[{"k":1},{"v":2}],"n":1.0}`
	for _, seed := range []string{"nodes.*.http", "**.n,-list", "-", ",", "a.**.**.b", "[", "*a*a*a*.b", "**", "-**", "nodes.a.", "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		filter, err := parseFilterPath(list)
		if err != nil {
			refusedWell(t, err)
			return
		}
		if len(filter.keep)+len(filter.drop) > maxPaths {
			t.Fatalf("%d paths", len(filter.keep)+len(filter.drop))
		}
		rec := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", http.NoBody)
		r.URL.RawQuery = url.Values{"filter_path": {list}}.Encode()
		w := newElasticWriter(rec, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(answer))
		w.Finish()
		if !json.Valid(rec.Body.Bytes()) || rec.Body.Len() > len(answer) {
			t.Fatalf("%q makes %s", list, rec.Body)
		}
	})
}

func FuzzEventQuery(f *testing.F) {
	f.Add("type=member.joined&revision=1", "1.2")
	f.Add("type=,&type=", "")
	f.Add("revision=-1", "18446744073709551615.1")
	f.Fuzz(func(t *testing.T, query, last string) {
		r := httptest.NewRequest("GET", "/api/v1/events", http.NoBody)
		r.URL.RawQuery = query
		r.Header.Set("Last-Event-ID", last)
		e, err := parseEventQuery(r)
		if err != nil {
			refusedWell(t, err)
		} else if len(e.types) > len(store.EventTypes) {
			t.Fatalf("%d types", len(e.types))
		}
	})
}

func FuzzAuditFilter(f *testing.F) {
	f.Add("since=2030-01-02T15:04:05Z&until=x&actor=a&limit=10&order=desc&after=1.2")
	f.Add("limit=-1")
	f.Add("after=.&limit=99999999999999999999")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		filter, err := parseAuditFilter(values)
		if err != nil {
			refusedWell(t, err)
		} else if filter.Limit < 1 || filter.Limit > maxAuditLimit || len(filter.Actor)+len(filter.Action)+len(filter.Object) > 3*maxAuditText {
			t.Fatalf("accepted %+v", filter)
		}
	})
}

func FuzzParseJoin(f *testing.F) {
	f.Add("application/json", []byte(`{"token":"x","advertise_addr":"127.0.0.1","overlay_port":1,"raft_port":2,"wg_public_key":"k"}`))
	f.Add("application/json; charset=utf-8", []byte(`{"token":"x","advertise_addr":"a","overlay_port":0,"raft_port":1,"wg_public_key":"","labels":{"a":"b"},"gpus":[{"vendor":"x"}],"secrets_pubkey":[1]}`))
	f.Add("text/plain", []byte(`{}`))
	f.Add("application/x+json", []byte(`{"http_csr":"AAAA","cpu_total":1e300,"services":["a"]}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest("POST", "/api/v1/cluster/join", http.NoBody)
		r.Header.Set("Content-Type", kind)
		j, err := parseJoin(r, body)
		if err != nil {
			refusedWell(t, err)
			return
		}
		m := &j.member
		if m.AdvertiseAddr == "" || m.RaftAddress == "" || m.APIAddress == "" || len(m.Labels) > maxLabels || !json.Valid(m.Resources) {
			t.Fatalf("accepted %+v", m)
		}
	})
}

func FuzzCredential(f *testing.F) {
	for _, seed := range []string{"Bearer x", "Basic YTpi", "ApiKey YTpi", "bearer", "Basic ====", "apikey " + strings.Repeat("A", 100), " \t"} {
		f.Add("/api/v1/status", "", seed, "", "")
		f.Add("/v1/peerings", "token="+seed, seed, seed, "")
	}
	f.Fuzz(func(t *testing.T, path, query, authorization, nomadToken, consulToken string) {
		r := httptest.NewRequest("GET", "/", http.NoBody)
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Nomad-Token", nomadToken)
		r.Header.Set("X-Consul-Token", consulToken)
		for _, family := range []*Family{Enveloped("ella"), {Credential: peeringCredential}} {
			if c, ok := family.credential(r); ok && c.Secret == "" {
				t.Fatalf("a credential without a secret: %+v", c)
			}
		}
		_ = malformedKey(authorization)
	})
}

func FuzzForwarded(f *testing.F) {
	f.Add("192.0.2.1:1", "1s", "1", "10", "1s")
	f.Add("[fe80::1%25eth0]:1", "-1s", "x", "-1", "x")
	f.Add("", "999999h", "18446744073709551616", "18446744073709551615", "999999h")
	f.Fuzz(func(t *testing.T, remote, left, asked, index, wait string) {
		r := httptest.NewRequest("GET", "/v1/peerings", http.NoBody)
		r.URL.RawQuery = url.Values{"index": {index}, "wait": {wait}}.Encode()
		r.Header.Set(headerRemote, remote)
		r.Header.Set(headerWait, left)
		r.Header.Set(headerAsked, asked)
		for _, o := range []origin{{}, {forwarded: true}} {
			if ip := addressOf(r, o); ip.IsValid() && ip.Zone() != "" {
				t.Fatalf("%q is counted as %v", remote, ip)
			}
			b := parseBlocking(&Route{Blocks: true}, o, r)
			if waits := b.remaining(); waits < 0 || waits > maxWait+maxWait/8 {
				t.Fatalf("it waits for %v", waits)
			}
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"A":"x","n":1,"l":{"a":"b"},"t":["x"]}`))
	f.Add([]byte(`{"n":1e400,"a":null}`))
	f.Add([]byte(`{"a":"\ud800","A":"y"}`))
	f.Add([]byte("[] x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		x, err := ParseFields(body)
		if err != nil {
			refusedWell(t, err)
			return
		}
		text, n, labels := x.Text("a", false, 1, 8), x.Integer("n", false, 1, 10), x.Labels("l")
		x.Texts("t", false)
		if x.Err != nil {
			refusedWell(t, x.Err)
		} else if len(text) > 8 || !utf8.ValidString(text) || n > 10 || len(labels) > maxLabels {
			t.Fatalf("accepted %q %d %v", text, n, labels)
		}
	})
}
