package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
)

const (
	secretA = `{"name":"db","version":2,"generation":3,"createdAt":"2026-05-06T10:00:00Z",` +
		`"updatedAt":"2026-05-06T11:00:00Z"`
	lease1 = `{"id":"web/1","nodeId":2,"kind":"session","createdAt":"2026-05-06T10:00:00Z",` +
		`"expiresAt":"2026-05-06T10:01:00Z"}`
	boundT = `{"id":"t2","format":"zlayer","mode":"","state":"used","uses":4,"maxUses":4,` +
		`"createdAt":"2026-05-06T10:00:00Z","createdBy":"root","expiresAt":"2026-05-06T10:30:00Z","bindCidr":"10.0.0.0/8",` +
		`"bindName":"web-*","bindKey":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",` +
		`"usedBy":[{"nodeId":4,"usedAt":"2026-05-06T10:00:00Z","remote":"10.0.0.9"},{"nodeId":5},{"nodeId":6},{"nodeId":7}]}`
)

// generations is an answer with a newest generation of which this many of 10 values remain; the one before it has a
// state.
func generations(before string, remaining string) string {
	return `{"result":[{"generation":1,"state":"` + before +
		`","reason":"founding","createdAt":"2026-05-06T09:00:00Z","holders":0,"total":0,"remaining":0},` +
		`{"generation":2,"state":"active","reason":"on demand","createdAt":"2026-05-06T10:00:00Z","holders":3,"total":10,` +
		`"remaining":` + remaining + `}]}`
}

func keyAPI() map[string][]string {
	answers := map[string][]string{
		"GET /api/v1/cluster/keys":         {generations("re-encrypting", "4")},
		"POST /api/v1/cluster/keys/rotate": {`{"result":{"generation":2}}`},
		"POST /api/v1/cluster/join-keys/rotate": {
			`{"result":{"kids":{"join-hmac":"ab"},"graceUntil":"2026-05-06T10:00:00Z"}}`},
		"PUT /api/v1/cluster/secrets/db":      {`201 {"result":` + secretA + `}}`},
		"GET /api/v1/cluster/secrets/db":      {`{"result":` + secretA + `,"value":"pass\nword"}}`},
		"GET /api/v1/cluster/secrets/bin":     {`{"result":` + secretA + `,"value":"/wA=","encoding":"base64"}}`},
		"GET /api/v1/cluster/secrets":         {`{"result":[` + secretA + `}]}`},
		"DELETE /api/v1/cluster/secrets/db":   {`{"result":{"message":"Secret deleted"}}`},
		"GET /api/v1/cluster/leases":          {`{"result":[` + lease1 + `]}`},
		"PUT /api/v1/cluster/leases/web/1":    {`201 {"result":` + lease1 + `}`},
		"DELETE /api/v1/cluster/leases/web/1": {`{"result":{"message":"Lease released"}}`},
	}
	maps.Copy(answers, api())
	answers["GET /api/v1/cluster/join-tokens"] = []string{`{"result":[` + boundT + `]}`}
	return answers
}

// keyHash is the SHA-256 of a public key in the tests' join tokens.
const keyHash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// keyCommand is a command with its exit status, the last request, and texts of its output.
type keyCommand struct {
	args    string
	code    int
	request string
	stdout  []string
	stderr  []string
}

