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
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	es8 "github.com/elastic/go-elasticsearch/v8"
	es8key "github.com/elastic/go-elasticsearch/v8/typedapi/security/createapikey"
	types8 "github.com/elastic/go-elasticsearch/v8/typedapi/types"
	privilege8 "github.com/elastic/go-elasticsearch/v8/typedapi/types/enums/clusterprivilege"
	es9 "github.com/elastic/go-elasticsearch/v9"
	es9key "github.com/elastic/go-elasticsearch/v9/typedapi/security/createapikey"
	types9 "github.com/elastic/go-elasticsearch/v9/typedapi/types"
	privilege9 "github.com/elastic/go-elasticsearch/v9/typedapi/types/enums/clusterprivilege"
)

// enrollment is what each of the clients makes of the answer.
type enrollment struct {
	HTTPCAKey, HTTPCACert, TransportCACert, TransportKey, TransportCert string
	Nodes                                                               []string
}

// refusal is what each of the typed clients makes of an error.
type refusal struct {
	status       int
	kind, reason string
	metadata     map[string]json.RawMessage
}

// elasticClient is one official client: a major, typed or not.
type elasticClient struct {
	name    string
	enroll  func(context.Context) (*enrollment, *refusal, error)
	kibana  func(context.Context) (string, *refusal, error)
	info    func(context.Context) (version string, err error)
	makeKey func(context.Context, string) (encoded string, expiration int64, err error)
}

type credentials struct{ apiKey, user, password string }

const keyPrivilege = "cluster:admin/xpack/security/enroll/node"

func parseUntyped(code int, body io.ReadCloser, into any) (*refusal, error) {
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	if code > 299 {
		var e struct {
			Error struct {
				Type, Reason string
			}
		}
		err := json.Unmarshal(data, &e)
		return &refusal{status: code, kind: e.Error.Type, reason: e.Error.Reason}, err
	}
	return nil, json.Unmarshal(data, into)
}

type rawEnrollment struct {
	HTTPCAKey       string   `json:"http_ca_key"`
	HTTPCACert      string   `json:"http_ca_cert"`
	TransportCACert string   `json:"transport_ca_cert"`
	TransportKey    string   `json:"transport_key"`
	TransportCert   string   `json:"transport_cert"`
	Nodes           []string `json:"nodes_addresses"`
}

func (r *rawEnrollment) plain() *enrollment {
	return &enrollment{r.HTTPCAKey, r.HTTPCACert, r.TransportCACert, r.TransportKey, r.TransportCert, r.Nodes}
}

type rawKey struct {
	Encoded    string
	Expiration int64
}

const keyBody = `{"name":%q,"expiration":"30m","role_descriptors":{"r":{"cluster":["` + keyPrivilege + `"]}}}`

