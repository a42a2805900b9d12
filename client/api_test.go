package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

var bg = context.Background()

// callsCases are what TestCalls goes through.
var callsCases = []struct {
	name, request, body string // what must be sent
	status              int
	answer              string
	call                func(*Client) (any, error)
	want                string // the result as JSON
}{
	{"status", "GET /api/v1/status", "", 200,
		`{"result":{"version":"1","revision":7,"initialized":true,"ready":true,"schemaVersion":3,"commit":"abc","name":"a",` +
			`"cluster":{"enabled":true,"role":"Leader","nodeId":1,"isLeader":true,"leaderNodeId":1,"appliedIndex":9,` +
			`"clusterId":"c","leaderAPIAddress":"https://h:1"}}}`,
		func(c *Client) (any, error) { return c.Status(bg) },
		`{"version":"1","revision":7,"initialized":true,"ready":true,"schemaVersion":3,"commit":"abc","name":"a",` +
			`"cluster":{"enabled":true,"role":"Leader","nodeId":1,"isLeader":true,"leaderNodeId":1,"appliedIndex":9,` +
			`"clusterId":"c","leaderAPIAddress":"https://h:1","appliedSchemaVersion":0}}`},
	{"member", "GET /api/v1/cluster/members/9007199254740991", "", 200,
		`{"result":{"nodeId":9007199254740991,"name":"b","labels":{"k":"v"},"drainState":"drained",` +
			`"drainUpdatedAt":"2026-05-06T10:00:00Z"}}`,
		func(c *Client) (any, error) { return c.Member(bg, 9007199254740991) },
		`{"nodeId":9007199254740991,"raftAddress":"","apiAddress":"","binaryVersion":"","suffrage":"","isLeader":false,` +
			`"drainState":"drained","drainUpdatedAt":"2026-05-06T10:00:00Z","id":"","name":"b","mode":"","role":"",` +
			`"status":"","overlayIp":"","sliceCidr":"","labels":{"k":"v"},"joinedAt":"0001-01-01T00:00:00Z"}`},
	{"description", "GET /api/v1/openapi.yaml", "", 200, "openapi: 3.1.0\n",
		func(c *Client) (any, error) { text, err := c.OpenAPI(bg); return string(text), err }, `"openapi: 3.1.0\n"`},
	{"drain", "POST /api/v1/cluster/members/2/drain", `{"deadlineSeconds":2}`, 200, `{"result":{"drainState":"draining"}}`,
		func(c *Client) (any, error) { return c.DrainMember(bg, 2, 1500*time.Millisecond) }, `"draining"`},
	{"resume", "POST /api/v1/cluster/members/2/resume", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.ResumeMember(bg, 2) }, `null`},
	{"promote", "POST /api/v1/cluster/members/2/promote", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.PromoteMember(bg, 2) }, `null`},
	{"remove", "DELETE /api/v1/cluster/members/2", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return c.RemoveMember(bg, 2, false) }, `0`},
	{"remove by force", "DELETE /api/v1/cluster/members/2?force=true", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return c.RemoveMember(bg, 2, true) }, `0`},
	{"autopilot", "GET /api/v1/cluster/autopilot", "", 200,
		`{"result":{"healthy":true,"failureTolerance":1,"leaderNodeId":1,"voters":[1],"servers":[{"nodeId":1,` +
			`"stableSince":"2026-05-06T10:00:00Z"}]}}`,
		func(c *Client) (any, error) { return c.Autopilot(bg) },
		`{"healthy":true,"failureTolerance":1,"leaderNodeId":1,"voters":[1],"servers":[{"nodeId":1,"raftAddress":"",` +
			`"nodeStatus":"","healthy":false,"isLeader":false,"hasVotingRights":false,"stableSince":"2026-05-06T10:00:00Z",` +
			`"electable":false,"lag":0,"reason":""}]}`},
	{"new join token", "POST /api/v1/cluster/join-tokens", `{"nodeId":4,"ttlSeconds":1800,"maxUses":2,"mode":"replicate"}`,
		201, minted,
		func(c *Client) (any, error) {
			return c.CreateJoinToken(bg, JoinTokenRequest{NodeID: 4, TTL: 30 * time.Minute, MaxUses: 2, Mode: "replicate"})
		},
		`{"id":"t1","token":"SECRET","mode":"full","format":"","state":"","uses":0,"maxUses":1,"createdBy":"",` +
			`"createdAt":"0001-01-01T00:00:00Z","expiresAt":"2026-05-06T10:00:00Z"}`},
	{"new bound join token", "POST /api/v1/cluster/join-tokens",
		`{"format":"zlayer","bindCidr":"10.0.0.0/8","bindName":"web-*","bindKey":"ab","labels":{"rack":"a"}}`, 201, minted,
		func(c *Client) (any, error) {
			_, err := c.CreateJoinToken(bg, JoinTokenRequest{
				Format:   "zlayer",
				BindCIDR: "10.0.0.0/8",
				BindName: "web-*",
				BindKey:  "ab",
				Labels:   map[string]string{"rack": "a"},
			})
			return nil, err
		}, `null`},
	{"join tokens with their uses", "GET /api/v1/cluster/join-tokens", "", 200,
		`{"result":[{"id":"t","format":"zlayer","bindCidr":"10.0.0.0/8","bindName":"w","bindKey":"ab","labels":{"a":"b"},` +
			`"usedBy":[{"nodeId":4,"usedAt":"2026-05-06T10:00:00Z","remote":"10.0.0.9"}],"state":"used","uses":1,"maxUses":1,` +
			`"createdAt":"2026-05-06T10:00:00Z","expiresAt":"2026-05-06T10:00:00Z"}]}`,
		func(c *Client) (any, error) { return c.JoinTokens(bg) },
		`[{"id":"t","labels":{"a":"b"},"format":"zlayer","bindCidr":"10.0.0.0/8","bindName":"w","bindKey":"ab",` +
			`"usedBy":[{"nodeId":4,"usedAt":"2026-05-06T10:00:00Z","remote":"10.0.0.9"}],"state":"used","uses":1,"maxUses":1,` +
			`"createdBy":"","createdAt":"2026-05-06T10:00:00Z","expiresAt":"2026-05-06T10:00:00Z"}]`},
	{"generations", "GET /api/v1/cluster/keys", "", 200,
		`{"result":[{"generation":2,"state":"active","reason":"age","createdAt":"2026-05-06T10:00:00Z","holders":3,` +
			`"total":10,"remaining":4}]}`,
		func(c *Client) (any, error) { return c.Generations(bg) },
		`[{"generation":2,"state":"active","reason":"age","createdAt":"2026-05-06T10:00:00Z","holders":3,"total":10,` +
			`"remaining":4}]`},
	{"rotate", "POST /api/v1/cluster/keys/rotate", "", 200, `{"result":{"generation":3}}`,
		func(c *Client) (any, error) { return c.RotateDEK(bg, nil) }, `3`},
	{"rotate and set the age", "POST /api/v1/cluster/keys/rotate", `{"maxAgeSeconds":3601}`, 200,
		`{"result":{"generation":3}}`,
		func(c *Client) (any, error) { age := time.Hour + time.Millisecond; return c.RotateDEK(bg, &age) }, `3`},
	{"rotate and never again", "POST /api/v1/cluster/keys/rotate", `{"maxAgeSeconds":0}`, 200,
		`{"result":{"generation":3}}`,
		func(c *Client) (any, error) { return c.RotateDEK(bg, new(time.Duration)) }, `3`},
	{"rotate the join keys", "POST /api/v1/cluster/join-keys/rotate", `{"graceSeconds":0}`, 200,
		`{"result":{"kids":{"join-hmac":"ab"},"graceUntil":"2026-05-06T10:00:00Z","tokensEnded":2}}`,
		func(c *Client) (any, error) { return c.RotateJoinKeys(bg, 0) },
		`{"kids":{"join-hmac":"ab"},"graceUntil":"2026-05-06T10:00:00Z","tokensEnded":2}`},
	{"renew an identity", "POST /api/v1/cluster/node-token", "", 200,
		`{"result":{"nodeJwt":"a.b.c","expiresAt":"2026-05-06T10:00:00Z"}}`,
		func(c *Client) (any, error) { return c.RenewNodeToken(bg) },
		`{"nodeJwt":"a.b.c","expiresAt":"2026-05-06T10:00:00Z"}`},
	{"JWKS", "GET /.well-known/jwks.json", "", 200,
		`{"keys":[{"use":"sig","kty":"OKP","kid":"k","crv":"Ed25519","alg":"EdDSA",` +
			`"x":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"}]}`,
		func(c *Client) (any, error) {
			keys, err := c.JWKS(bg)
			if err != nil {
				return nil, err
			}
			return keys[0].PublicKey()
		}, `"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="`},
	{"put a secret", "PUT /api/v1/cluster/secrets/db", `{"value":"p\u003cw\n"}`, 201,
		`{"result":{"name":"db","version":1,"generation":2,"createdAt":"2026-05-06T10:00:00Z",` +
			`"updatedAt":"2026-05-06T10:00:00Z"}}`,
		func(c *Client) (any, error) { return c.PutSecret(bg, "db", []byte("p<w\n")) },
		`{"name":"db","version":1,"generation":2,"createdAt":"2026-05-06T10:00:00Z","updatedAt":"2026-05-06T10:00:00Z"}`},
	{"put bytes", "PUT /api/v1/cluster/secrets/a%2Fb", `{"value":"/wA=","encoding":"base64"}`, 200,
		`{"result":{"name":"db","version":2}}`,
		func(c *Client) (any, error) { _, err := c.PutSecret(bg, "a/b", []byte{255, 0}); return nil, err }, `null`},
	{"secret", "GET /api/v1/cluster/secrets/db", "", 200, `{"result":{"name":"db","version":1,"value":"pw"}}`,
		func(c *Client) (any, error) { s, err := c.Secret(bg, "db"); return string(s.Value), err }, `"pw"`},
	{"secret bytes", "GET /api/v1/cluster/secrets/db", "", 200,
		`{"result":{"name":"db","version":1,"value":"/wA=","encoding":"base64"}}`,
		func(c *Client) (any, error) { s, err := c.Secret(bg, "db"); return s.Value, err }, `"/wA="`},
	{"secrets", "GET /api/v1/cluster/secrets", "", 200,
		`{"result":[{"name":"db","version":1,"generation":1,"createdAt":"2026-05-06T10:00:00Z",` +
			`"updatedAt":"2026-05-06T10:00:00Z"}]}`,
		func(c *Client) (any, error) { return c.Secrets(bg) },
		`[{"name":"db","version":1,"generation":1,"createdAt":"2026-05-06T10:00:00Z","updatedAt":"2026-05-06T10:00:00Z"}]`},
	{"delete a secret", "DELETE /api/v1/cluster/secrets/db", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.DeleteSecret(bg, "db") }, `null`},
	{"put a lease", "PUT /api/v1/cluster/leases/web%2F1", `{"nodeId":2,"ttlSeconds":2,"kind":"session"}`, 201,
		`{"result":{"id":"web/1","nodeId":2,"kind":"session","createdAt":"2026-05-06T10:00:00Z",` +
			`"expiresAt":"2026-05-06T10:00:02Z"}}`,
		func(c *Client) (any, error) { return c.PutLease(bg, "web/1", 2, "session", 1500*time.Millisecond) },
		`{"id":"web/1","nodeId":2,"kind":"session","createdAt":"2026-05-06T10:00:00Z","expiresAt":"2026-05-06T10:00:02Z"}`},
	{"leases of a member", "GET /api/v1/cluster/leases?nodeId=2", "", 200, `{"result":[]}`,
		func(c *Client) (any, error) { return c.Leases(bg, 2) }, `[]`},
	{"leases", "GET /api/v1/cluster/leases", "", 200, `{"result":[]}`,
		func(c *Client) (any, error) { return c.Leases(bg, 0) }, `[]`},
	{"release a lease", "DELETE /api/v1/cluster/leases/web%2F1", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.DeleteLease(bg, "web/1") }, `null`},
	{"new join token by default", "POST /api/v1/cluster/join-tokens", `{}`, 201, minted,
		func(c *Client) (any, error) { _, err := c.CreateJoinToken(bg, JoinTokenRequest{}); return nil, err }, `null`},
	{"join tokens", "GET /api/v1/cluster/join-tokens", "", 200,
		`{"result":[{"id":"t1","mode":"full","state":"used","uses":1,"maxUses":1,"createdAt":"2026-05-06T10:00:00Z",` +
			`"createdBy":"x","expiresAt":"2026-05-06T10:30:00Z"}]}`,
		func(c *Client) (any, error) { return c.JoinTokens(bg) },
		`[{"id":"t1","mode":"full","format":"","state":"used","uses":1,"maxUses":1,"createdBy":"x",` +
			`"createdAt":"2026-05-06T10:00:00Z","expiresAt":"2026-05-06T10:30:00Z"}]`},
	{"revoke a join token", "DELETE /api/v1/cluster/join-tokens/a%2Fb", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.RevokeJoinToken(bg, "a/b") }, `null`},
	{"new API token", "POST /api/v1/api-tokens", `{"name":"n","scopes":["enroll"],"ttlSeconds":60}`, 201,
		`{"result":{"id":"i","name":"n","scopes":["enroll"],"token":"S","createdAt":"2026-05-06T10:00:00Z"}}`,
		func(c *Client) (any, error) {
			return c.CreateAPIToken(bg, APITokenRequest{Name: "n", Scopes: []string{"enroll"}, TTL: time.Minute})
		}, `{"id":"i","name":"n","scopes":["enroll"],"token":"S","createdBy":"","createdAt":"2026-05-06T10:00:00Z"}`},
	{"API tokens", "GET /api/v1/api-tokens", "", 200,
		`{"result":[{"id":"i","name":"n","scopes":["enroll"],"createdAt":"2026-05-06T10:00:00Z"}]}`,
		func(c *Client) (any, error) { return c.APITokens(bg) },
		`[{"id":"i","name":"n","scopes":["enroll"],"createdBy":"","createdAt":"2026-05-06T10:00:00Z"}]`},
	{"revoke an API token", "DELETE /api/v1/api-tokens/i", "", 200, `{"result":{"message":"x"}}`,
		func(c *Client) (any, error) { return nil, c.RevokeAPIToken(bg, "i") }, `null`},
	{"peering token", "POST /v1/peering/token",
		`{"PeerName":"b","Meta":{"k":"v"},"ServerExternalAddresses":["h:1"],"TokenTTL":"1h0m0s"}`, 200,
		`{"PeeringToken":"T","Warnings":["w"]}`,
		func(c *Client) (any, error) {
			return c.PeeringToken(bg,
				PeeringTokenRequest{PeerName: "b", Meta: map[string]string{"k": "v"}, ServerExternalAddresses: []string{"h:1"},
					TokenTTL: "1h0m0s"})
		}, `{"PeeringToken":"T","Warnings":["w"]}`},
	{"establish a peering", "POST /v1/peering/establish", `{"PeerName":"a","PeeringToken":"T"}`, 200, `{}`,
		func(c *Client) (any, error) { return nil, c.EstablishPeering(bg, "a", "T", nil) }, `null`},
	{"peerings", "GET /v1/peerings", "", 200, `[]`,
		func(c *Client) (any, error) { return c.Peerings(bg) }, `[]`},
	{"peering", "GET /v1/peering/b", "", 200,
		`{"ID":"i","Name":"b","State":"FAILING","StreamStatus":{"ImportedServices":null,"ExportedServices":["x"],` +
			`"LastHeartbeat":"2026-05-06T10:00:00Z","LastReceive":null,"LastSend":null},"CreateIndex":1,"ModifyIndex":2,` +
			`"Remote":{"Partition":"","Datacenter":"dc2"},"StatusReason":"r","StatusSince":"2026-05-06T10:00:00Z",` +
			`"Dialer":true}`,
		func(c *Client) (any, error) { return c.Peering(bg, "b") },
		`{"ID":"i","Name":"b","State":"FAILING","StreamStatus":{"ImportedServices":null,"ExportedServices":["x"],` +
			`"LastHeartbeat":"2026-05-06T10:00:00Z","LastReceive":null,"LastSend":null},"CreateIndex":1,"ModifyIndex":2,` +
			`"Remote":{"Partition":"","Datacenter":"dc2"},"StatusReason":"r","StatusSince":"2026-05-06T10:00:00Z",` +
			`"Dialer":true}`},
	{"delete a peering", "DELETE /v1/peering/b", "", 200, ``,
		func(c *Client) (any, error) { return nil, c.DeletePeering(bg, "b") }, `null`},
	{"members of a peer", "GET /api/v1/peerings/b/members", "", 200,
		`{"result":[{"id":"i","name":"n","nodeId":1,"raftAddress":"r:1","apiAddress":"a:1","health":"alive"}]}`,
		func(c *Client) (any, error) { return c.PeerMembers(bg, "b") },
		`[{"id":"i","name":"n","nodeId":1,"raftAddress":"r:1","apiAddress":"a:1","health":"alive"}]`},
	{"SQL", "POST /api/v1/sql", `{"query":"SELECT 1"}`, 200,
		`{"result":{"columns":["a","b"],"rows":[[9007199254740993,null]],"truncated":true}}`,
		func(c *Client) (any, error) { return c.SQL(bg, "SELECT 1") },
		`{"columns":["a","b"],"rows":[[9007199254740993,null]],"truncated":true}`},
	{"raft configuration", "GET /v1/operator/raft/configuration", "", 200,
		`{"Index":5,"Servers":[{"Address":"h:1","ID":"u","Leader":true,"Node":"a","RaftProtocol":"3","Voter":true}]}`,
		func(c *Client) (any, error) { return c.RaftConfiguration(bg) },
		`{"Index":5,"Servers":[{"Address":"h:1","ID":"u","Leader":true,"Node":"a","RaftProtocol":"3","Voter":true}]}`},
	{"stale raft configuration", "GET /v1/operator/raft/configuration?stale=", "", 200, `{"Index":5,"Servers":null}`,
		func(c *Client) (any, error) { return c.Stale(nil).RaftConfiguration(bg) }, `{"Index":5,"Servers":null}`},
	{"transfer", "PUT /v1/operator/raft/transfer-leadership?id=u", "", 200, `{"Err":null}`,
		func(c *Client) (any, error) { return nil, c.TransferLeadership(bg, "u") }, `null`},
	{"remove a peer", "DELETE /v1/operator/raft/peer?id=u", "", 200, ``,
		func(c *Client) (any, error) { return nil, c.RemoveRaftPeer(bg, "u") }, `null`},
}

// TestCalls checks what each method sends and what it makes of the answer.
func TestCalls(t *testing.T) {
	for _, test := range callsCases {
		t.Run(test.name, func(t *testing.T) {
			m := newMember(t, says(test.status, test.answer))
			got, err := test.call(clientOf(t, m, m.URL))
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(got)
			if err != nil || string(text) != test.want {
				t.Errorf("got  %s (%v)\nwant %s", text, err, test.want)
			}
			requests, bodies := m.seen()
			if sent := requests[0].Method + " " + requests[0].RequestURI; sent != test.request || bodies[0] != test.body {
				t.Errorf("sent %s %s\nwant %s %s", sent, bodies[0], test.request, test.body)
			}
		})
	}
}

func TestSecretUnreadable(t *testing.T) {
	for answer, want := range map[string]string{
		`{"result":{"value":"!","encoding":"base64"}}`: "is not Base64",
		`{"result":{"value":"x","encoding":"rot13"}}`:  "which this client does not know",
	} {
		m := newMember(t, says(200, answer))
		if _, err := clientOf(t, m, m.URL).Secret(context.Background(), "db"); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, k := range []NodeKey{{Type: "RSA", Curve: "Ed25519", X: strings.Repeat("A", 43)},
		{Type: "OKP", Curve: "Ed25519", X: "AAAA"}, {Type: "OKP", Curve: "P-256"}} {
		if _, err := k.PublicKey(); err == nil {
			t.Errorf("%+v is taken for an Ed25519 key", k)
		}
	}
}

func TestMemberNotFound(t *testing.T) {
	m := newMember(t, says(404, `{"error":"Cluster member not found"}`))
	if _, err := clientOf(t, m, m.URL).Member(context.Background(), 3); err == nil ||
		err.Error() != "Cluster member not found (404)" {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.crt")
	os.WriteFile(bad, []byte("no certificate"), 0o600)
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{Addrs: []string{"ftp://h:1"}}, "the scheme must be"},
		{Config{Addrs: []string{"https://"}}, "must look like"},
		{Config{Addrs: []string{"h:x"}}, "bad address"},
		{Config{Addrs: []string{""}}, "bad address"},
		{Config{CACertFile: bad}, "holds no certificate"},
		{Config{CACertFile: bad + ".none"}, "cannot read the CA certificate"},
	} {
		if _, err := New(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.cfg, err, test.want)
		}
	}
	c, err := New(Config{Addrs: []string{"h:1", "https://h:2/", "[::1]:3"}})
	if want := []string{"https://h:1", "https://h:2", "https://[::1]:3"}; err != nil ||
		!reflect.DeepEqual(c.Addrs(), want) {
		t.Errorf("%v %v", c, err)
	}
	if c, err := New(Config{}); err != nil || c.Addrs()[0] != DefaultAddr {
		t.Errorf("%v %v", c, err)
	}
}

