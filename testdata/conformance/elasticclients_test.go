package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	untyped8 "github.com/elastic/go-elasticsearch/v8/esapi"
	info8 "github.com/elastic/go-elasticsearch/v8/typedapi/core/info"
	key8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/createapikey"
	kibana8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/enrollkibana"
	node8 "github.com/elastic/go-elasticsearch/v8/typedapi/security/enrollnode"
	types8 "github.com/elastic/go-elasticsearch/v8/typedapi/types"
	privilege8 "github.com/elastic/go-elasticsearch/v8/typedapi/types/enums/clusterprivilege"
	untyped9 "github.com/elastic/go-elasticsearch/v9/esapi"
	info9 "github.com/elastic/go-elasticsearch/v9/typedapi/core/info"
	key9 "github.com/elastic/go-elasticsearch/v9/typedapi/security/createapikey"
	kibana9 "github.com/elastic/go-elasticsearch/v9/typedapi/security/enrollkibana"
	node9 "github.com/elastic/go-elasticsearch/v9/typedapi/security/enrollnode"
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

func parseUntyped(into any) func(int, io.ReadCloser, error) (*refusal, error) {
	return func(code int, body io.ReadCloser, err error) (*refusal, error) {
		if err != nil {
			return nil, err
		}
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

// elasticTransport is the official clients' own transport with what their top packages put around it, the check of the
// product. Those packages import every endpoint that there is, and take minutes to compile.
type elasticTransport struct{ *elastictransport.Client }

func (x elasticTransport) Perform(r *http.Request) (*http.Response, error) {
	resp, err := x.Client.Perform(r)
	if err == nil && resp.StatusCode < 300 && resp.Header.Get("X-Elastic-Product") != "Elasticsearch" {
		resp.Body.Close()
		return nil, errors.New("the answer does not come from Elasticsearch: it has no X-Elastic-Product")
	}
	return resp, err
}

// elastic makes a transport that trusts nothing but the fingerprint of the HTTP CA; compress has it compress what it
// sends.
func elastic(t *testing.T, fingerprint string, who credentials, compress bool, addrs ...string) elasticTransport {
	t.Helper()
	var urls []*url.URL
	for _, addr := range addrs {
		u, err := url.Parse(addr)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, u)
	}
	c, err := elastictransport.New(elastictransport.Config{
		URLs:                   urls,
		APIKey:                 who.apiKey,
		Username:               who.user,
		Password:               who.password,
		CertificateFingerprint: fingerprint,
		CompressRequestBody:    compress,
	})
	if err != nil {
		t.Fatal(err)
	}
	return elasticTransport{c}
}

// elasticClients makes all four for one member.
func elasticClients(t *testing.T, addr, fingerprint string, who credentials) []elasticClient {
	t.Helper()
	x := elastic(t, fingerprint, who, false, addr)
	u8, u9 := untyped8.New(x), untyped9.New(x)
	return []elasticClient{
		untyped("v8 untyped", untypedCalls{
			enroll: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u8.Security.EnrollNode(u8.Security.EnrollNode.WithContext(ctx))
				return opened(r, err)
			},
			kibana: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u8.Security.EnrollKibana(u8.Security.EnrollKibana.WithContext(ctx))
				return opened(r, err)
			},
			info: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u8.Info(u8.Info.WithContext(ctx))
				return opened(r, err)
			},
			makeKey: func(ctx context.Context, body io.Reader) (int, io.ReadCloser, error) {
				r, err := u8.Security.CreateAPIKey(body, u8.Security.CreateAPIKey.WithContext(ctx))
				return opened(r, err)
			},
		}),
		typed8(x),
		untyped("v9 untyped", untypedCalls{
			enroll: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u9.Security.EnrollNode(u9.Security.EnrollNode.WithContext(ctx))
				return opened((*untyped8.Response)(r), err)
			},
			kibana: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u9.Security.EnrollKibana(u9.Security.EnrollKibana.WithContext(ctx))
				return opened((*untyped8.Response)(r), err)
			},
			info: func(ctx context.Context) (int, io.ReadCloser, error) {
				r, err := u9.Info(u9.Info.WithContext(ctx))
				return opened((*untyped8.Response)(r), err)
			},
			makeKey: func(ctx context.Context, body io.Reader) (int, io.ReadCloser, error) {
				r, err := u9.Security.CreateAPIKey(body, u9.Security.CreateAPIKey.WithContext(ctx))
				return opened((*untyped8.Response)(r), err)
			},
		}),
		typed9(x),
	}
}

// untypedCalls are what the untyped clients of both majors have in common.
type untypedCalls struct {
	enroll, kibana, info func(context.Context) (int, io.ReadCloser, error)
	makeKey              func(context.Context, io.Reader) (int, io.ReadCloser, error)
}

func opened(r *untyped8.Response, err error) (int, io.ReadCloser, error) {
	if err != nil {
		return 0, nil, err
	}
	return r.StatusCode, r.Body, nil
}

func untyped(name string, calls untypedCalls) elasticClient {
	return elasticClient{
		name: name,
		enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
			var raw rawEnrollment
			no, err := parseUntyped(&raw)(calls.enroll(ctx))
			return raw.plain(), no, err
		},
		kibana: func(ctx context.Context) (string, *refusal, error) {
			var raw struct{ Token struct{ Value string } }
			no, err := parseUntyped(&raw)(calls.kibana(ctx))
			return raw.Token.Value, no, err
		},
		info: func(ctx context.Context) (string, error) {
			var raw struct{ Version struct{ Number string } }
			_, err := parseUntyped(&raw)(calls.info(ctx))
			return raw.Version.Number, err
		},
		makeKey: func(ctx context.Context, name string) (string, int64, error) {
			var raw rawKey
			no, err := parseUntyped(&raw)(calls.makeKey(ctx, strings.NewReader(fmt.Sprintf(keyBody, name))))
			return raw.Encoded, raw.Expiration, errors.Join(err, no.asError())
		},
	}
}

func typed8(x elasticTransport) elasticClient {
	refused := func(err error) (*refusal, error) {
		var e *types8.ElasticsearchError
		if errors.As(err, &e) {
			return &refusal{e.Status, e.ErrorCause.Type, *e.ErrorCause.Reason, e.ErrorCause.Metadata}, nil
		}
		return nil, err
	}
	return elasticClient{
		name: "v8 typed",
		enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
			r, err := node8.New(x).Do(ctx)
			if err != nil {
				no, err := refused(err)
				return nil, no, err
			}
			return &enrollment{r.HttpCaKey, r.HttpCaCert, r.TransportCaCert, r.TransportKey, r.TransportCert,
				r.NodesAddresses}, nil, nil
		},
		kibana: func(ctx context.Context) (string, *refusal, error) {
			r, err := kibana8.New(x).Do(ctx)
			if err != nil {
				no, err := refused(err)
				return "", no, err
			}
			return r.Token.Value, nil, nil
		},
		info: func(ctx context.Context) (string, error) {
			r, err := info8.New(x).Do(ctx)
			if err != nil {
				return "", err
			}
			return r.Version.Int, nil
		},
		makeKey: func(ctx context.Context, name string) (string, int64, error) {
			r, err := key8.New(x).Request(&key8.Request{Name: &name, Expiration: "30m",
				RoleDescriptors: map[string]types8.RoleDescriptor{
					"r": {Cluster: []privilege8.ClusterPrivilege{{Name: keyPrivilege}}}}}).Do(ctx)
			if err != nil {
				return "", 0, err
			}
			return r.Encoded, *r.Expiration, nil
		},
	}
}

func typed9(x elasticTransport) elasticClient {
	refused := func(err error) (*refusal, error) {
		var e *types9.ElasticsearchError
		if errors.As(err, &e) {
			return &refusal{e.Status, e.ErrorCause.Type, *e.ErrorCause.Reason, e.ErrorCause.Metadata}, nil
		}
		return nil, err
	}
	return elasticClient{
		name: "v9 typed",
		enroll: func(ctx context.Context) (*enrollment, *refusal, error) {
			r, err := node9.New(x).Do(ctx)
			if err != nil {
				no, err := refused(err)
				return nil, no, err
			}
			return &enrollment{r.HttpCaKey, r.HttpCaCert, r.TransportCaCert, r.TransportKey, r.TransportCert,
				r.NodesAddresses}, nil, nil
		},
		kibana: func(ctx context.Context) (string, *refusal, error) {
			r, err := kibana9.New(x).Do(ctx)
			if err != nil {
				no, err := refused(err)
				return "", no, err
			}
			return r.Token.Value, nil, nil
		},
		info: func(ctx context.Context) (string, error) {
			r, err := info9.New(x).Do(ctx)
			if err != nil {
				return "", err
			}
			return r.Version.Int, nil
		},
		makeKey: func(ctx context.Context, name string) (string, int64, error) {
			r, err := key9.New(x).Request(&key9.Request{Name: &name, Expiration: "30m",
				RoleDescriptors: map[string]types9.RoleDescriptor{
					"r": {Cluster: []privilege9.ClusterPrivilege{{Name: keyPrivilege}}}}}).Do(ctx)
			if err != nil {
				return "", 0, err
			}
			return r.Encoded, *r.Expiration, nil
		},
	}
}