// elasticClients makes all four for one member, trusting nothing but the fingerprint of the HTTP CA.
func elasticClients(t *testing.T, addr, fingerprint string, who credentials) []elasticClient {
	t.Helper()
	c8 := es8.Config{Addresses: []string{addr}, APIKey: who.apiKey, Username: who.user, Password: who.password, CertificateFingerprint: fingerprint}
	c9 := es9.Config{Addresses: []string{addr}, APIKey: who.apiKey, Username: who.user, Password: who.password, CertificateFingerprint: fingerprint}
	u8, err8 := es8.NewClient(c8)
	t8, err8t := es8.NewTypedClient(c8)
	u9, err9 := es9.NewClient(c9)
	t9, err9t := es9.NewTypedClient(c9)
	if err := errors.Join(err8, err8t, err9, err9t); err != nil {
		t.Fatal(err)
	}
	refused8 := func(err error) (*refusal, error) {
		var e *types8.ElasticsearchError
		if errors.As(err, &e) {
			return &refusal{e.Status, e.ErrorCause.Type, *e.ErrorCause.Reason, e.ErrorCause.Metadata}, nil
		}
		return nil, err
	}
	refused9 := func(err error) (*refusal, error) {
		var e *types9.ElasticsearchError
		if errors.As(err, &e) {
			return &refusal{e.Status, e.ErrorCause.Type, *e.ErrorCause.Reason, e.ErrorCause.Metadata}, nil
		}
		return nil, err
	}
	return []elasticClient{
		{
			name: "v8 untyped",
			enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
				r, err := u8.Security.EnrollNode(u8.Security.EnrollNode.WithContext(ctx))
				if err != nil {
					return nil, nil, err
				}
				var raw rawEnrollment
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.plain(), no, err
			},
			kibana: func(ctx context.Context) (string, *refusal, error) {
				r, err := u8.Security.EnrollKibana(u8.Security.EnrollKibana.WithContext(ctx))
				if err != nil {
					return "", nil, err
				}
				var raw struct{ Token struct{ Value string } }
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Token.Value, no, err
			},
			info: func(ctx context.Context) (string, error) {
				r, err := u8.Info(u8.Info.WithContext(ctx))
				if err != nil {
					return "", err
				}
				var raw struct{ Version struct{ Number string } }
				_, err = parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Version.Number, err
			},
			makeKey: func(ctx context.Context, name string) (string, int64, error) {
				r, err := u8.Security.CreateAPIKey(strings.NewReader(fmt.Sprintf(keyBody, name)), u8.Security.CreateAPIKey.WithContext(ctx))
				if err != nil {
					return "", 0, err
				}
				var raw rawKey
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Encoded, raw.Expiration, errors.Join(err, no.asError())
			},
		},
		{
			name: "v8 typed",
			enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
				r, err := t8.Security.EnrollNode().Do(ctx)
				if err != nil {
					no, err := refused8(err)
					return nil, no, err
				}
				return &enrollment{r.HttpCaKey, r.HttpCaCert, r.TransportCaCert, r.TransportKey, r.TransportCert, r.NodesAddresses}, nil, nil
			},
			kibana: func(ctx context.Context) (string, *refusal, error) {
				r, err := t8.Security.EnrollKibana().Do(ctx)
				if err != nil {
					no, err := refused8(err)
					return "", no, err
				}
				return r.Token.Value, nil, nil
			},
			info: func(ctx context.Context) (string, error) {
				r, err := t8.Info().Do(ctx)
				if err != nil {
					return "", err
				}
				return r.Version.Int, nil
			},
			makeKey: func(ctx context.Context, name string) (string, int64, error) {
				r, err := t8.Security.CreateApiKey().Request(&es8key.Request{Name: &name, Expiration: "30m", RoleDescriptors: map[string]types8.RoleDescriptor{
					"r": {Cluster: []privilege8.ClusterPrivilege{{Name: keyPrivilege}}}}}).Do(ctx)
				if err != nil {
					return "", 0, err
				}
				return r.Encoded, *r.Expiration, nil
			},
		},
		{
			name: "v9 untyped",
			enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
				r, err := u9.Security.EnrollNode(u9.Security.EnrollNode.WithContext(ctx))
				if err != nil {
					return nil, nil, err
				}
				var raw rawEnrollment
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.plain(), no, err
			},
			kibana: func(ctx context.Context) (string, *refusal, error) {
				r, err := u9.Security.EnrollKibana(u9.Security.EnrollKibana.WithContext(ctx))
				if err != nil {
					return "", nil, err
				}
				var raw struct{ Token struct{ Value string } }
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Token.Value, no, err
			},
			info: func(ctx context.Context) (string, error) {
				r, err := u9.Info(u9.Info.WithContext(ctx))
				if err != nil {
					return "", err
				}
				var raw struct{ Version struct{ Number string } }
				_, err = parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Version.Number, err
			},
			makeKey: func(ctx context.Context, name string) (string, int64, error) {
				r, err := u9.Security.CreateAPIKey(strings.NewReader(fmt.Sprintf(keyBody, name)), u9.Security.CreateAPIKey.WithContext(ctx))
				if err != nil {
					return "", 0, err
				}
				var raw rawKey
				no, err := parseUntyped(r.StatusCode, r.Body, &raw)
				return raw.Encoded, raw.Expiration, errors.Join(err, no.asError())
			},
		},
		{
			name: "v9 typed",
			enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
				r, err := t9.Security.EnrollNode().Do(ctx)
				if err != nil {
					no, err := refused9(err)
					return nil, no, err
				}
				return &enrollment{r.HttpCaKey, r.HttpCaCert, r.TransportCaCert, r.TransportKey, r.TransportCert, r.NodesAddresses}, nil, nil
			},
			kibana: func(ctx context.Context) (string, *refusal, error) {
				r, err := t9.Security.EnrollKibana().Do(ctx)
				if err != nil {
					no, err := refused9(err)
					return "", no, err
				}
				return r.Token.Value, nil, nil
			},
			info: func(ctx context.Context) (string, error) {
				r, err := t9.Info().Do(ctx)
				if err != nil {
					return "", err
				}
				return r.Version.Int, nil
			},
			makeKey: func(ctx context.Context, name string) (string, int64, error) {
				r, err := t9.Security.CreateApiKey().Request(&es9key.Request{Name: &name, Expiration: "30m", RoleDescriptors: map[string]types9.RoleDescriptor{
					"r": {Cluster: []privilege9.ClusterPrivilege{{Name: keyPrivilege}}}}}).Do(ctx)
				if err != nil {
					return "", 0, err
				}
				return r.Encoded, *r.Expiration, nil
			},
		},
	}
}

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
	if status := c.result("POST", "/api/v1/cluster/enrollment-tokens", fmt.Sprintf(`{"maxUses":%d}`, n), &made); status != 201 {
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
		if _, refused, err := elasticClients(c.t, c.addrs[1], fingerprint, credentials{apiKey: encoded})[i].enroll(ctx); err != nil || refused != nil {
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
			if got := string(no.metadata["additional_unsuccessful_credentials"]); strings.HasSuffix(es.name, " typed") && got != additional {
				c.t.Errorf("%s: %s: additional_unsuccessful_credentials is %s", es.name, what, got)
			}
		}
	}
	enroll := func(es elasticClient) (*refusal, error) { _, no, err := es.enroll(ctx); return no, err }
	const unable = "unable to authenticate with provided credentials and anonymous access is not allowed for this request"
	check("a wrong secret", wrong, http.StatusUnauthorized, unable, `"API key: invalid credentials for API key [`+id+`]"`, enroll)
	check("no key", "", http.StatusUnauthorized, "missing authentication credentials for REST request [/_security/enroll/node]", "", enroll)
	c.result("PUT", "/api/v1/cluster/settings", `{"enrollment.enabled":false}`, nil)
	check("while it is off", key, http.StatusForbidden, "Enrollment mode is not enabled. Set [xpack.security.enrollment.enabled] to true, in order to use this API.", "", enroll)
	c.result("PUT", "/api/v1/cluster/settings", `{"enrollment.enabled":true}`, nil)
	c.result("DELETE", "/api/v1/cluster/enrollment-tokens/"+id, "", nil)
	check("a revoked key", key, http.StatusUnauthorized, unable, `"API key: api key [`+id+`] has been invalidated"`, enroll)

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
	c8 := es8.Config{Addresses: c.addrs, Username: "admin", Password: c.token, CertificateFingerprint: fingerprint, CompressRequestBody: true}
	c9 := es9.Config{Addresses: c.addrs[1:2], Username: "admin", Password: c.token, CertificateFingerprint: fingerprint}
	u8, err8 := es8.NewClient(c8)
	t8, err8t := es8.NewTypedClient(c8)
	t9, err9t := es9.NewTypedClient(c9)
	if err := errors.Join(err8, err8t, err9t); err != nil {
		t.Fatal(err)
	}
	if r, err := u8.Ping(); err != nil || r.IsError() {
		t.Errorf("ping: %v, %v", r, err)
	}
	if ok, err := t9.Ping().IsSuccess(ctx); err != nil || !ok {
		t.Errorf("typed ping: %v, %v", ok, err)
	}
	if err := u8.DiscoverNodes(); err != nil {
		t.Errorf("discover nodes: %v", err)
	}
	health, err := t8.Cluster.Health().Do(ctx)
	if err != nil || health.Status.Name != "green" || health.NumberOfNodes != 3 {
		t.Errorf("health: %+v, %v", health, err)
	}
	nodes, err := t9.Nodes.Info().Metric("http").Do(ctx)
	if err != nil || len(nodes.Nodes) != 3 {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	local, err := t9.Nodes.Info().NodeId("_local").Metric("http").Do(ctx)
	if err != nil || len(local.Nodes) != 1 {
		t.Fatalf("the local node: %+v, %v", local, err)
	}
	for _, n := range local.Nodes {
		if "https://"+n.Http.PublishAddress != c.addrs[1] {
			t.Errorf("%s calls itself %s", c.addrs[1], n.Http.PublishAddress)
		}
	}
	made, err := t8.Security.CreateApiKey().Request(&es8key.Request{Name: ptr("house"), Metadata: types8.Metadata{"rack": json.RawMessage("7")}}).Do(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := t9.Security.GetApiKey().Id(made.Id).Do(ctx)
	if err != nil || len(got.ApiKeys) != 1 || got.ApiKeys[0].Name != "house" || got.ApiKeys[0].Username != "admin" || string(got.ApiKeys[0].Metadata["rack"]) != "7" {
		t.Errorf("get: %+v, %v", got, err)
	}
	who, err := t8.Security.Authenticate().Do(ctx)
	if err != nil || who.Username != "admin" {
		t.Errorf("authenticate: %+v, %v", who, err)
	}
	gone, err := t8.Security.InvalidateApiKey().Ids(made.Id).Do(ctx)
	if err != nil || len(gone.InvalidatedApiKeys) != 1 || gone.ErrorCount != 0 {
		t.Errorf("invalidate: %+v, %v", gone, err)
	}
	if got, err := t9.Security.GetApiKey().Name("house*").ActiveOnly(true).Do(ctx); err != nil || len(got.ApiKeys) != 0 {
		t.Errorf("active keys: %+v, %v", got, err)
	}
	if _, err := t8.Security.CreateApiKey().Request(&es8key.Request{}).Do(ctx); err == nil || !strings.Contains(err.Error(), "[action_request_validation_exception]") {
		t.Errorf("a key without a name: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }
