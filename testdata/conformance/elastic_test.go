package conformance

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	untyped8 "github.com/elastic/go-elasticsearch/v8/esapi"
	health8 "github.com/elastic/go-elasticsearch/v8/typedapi/cluster/health"
	who8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/authenticate"
	key8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/createapikey"
	invalidate8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/invalidateapikey"
	types8 "github.com/elastic/go-elasticsearch/v8/typedapi/types"
	ping9 "github.com/elastic/go-elasticsearch/v9/typedapi/core/ping"
	nodes9 "github.com/elastic/go-elasticsearch/v9/typedapi/nodes/info"
	get9 "github.com/elastic/go-elasticsearch/v9/typedapi/security/getapikey"
)

func (r *refusal) asError() error {
	if r == nil {
		return nil
	}
	return fmt.Errorf("%d %s: %s", r.status, r.kind, r.reason)
}

// enrollToken makes a token that is good n times and takes it apart.
func (c *cluster) enrollToken(n int) (key, fingerprint, id string) {
	c.t.Helper()
	var made struct{ ID, Token string }
	if status := c.result("POST", "/api/v1/cluster/enrollment-tokens", fmt.Sprintf(`{"maxUses":%d}`, n),
		&made); status != 201 {
		c.t.Fatalf("create an enrollment token: %d", status)
	}
	raw, err := base64.StdEncoding.DecodeString(made.Token)
	if err != nil {
		c.t.Fatal(err)
	}
	var token struct {
		Ver, Fgr, Key string
		Adr           []string
	}
	if err := json.Unmarshal(raw, &token); err != nil {
		c.t.Fatal(err)
	}
	if len(token.Adr) != len(c.addrs) || token.Ver == "" {
		c.t.Errorf("the token is %+v", token)
	}
	return base64.StdEncoding.EncodeToString([]byte(token.Key)), token.Fgr, made.ID
}

// The enrollment API with the official Go clients of both majors, typed and not, through every member.
func TestElasticEnrollment(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	ctx := context.Background()
	key, fingerprint, id := c.enrollToken(100)
	var versions []string
	for _, addr := range c.addrs {
		for _, es := range elasticClients(t, addr, fingerprint, credentials{apiKey: key}) {
			got, refused, err := es.enroll(ctx)
			if err != nil || refused != nil {
				t.Fatalf("%s at %s: %v, %v", es.name, addr, refused.asError(), err)
			}
			if err := got.check(len(c.addrs), fingerprint); err != nil {
				t.Errorf("%s at %s: %v", es.name, addr, err)
			}
			version, err := es.info(ctx)
			if err != nil {
				t.Errorf("%s at %s: info: %v", es.name, addr, err)
			}
			versions = append(versions, version)
		}
	}
	if slices.Sort(versions); versions[0] == "" || versions[0] != versions[len(versions)-1] {
		t.Errorf("the versions are %v", versions)
	}
	c.keysByPassword(ctx, fingerprint)
	c.refusals(ctx, fingerprint, key, id)
	for _, es := range elasticClients(t, c.addrs[1], strings.Repeat("0", 64), credentials{apiKey: key}) {
		if _, _, err := es.enroll(ctx); err == nil || !strings.Contains(err.Error(), "fingerprint") {
			t.Errorf("%s with another fingerprint: %v", es.name, err)
		}
	}
}

// check does with the answer what a joining node does.
func (e *enrollment) check(members int, fingerprint string) error {
	var ders [][]byte
	for _, text := range []string{e.HTTPCAKey, e.HTTPCACert, e.TransportCACert, e.TransportKey, e.TransportCert} {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return err
		}
		ders = append(ders, der)
	}
	for _, i := range []int{0, 3} {
		if _, err := x509.ParsePKCS8PrivateKey(ders[i]); err != nil {
			return err
		}
	}
	var list []*x509.Certificate
	for _, i := range []int{1, 2, 4} {
		cert, err := x509.ParseCertificate(ders[i])
		if err != nil {
			return err
		}
		list = append(list, cert)
	}
	sum := sha256.Sum256(ders[1])
	switch {
	case !list[0].IsCA || !list[1].IsCA || list[2].IsCA:
		return errors.New("an authority is none, or a leaf is one")
	case list[2].CheckSignatureFrom(list[1]) != nil:
		return errors.New("transport_cert is not from transport_ca_cert")
	case hex.EncodeToString(sum[:]) != fingerprint:
		return errors.New("http_ca_cert is not what the token's fingerprint is of")
	case len(e.Nodes) != members:
		return fmt.Errorf("nodes_addresses is %v", e.Nodes)
	}
	return nil
}

// keysByPassword makes API keys as a user with a password, and enrolls with them.
func (c *cluster) keysByPassword(ctx context.Context, fingerprint string) {
	c.t.Helper()
	for i, es := range elasticClients(c.t, c.addrs[2], fingerprint, credentials{user: "admin", password: c.token}) {
		encoded, expiration, err := es.makeKey(ctx, "key of "+es.name)
		if err != nil || expiration == 0 {
			c.t.Errorf("%s: create an API key: %d, %v", es.name, expiration, err)
			continue
		}
		if _, refused, err := elasticClients(c.t, c.addrs[1], fingerprint,
			credentials{apiKey: encoded})[i].enroll(ctx); err != nil || refused != nil {
			c.t.Errorf("%s: enroll with the key: %v, %v", es.name, refused.asError(), err)
		}
		if value, refused, err := es.kibana(ctx); err != nil || refused != nil || value == "" {
			c.t.Errorf("%s: enroll a Kibana: %v, %v", es.name, refused.asError(), err)
		}
	}
}