func TestFromEnv(t *testing.T) {
	t.Setenv("MUSTER_ADDR", "a:1, https://b:2 ,")
	t.Setenv("MUSTER_TOKEN", "tok\n")
	t.Setenv("MUSTER_CACERT", "/ca.crt")
	want := Config{Addrs: []string{"a:1", "https://b:2"}, Token: "tok", CACertFile: "/ca.crt"}
	if got := FromEnv(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFromData(t *testing.T) {
	for _, test := range []struct{ node, token, addr, err string }{
		{`{"apiAddress":"127.0.0.1:5001","other":1}`, "adm\n", "https://127.0.0.1:5001", ""},
		{`{"apiAddress":"0.0.0.0:5000"}`, "", "https://127.0.0.1:5000", ""},
		{`{"apiAddress":"[::]:5000"}`, "", "https://[::1]:5000", ""},
		{`{"apiAddress":":5000"}`, "", "https://127.0.0.1:5000", ""},
		{`{"apiAddress":"host.example:5000"}`, "", "https://host.example:5000", ""},
		{`{}`, "", "", "names no API address"},
		{`{`, "", "", "is not valid"},
		{``, "", "", "has no node.json"},
	} {
		t.Run(fmt.Sprint(test.node), func(t *testing.T) {
			dir := t.TempDir()
			if test.node != "" {
				os.WriteFile(filepath.Join(dir, "node.json"), []byte(test.node), 0o600)
			}
			if test.token != "" {
				os.WriteFile(filepath.Join(dir, "admin.token"), []byte(test.token), 0o600)
			}
			got, err := FromData(dir)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			want := Config{Addrs: []string{test.addr}, Token: strings.TrimSpace(test.token),
				CACertFile: filepath.Join(dir, "ca.crt")}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %v %v, want %v", got, err, want)
			}
		})
	}
}