// keyCommands are accepted, or refused by the server.
var keyCommands = []keyCommand{
	{"key list", 0, "GET /api/v1/cluster/keys",
		[]string{"GENERATION  STATE          HOLDERS  TOTAL  REMAINING",
			"\n2           active         3        10     4          2026-05-06T10:00:00Z  on demand\n"}, nil},
	{"key list -o json", 0, "GET /api/v1/cluster/keys", []string{`"generation": 2`, `"remaining": 4`}, nil},
	{"key status", 0, "GET /api/v1/cluster/keys",
		[]string{"GENERATION  STATE          PERCENT", "2           re-encrypting  60       4          3\n"}, nil},
	{"key status -o json", 0, "GET /api/v1/cluster/keys", []string{`"state": "re-encrypting"`, `"percent": 60`}, nil},
	{"key rotate --no-wait", 0, "POST /api/v1/cluster/keys/rotate", nil,
		[]string{"generation 2 is active; \"muster key status\" shows"}},
	{"key rotate --no-wait --max-age 720h -o json", 0, `POST /api/v1/cluster/keys/rotate {"maxAgeSeconds":2592000}`,
		[]string{`"generation": 2`}, nil},
	{"key rotate --no-wait --max-age 0s", 0, `POST /api/v1/cluster/keys/rotate {"maxAgeSeconds":0}`, nil,
		[]string{"generation 2 is active"}},
	{"join-keys rotate", 0, `POST /api/v1/cluster/join-keys/rotate {"graceSeconds":604800}`, nil,
		[]string{"older tokens are valid until 2026-05-06T10:00:00Z: no valid join token is affected\n"}},
	{"join-keys rotate --grace 0s", 0, `POST /api/v1/cluster/join-keys/rotate {"graceSeconds":0}`, nil,
		[]string{"older tokens are no longer valid"}},
	{"join-keys rotate --grace 1h -o json", 0, `POST /api/v1/cluster/join-keys/rotate {"graceSeconds":3600}`,
		[]string{`"join-hmac": "ab"`}, nil},
	{"secret put db", 0, `PUT /api/v1/cluster/secrets/db {"value":"from-stdin\n"}`, nil,
		[]string{"secret db has version 2\n"}},
	{"secret put db -o json", 0, `PUT /api/v1/cluster/secrets/db {"value":"from-stdin\n"}`, []string{`"version": 2`}, nil},
	{"secret get db", 0, "GET /api/v1/cluster/secrets/db", []string{"pass\nword"}, nil},
	{"secret get db -o json", 0, "GET /api/v1/cluster/secrets/db", []string{`"value": "pass\nword"`, `"version": 2`}, nil},
	{"secret get bin", 0, "GET /api/v1/cluster/secrets/bin", []string{"\xff\x00"}, nil},
	{"secret get bin -o json", 0, "GET /api/v1/cluster/secrets/bin", []string{`"value": "/wA="`, `"encoding": "base64"`},
		nil},
	{"secret get none", 1, "GET /api/v1/cluster/secrets/none", nil, []string{"muster: no such thing (404)\n"}},
	{"secret list", 0, "GET /api/v1/cluster/secrets",
		[]string{"NAME  VERSION  GENERATION  CREATED               UPDATED",
			"\ndb    2        3           2026-05-06T10:00:00Z  2026-05-06T11:00:00Z\n"}, nil},
	{"secret list -o json", 0, "GET /api/v1/cluster/secrets", []string{`"name": "db"`}, nil},
	{"secret delete db --yes", 0, "DELETE /api/v1/cluster/secrets/db", nil, []string{"secret db is deleted\n"}},
	{"lease list", 0, "GET /api/v1/cluster/leases",
		[]string{"ID     MEMBER  KIND", "\nweb/1  2       session  2026-05-06T10:00:00Z  2026-05-06T10:01:00Z\n"}, nil},
	{"lease list --member 2 -o json", 0, "GET /api/v1/cluster/leases?nodeId=2", []string{`"id": "web/1"`}, nil},
	{"lease list --member b", 0, "GET /api/v1/cluster/leases?nodeId=2", []string{"web/1"}, nil},
	{"lease put web/1 --member 2 --kind session", 0,
		`PUT /api/v1/cluster/leases/web%2F1 {"nodeId":2,"ttlSeconds":60,"kind":"session"}`, nil,
		[]string{"lease web/1 on member 2 holds until 2026-05-06T10:01:00Z\n"}},
	{"lease put web/1 --member b --ttl 90s -o json", 0, `PUT /api/v1/cluster/leases/web%2F1 {"nodeId":2,"ttlSeconds":90}`,
		[]string{`"id": "web/1"`}, nil},
	{"lease delete web/1", 0, "DELETE /api/v1/cluster/leases/web%2F1", nil, []string{"lease web/1 is released\n"}},
	{"join-token list", 0, "GET /api/v1/cluster/join-tokens",
		[]string{"zlayer  cidr=10.0.0.0/8,name=web-*,key=01234567  4,5,6,…\n"}, nil},
	{"join-token create --format zlayer --cidr 10.0.0.0/8 --name-pattern web-* --key-hash " + keyHash +
		" --host db1.example --host *.apps.example --label rack=a --label zone=b=c", 0,
		`POST /api/v1/cluster/join-tokens {"ttlSeconds":1800,"maxUses":1,"mode":"full","format":"zlayer",` +
			`"bindCidr":"10.0.0.0/8","bindName":"web-*","bindKey":"` + keyHash +
			`","hosts":["db1.example","*.apps.example"],"labels":{"rack":"a","zone":"b=c"}}`,
		[]string{"JOIN-SECRET\n"}, []string{"join token t1 can be used once"}},
}