// refusals looks at what the clients make of bad keys, and that they do not try again.
func (c *cluster) refusals(ctx context.Context, fingerprint, key, id string) {
	c.t.Helper()
	raw, _ := base64.StdEncoding.DecodeString(key)
	wrong := base64.StdEncoding.EncodeToString(append(raw, 'x'))
	check := func(what, apiKey string, status int, reason, additional string, ask func(elasticClient) (*refusal, error)) {
		c.t.Helper()
		for _, es := range elasticClients(c.t, c.addrs[1], fingerprint, credentials{apiKey: apiKey}) {
			no, err := ask(es)
			if err != nil || no == nil || no.status != status || no.kind != "security_exception" || no.reason != reason {
				c.t.Errorf("%s: %s: %v, %v", es.name, what, no.asError(), err)
				continue
			}
			if got := string(no.metadata["additional_unsuccessful_credentials"]); strings.HasSuffix(es.name, " typed") &&
				got != additional {
				c.t.Errorf("%s: %s: additional_unsuccessful_credentials is %s", es.name, what, got)
			}
		}
	}
	enroll := func(es elasticClient) (*refusal, error) { _, no, err := es.enroll(ctx); return no, err }
	const unable = "unable to authenticate with provided credentials and anonymous access is not allowed for this request"
	check("a wrong secret", wrong, http.StatusUnauthorized, unable, `"API key: invalid credentials for API key [`+id+`]"`,
		enroll)
	check("no key", "", http.StatusUnauthorized,
		"missing authentication credentials for REST request [/_security/enroll/node]", "", enroll)
	c.result("PUT", "/api/v1/cluster/settings", `{"enrollment.enabled":false}`, nil)
	check("while it is off", key, http.StatusForbidden,
		"Enrollment mode is not enabled. Set [xpack.security.enrollment.enabled] to true, in order to use this API.", "",
		enroll)
	c.result("PUT", "/api/v1/cluster/settings", `{"enrollment.enabled":true}`, nil)
	c.result("DELETE", "/api/v1/cluster/enrollment-tokens/"+id, "", nil)
	check("a revoked key", key, http.StatusUnauthorized, unable, `"API key: api key [`+id+`] has been invalidated"`,
		enroll)

	// What the clients pin is the second certificate that is shown.
	conn, err := tls.Dial("tcp", strings.TrimPrefix(c.addrs[1], "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	if len(chain) != 2 {
		c.t.Fatalf("%d certificates are shown", len(chain))
	}
	if sum := sha256.Sum256(chain[1].Raw); hex.EncodeToString(sum[:]) != fingerprint {
		c.t.Error("the fingerprint is not that of the second certificate")
	}
}

// What the clients offer besides: finding out what they talk to, looking for more addresses, keeping house with keys.
func TestElasticHousekeeping(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	ctx := context.Background()
	_, fingerprint, _ := c.enrollToken(1)
	who := credentials{user: "admin", password: c.token}
	all, second := elastic(t, fingerprint, who, true, c.addrs...), elastic(t, fingerprint, who, false, c.addrs[1])
	if r, err := untyped8.New(all).Ping(); err != nil || r.IsError() {
		t.Errorf("ping: %v, %v", r, err)
	}
	if ok, err := ping9.New(second).IsSuccess(ctx); err != nil || !ok {
		t.Errorf("typed ping: %v, %v", ok, err)
	}
	if err := all.DiscoverNodes(); err != nil {
		t.Errorf("discover nodes: %v", err)
	}
	health, err := health8.New(all).Do(ctx)
	if err != nil || health.Status.Name != "green" || health.NumberOfNodes != 3 {
		t.Errorf("health: %+v, %v", health, err)
	}
	nodes, err := nodes9.New(second).Metric("http").Do(ctx)
	if err != nil || len(nodes.Nodes) != 3 {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	local, err := nodes9.New(second).NodeId("_local").Metric("http").Do(ctx)
	if err != nil || len(local.Nodes) != 1 {
		t.Fatalf("the local node: %+v, %v", local, err)
	}
	for _, n := range local.Nodes {
		if "https://"+n.Http.PublishAddress != c.addrs[1] {
			t.Errorf("%s calls itself %s", c.addrs[1], n.Http.PublishAddress)
		}
	}
	made, err := key8.New(all).Request(&key8.Request{Name: ptr("house"),
		Metadata: types8.Metadata{"rack": json.RawMessage("7")}}).Do(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := get9.New(second).Id(made.Id).Do(ctx)
	if err != nil || len(got.ApiKeys) != 1 || got.ApiKeys[0].Name != "house" || got.ApiKeys[0].Username != "admin" ||
		string(got.ApiKeys[0].Metadata["rack"]) != "7" {
		t.Errorf("get: %+v, %v", got, err)
	}
	self, err := who8.New(all).Do(ctx)
	if err != nil || self.Username != "admin" {
		t.Errorf("authenticate: %+v, %v", self, err)
	}
	gone, err := invalidate8.New(all).Ids(made.Id).Do(ctx)
	if err != nil || len(gone.InvalidatedApiKeys) != 1 || gone.ErrorCount != 0 {
		t.Errorf("invalidate: %+v, %v", gone, err)
	}
	if got, err := get9.New(second).Name("house*").ActiveOnly(true).Do(ctx); err != nil || len(got.ApiKeys) != 0 {
		t.Errorf("active keys: %+v, %v", got, err)
	}
	if _, err := key8.New(all).Request(&key8.Request{}).Do(ctx); err == nil ||
		!strings.Contains(err.Error(), "[action_request_validation_exception]") {
		t.Errorf("a key without a name: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }
