package consul_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// peeringToken is what a peering token holds.
type peeringToken struct {
	CA                    []string
	ManualServerAddresses []string
	ServerAddresses       []string
	ServerName            string
	PeerID                string
	EstablishmentSecret   string
	Remote                struct {
		Partition, Datacenter string
		Locality              any
	}
}

// with changes a token.
func (k peeringToken) with(change func(*peeringToken)) string {
	change(&k)
	data, _ := json.Marshal(k)
	return base64.StdEncoding.EncodeToString(data)
}

// text encodes a token.
func (k peeringToken) text() string { return k.with(func(*peeringToken) {}) }

// ownToken makes a peering token of this cluster.
func ownToken(t *testing.T, u *sole.User, name string) (k peeringToken) {
	t.Helper()
	a := u.Do("POST", "/v1/peering/token", fmt.Sprintf(`{"PeerName":%q}`, name))
	var out struct{ PeeringToken string }
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || a.Status != 200 {
		t.Fatalf("a token for %s: %v", name, a)
	}
	data, err := base64.StdEncoding.DecodeString(out.PeeringToken)
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	if err != nil {
		t.Fatal(err)
	}
	u.Secret("a peering token's secret", k.EstablishmentSecret)
	return k
}

// badRequest is a request about tokens, and why it is refused.
type badRequest struct {
	path string
	body any
	want string
}

type object map[string]any

const (
	badName = " is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or " +
		"'-', and must start and end with an alphanumeric character"
	badMeta = "meta tags failed validation: Couldn't load metadata pair "
)

// manyTags are more than a peering may have.
func manyTags() map[string]string {
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint("k", i)] = ""
	}
	return many
}

// badTokenRequests are requests to generate a token.
func badTokenRequests() []badRequest {
	return []badRequest{
		{"token", "", "Body decoding failed: EOF"},
		{"token", "abc", "Body decoding failed: invalid character 'a' looking for beginning of value"},
		{"token", `{"PeerName":`, "Body decoding failed: unexpected EOF"},
		{"token", `{"PeerName":"p","Bogus":1}`, `Body decoding failed: json: unknown field "Bogus"`},
		{"token", `[]`,
			"Body decoding failed: json: cannot unmarshal array into Go value of type api.PeeringGenerateTokenRequest"},
		{"token", `"x"`,
			"Body decoding failed: json: cannot unmarshal string into Go value of type api.PeeringGenerateTokenRequest"},
		{"token", `{"PeerName":1}`,
			"Body decoding failed: json: cannot unmarshal number into Go struct field PeeringGenerateTokenRequest.PeerName of " +
				"type string"},
		{"token", `{"PeerName":"p","Meta":{"a":1}}`,
			"Body decoding failed: json: cannot unmarshal number into Go struct field PeeringGenerateTokenRequest.Meta of " +
				"type string"},
		{"token", `{}`, "PeerName is required in the payload when generating a new peering token."},
		{"token", `null`, "PeerName is required in the payload when generating a new peering token."},
		{"token", object{"PeerName": "p", "Partition": "foo"}, "Partitions are a Consul Enterprise feature"},
		{"token", object{"PeerName": "UPPER"}, "UPPER" + badName},
		{"token", object{"PeerName": "a.b"}, "a.b" + badName},
		{"token", object{"PeerName": "-a"}, "-a" + badName},
		{"token", object{"PeerName": strings.Repeat("a", 64)}, strings.Repeat("a", 64) + badName},
		{"token", object{"PeerName": "token"},
			"token is not a valid peer name: /v1/peering/token is an endpoint, so a peering of that name could be neither " +
				"read nor deleted"},
		{"token", object{"PeerName": "p", "Meta": manyTags()},
			"meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs"},
		{"token", object{"PeerName": "p", "Meta": object{"": "v"}}, badMeta + "('', 'v'): Key cannot be blank"},
		{"token", object{"PeerName": "p", "Meta": object{"a b": "v"}}, badMeta +
			"('a b', 'v'): Key contains invalid characters"},
		{"token", object{"PeerName": "p", "Meta": object{"consul-x": "v"}}, badMeta +
			"('consul-x', 'v'): Key prefix 'consul-' is reserved for internal use"},
		{"token", object{"PeerName": "p", "ServerExternalAddresses": []string{"nonsense"}},
			"nonsense is not a valid peering server address"},
		{"token", object{"PeerName": "p", "ServerExternalAddresses": []string{""}}, " is not a valid peering server address"},
		{"token", object{"PeerName": "p", "TokenTTL": "soon"}, "TokenTTL must be a duration from 1s to 8784h, such as 24h"},
	}
}