// wrongKeyCommands are refused before a request.
var wrongKeyCommands = []keyCommand{
	{"join-token create --host *", 2, "", nil, []string{"muster: --host: \"*\" is neither"}},
	{"key rotate --max-age 59m", 2, "", nil, []string{"muster: --max-age must be at least 1h"}},
	{"key rotate --max-age -1h", 2, "", nil, []string{"muster: --max-age must be at least 1h"}},
	{"key rotate now", 2, "", nil, []string{"muster: \"now\" is one argument too many"}},
	{"key", 2, "", nil, []string{"muster: a command is missing"}},
	{"join-keys rotate --grace -1s", 2, "", nil, []string{"muster: --grace -1s is not between"}},
	{"join-keys rotate --grace 2161h", 2, "", nil, []string{"muster: --grace 2161h0m0s is not between"}},
	{"secret put", 2, "", nil, []string{"muster: NAME is missing"}},
	{"secret put db --token-file -", 2, "", nil, []string{"muster: the token and the value cannot both come from stdin"}},
	{"secret put db --file /dev/null", 1, "", nil, []string{"muster: the value is empty, and nothing is stored\n"}},
	{"secret put db --file /nowhere", 1, "", nil,
		[]string{"muster: cannot read the value: open /nowhere: no such file or directory\n"}},
	{"secret get", 2, "", nil, []string{"muster: NAME is missing"}},
	{"lease put web/1", 2, "", nil, []string{"muster: --member is missing"}},
	{"lease put web/1 --member 2 --ttl 0s", 2, "", nil, []string{"muster: --ttl 0s is not more"}},
	{"lease put web/1 --member 2 --ttl 25h", 2, "", nil, []string{"muster: --ttl 25h0m0s is not more"}},
	{"join-token create --format jwt", 2, "", nil, []string{"muster: --format \"jwt\" is neither"}},
	{"join-token create --cidr 10.0.0.1", 2, "", nil, []string{"muster: --cidr \"10.0.0.1\" is not a prefix"}},
	{"join-token create --cidr 10.0.0.1/8", 2, "", nil, []string{"did you mean 10.0.0.0/8?"}},
	{"join-token create --name-pattern [", 2, "", nil, []string{"muster: --name-pattern \"[\" is not a pattern"}},
	{"join-token create --key-hash abc", 2, "", nil, []string{"muster: --key-hash must be 64"}},
	{"join-token create --key-hash " + strings.ToUpper(keyHash), 2, "", nil, []string{"muster: --key-hash must be 64"}},
	{"join-token create --label rack", 2, "", nil, []string{"muster: --label \"rack\" must be KEY=VALUE"}},
	{"join-token create --label =a", 2, "", nil, []string{"muster: --label \"=a\" must be KEY=VALUE"}},
	{"join-token create --label a=1 --label a=2", 2, "", nil, []string{"muster: --label \"a=2\" must be KEY=VALUE"}},
}