// badEstablishRequests are requests to establish a peering; good is a token that another cluster could have made.
func badEstablishRequests(good peeringToken) []badRequest {
	return []badRequest{
		{"establish", "", "Body decoding failed: EOF"},
		{"establish", `[]`,
			"Body decoding failed: json: cannot unmarshal array into Go value of type api.PeeringEstablishRequest"},
		{"establish", `{}`, "PeerName is required in the payload when establishing a peering."},
		{"establish", object{"PeerName": "p"}, "PeeringToken is required in the payload when establishing a peering."},
		{"establish", object{"PeerName": "--AA--", "PeeringToken": "x"}, "--AA--" + badName},
		{"establish", object{"PeerName": "establish", "PeeringToken": "x"},
			"establish is not a valid peer name: /v1/peering/establish is an endpoint, so a peering of that name could be " +
				"neither read nor deleted"},
		{"establish", object{"PeerName": "p", "PeeringToken": "++!/+++"},
			"failed to decode token: illegal base64 data at input byte 2"},
		{"establish", object{"PeerName": "p", "PeeringToken": "Cg=="}, "unexpected end of JSON input"},
		{"establish", object{"PeerName": "p", "PeeringToken": "W10="},
			"json: cannot unmarshal array into Go value of type structs.PeeringToken"},
		{"establish", object{"PeerName": "p", "PeeringToken": "e30K"}, "peering token server addresses value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.CA = []string{"x"} })},
			"peering token invalid CA: no PEM-encoded data found"},
		{"establish", object{"PeerName": "p",
			"PeeringToken": good.with(func(k *peeringToken) { k.ServerAddresses = []string{"1.2.3.4"} })},
			"1.2.3.4 is not a valid peering server address"},
		{"establish", object{"PeerName": "p",
			"PeeringToken": good.with(func(k *peeringToken) { k.ManualServerAddresses = []string{"::1:80"} })},
			"::1:80 is not a valid peering server address"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.ServerName = "" })},
			"peering token server name value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.PeerID = "" })},
			"peering token peer ID value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.CA = nil })},
			"peering token CA value is empty: peers are reached over TLS only"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(*peeringToken) {}), "Meta": manyTags()},
			"meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs"},
	}
}

// TestInput: what is wrong with a request is said word for word, and before who asks.
func TestInput(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	good := ownToken(t, u, "unused")
	good.PeerID, good.ServerName = "11111111-2222-4333-8444-555555555555", "server.dc1.peering.other.consul"
	u.Do("DELETE", "/v1/peering/unused", "").Expect(t, "delete", 200, "")
	for _, x := range append(badTokenRequests(), badEstablishRequests(good)...) {
		body, ok := x.body.(string)
		if !ok {
			data, _ := json.Marshal(x.body)
			body = string(data)
		}
		for _, u := range []*sole.User{u, s.Nobody()} {
			got := u.Do("POST", "/v1/peering/"+x.path, body)
			got.Expect(t, x.path+" "+body[:min(len(body), 80)], 400, x.want)
			if got.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: Content-Type %q", x.path, got.Header.Get("Content-Type"))
			}
		}
	}
	self := ownToken(t, u, "self")
	want := fmt.Sprintf("cannot create a peering within the same cluster %q. Refer to the `exported-services` "+
		"documentation if you want to export between partitions without peering",
		self.ServerName)
	body, _ := json.Marshal(object{"PeerName": "myself", "PeeringToken": self.text()})
	u.Do("POST", "/v1/peering/establish", string(body)).Expect(t, "peering with itself", 400, want)
	u.Do("DELETE", "/v1/peering/self", "").Expect(t, "delete", 200, "")
	left := u.Do("GET", "/v1/peerings", "").Body // the leader's loops, which are not here, delete them
	if strings.Count(left, `"State":"DELETING"`) != strings.Count(left, `"State":`) {
		t.Errorf("refused requests have left %s", left)
	}
}