func TestKeyCommands(t *testing.T) {
	for _, test := range slices.Concat(keyCommands, wrongKeyCommands) {
		t.Run(test.args, func(t *testing.T) {
			outside(t)
			s := newServer(t, keyAPI())
			t.Setenv("MUSTER_ADDR", s.URL)
			t.Setenv("MUSTER_CACERT", s.caFile(t))
			t.Setenv("MUSTER_TOKEN", "tok")
			code, stdout, stderr := run(t, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			contains(t, "stdout", stdout, test.stdout)
			contains(t, "stderr", stderr, test.stderr)
			if strings.HasPrefix(test.args, "secret get") && !strings.Contains(test.args, "json") && code == 0 &&
				stdout != test.stdout[0] {
				t.Errorf("stdout is %q, not the value alone", stdout)
			}
			requests, _ := s.sent()
			last := ""
			if len(requests) > 0 {
				last = requests[len(requests)-1]
			}
			if last != test.request {
				t.Errorf("sent %q, want %q", last, test.request)
			}
		})
	}
}

func TestSecretFromFile(t *testing.T) {
	outside(t)
	s := newServer(t, keyAPI())
	data := s.data(t, filepath.Join(t.TempDir(), "1"), "tok")
	file := write(t, filepath.Join(t.TempDir(), "value"), "\xff\x00")
	if code, stdout, stderr := run(t, "secret", "put", "db", "--file", file, "--data", data); code != 0 || stdout != "" {
		t.Errorf("exit %d, %q %q", code, stdout, stderr)
	}
	requests, _ := s.sent()
	if want := `PUT /api/v1/cluster/secrets/db {"value":"/wA=","encoding":"base64"}`; requests[len(requests)-1] != want {
		t.Errorf("sent %s, want %s", requests[len(requests)-1], want)
	}
	write(t, file, strings.Repeat("x", maxSecret+1))
	if code, _, stderr := run(t, "secret", "put", "db", "--file", file, "--data", data); code != 1 ||
		!strings.Contains(stderr, "longer than 64 KiB") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestKeyRotate(t *testing.T) {
	for _, test := range []struct {
		name, args     string
		rotate, keys   []string
		code           int
		stdout, stderr []string
	}{
		{"at once", "", []string{`{"result":{"generation":2}}`}, []string{generations("retired", "0")}, 0, nil,
			[]string{"re-encrypting: 100 %  10 of 10 values\ngeneration 2 is active, the older ones are retired\n"}},
		{"after a while, through trouble", "", []string{`{"result":{"generation":2}}`},
			[]string{generations("re-encrypting", "10"), `503 {"error":"no cluster leader: raft commit timeout"}`,
				generations("re-encrypting", "0"), generations("retired", "0")}, 0, nil,
			[]string{"re-encrypting: 0 %  0 of 10 values\n", "re-encrypting: 100 %  10 of 10 values\ngeneration 2 is active"}},
		{"as JSON", "-o json", []string{`{"result":{"generation":2}}`}, []string{generations("retired", "0")}, 0,
			[]string{`"generation": 2`, `"state": "active"`, `"percent": 100`}, []string{"100 %"}},
		{"rotated again meanwhile", "", []string{`{"result":{"generation":1}}`}, []string{generations("re-encrypting", "5")},
			0, nil,
			[]string{"generation 1 is active"}},
		{"refused", "", []string{`403 {"error":"Forbidden"}`}, nil, 1, nil, []string{"muster: Forbidden (403)\n"}},
		{"token revoked meanwhile", "", []string{`{"result":{"generation":2}}`}, []string{`401 {"error":"Invalid token"}`}, 1,
			nil, []string{"muster: Invalid token (401)\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			outside(t)
			s := newServer(t, map[string][]string{"POST /api/v1/cluster/keys/rotate": test.rotate,
				"GET /api/v1/cluster/keys": test.keys})
			data := s.data(t, filepath.Join(t.TempDir(), "1"), "tok")
			code, stdout, stderr := run(t, append([]string{"key", "rotate", "--data", data}, strings.Fields(test.args)...)...)
			if code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			contains(t, "stdout", stdout, test.stdout)
			contains(t, "stderr", stderr, test.stderr)
		})
	}
}

func TestKeyRotateInterrupted(t *testing.T) {
	outside(t)
	s := newServer(t, keyAPI())
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	var out, errs bytes.Buffer
	code := Main(ctx, []string{"key", "rotate", "--data", s.data(t, t.TempDir(), "tok")}, nil, &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "re-encryption continues by itself") ||
		!strings.HasSuffix(errs.String(), "muster: interrupted\n") {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
}

func TestStatusOfKeys(t *testing.T) {
	for _, test := range []struct{ list, want string }{
		{`[{"generation":1,"state":"active"}]`,
			`{"generation":1,"state":"active","percent":100,"total":0,"remaining":0,"holders":0}`},
		{`[{"generation":1,"state":"re-encrypting"},{"generation":2,"state":"active","total":0}]`,
			`{"generation":2,"state":"re-encrypting","percent":0,"total":0,"remaining":0,"holders":0}`},
		// written under the old generation while the new one came to be
		{`[{"generation":1,"state":"re-encrypting"},{"generation":2,"state":"active","total":3,"remaining":4}]`,
			`{"generation":2,"state":"re-encrypting","percent":0,"total":3,"remaining":4,"holders":0}`},
		{`[{"generation":1,"state":"re-encrypting"},{"generation":2,"state":"active","total":3,"remaining":0}]`,
			`{"generation":2,"state":"re-encrypting","percent":99,"total":3,"remaining":0,"holders":0}`},
	} {
		var list []client.Generation
		if err := json.Unmarshal([]byte(test.list), &list); err != nil {
			t.Fatal(err)
		}
		s, err := statusOfKeys(list)
		if got, _ := json.Marshal(s); err != nil || string(got) != test.want {
			t.Errorf("%s\ngot  %s %v\nwant %s", test.list, got, err, test.want)
		}
	}
	if _, err := statusOfKeys(nil); err == nil {
		t.Error("no generation is no error")
	}
}
