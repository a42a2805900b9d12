package cli

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// caAnswer is the state of the authorities with a rotation of one of them, or without.
func caAnswer(rotation string) string {
	return `{"result":[{"kind":"http","generations":[{"generation":1,"state":"active","origin":"muster",` +
		`"fingerprint":"sha256:ab","notAfter":"2036-05-06T10:00:00Z","daysLeft":3652},` +
		`{"generation":2,"state":"prepared","origin":"operator","fingerprint":"sha256:cd",` +
		`"notAfter":"2027-05-06T10:00:00Z","daysLeft":365}]` + rotation + `},` +
		`{"kind":"transport","generations":[],"rotationAdvised":"node 3 (c), removed at 2026-05-06T10:00:00Z, could read ` +
		`the CA keys"}]}`
}

const (
	inTrust = `,"rotation":{"phase":"trust","old":1,"new":2,"pending":[{"nodeId":3,"name":"c","reason":"does not ` +
		`answer"}]}`
	inOverlap = `,"rotation":{"phase":"overlap","old":1,"new":2,"dropAt":"2026-05-07T10:00:00Z","pending":[]}`
)

func TestCACommands(t *testing.T) {
	cert := write(t, filepath.Join(t.TempDir(), "cert"), "CERT")
	key := write(t, filepath.Join(t.TempDir(), "key"), "KEY")
	answers := map[string][]string{
		"GET /api/v1/cluster/ca": {caAnswer(inTrust), caAnswer(inOverlap)},
		"POST /api/v1/cluster/ca/rotate": {`{"result":{"dryRun":false,"steps":["http: generation 2 becomes trusted"],` +
			`"warnings":["http: beware"]}}`},
		"GET /api/v1/cluster/certificates": {`{"result":[{"serial":"ab","kind":"http","nodeId":2,"node":"b","authority":1,` +
			`"issuedAt":"2026-05-06T10:00:00Z","expiresAt":"2026-08-06T10:00:00Z","daysLeft":90,"current":true}]}`},
	}
	maps.Copy(answers, api())
	const rotate = "POST /api/v1/cluster/ca/rotate "
	for _, test := range []struct {
		args    string
		code    int
		request string // the first
		stdout  []string
		stderr  []string
	}{
		{"ca status", 0, "GET /api/v1/cluster/ca",
			[]string{"KIND  GENERATION  STATE",
				"\nhttp  2           prepared  trust     operator  365   2027-05-06T10:00:00Z  sha256:cd\n"},
			[]string{"http: waits until every member trusts generation 2\nhttp: node 3 (c) does not answer\n",
				"transport: a rotation is advised: node 3 (c)"}},
		{"ca status -o json", 0, "GET /api/v1/cluster/ca", []string{`"phase": "trust"`, `"reason": "does not answer"`}, nil},
		{"ca rotate", 0, rotate + `{"kind":"all"}`, nil,
			[]string{"warning: http: beware\nhttp: generation 2 becomes trusted\nhttp: waits until",
				"generation 1 is dropped at 2026-05-07T10:00:00Z\n"}},
		{"ca rotate --dry-run --kind http --overlap 1h", 0, rotate + `{"kind":"http","dryRun":true,"overlap":"1h0m0s"}`, nil,
			[]string{"nothing was changed\n"}},
		{"ca rotate --rollback --no-wait", 0, rotate + `{"kind":"all","action":"rollback"}`, nil, []string{"generation 2"}},
		{"ca rotate --drop --yes -o json", 0, rotate + `{"kind":"all","action":"drop"}`,
			[]string{`"dryRun": false`, `"steps": [`}, []string{"beware"}},
		{"ca rotate --force --no-wait", 0, rotate + `{"kind":"all","action":"continue","force":true}`, nil,
			[]string{"beware"}},
		{"ca rotate --drop --yes --force --kind transport", 0, rotate + `{"kind":"transport","action":"drop","force":true}`,
			nil, []string{"beware"}},
		{"ca rotate --no-wait --kind http --cert " + cert + " --key " + key, 0, rotate +
			`{"kind":"http","certPEM":"CERT","keyPEM":"KEY"}`, nil, []string{"beware"}},
		{"cert list --node 2 --kind http --expires-within 720h", 0,
			"GET /api/v1/cluster/certificates?current=true&expiresWithin=720h0m0s&kind=http&nodeId=2",
			[]string{"KIND  NODE  NAME  CA",
				"\nhttp  2     b     1   90    2026-08-06T10:00:00Z  2026-05-06T10:00:00Z  -        ab\n"}, nil},
		{"cert list --all -o json", 0, "GET /api/v1/cluster/certificates", []string{`"serial": "ab"`}, nil},

		{"ca rotate --cert " + cert + " --key " + key, 2, "", nil, []string{"muster: --cert is for one kind"}},
		{"ca rotate --kind http --cert " + cert, 2, "", nil, []string{"muster: --cert and --key must be given together"}},
		{"ca rotate --rollback --drop", 2, "", nil, []string{"muster: --rollback goes with neither"}},
		{"ca rotate --force --kind http --cert " + cert + " --key " + key, 2, "", nil,
			[]string{"muster: --cert and --key are for a new rotation"}},
		{"ca rotate --kind http --cert /dev/null --key " + key, 1, "", nil,
			[]string{"muster: cannot read the CA: /dev/null is empty"}},
		{"ca rotate --kind http --cert /nowhere --key " + key, 1, "", nil,
			[]string{"muster: cannot read the CA: open /nowhere: no such file"}},
		{"ca", 2, "", nil, []string{"muster: a command is missing"}},
		{"serve --data x --rejoin", 2, "", nil, []string{"muster: --rejoin needs a join token"}},
		{"serve --data x --http-ca-cert " + cert, 2, "", nil,
			[]string{"muster: --http-ca-cert and --http-ca-key must be given together"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			outside(t)
			s := newServer(t, maps.Clone(answers))
			t.Setenv("MUSTER_ADDR", s.URL)
			t.Setenv("MUSTER_CACERT", s.caFile(t))
			t.Setenv("MUSTER_TOKEN", "tok")
			code, stdout, stderr := run(t, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit status %d, want %d: %s", code, test.code, stderr)
			}
			contains(t, "stdout", stdout, test.stdout)
			contains(t, "stderr", stderr, test.stderr)
			if test.code == 0 && test.stdout == nil && stdout != "" {
				t.Errorf("stdout has %q", stdout)
			}
			first := ""
			if requests, _ := s.sent(); len(requests) > 0 {
				first = requests[0]
			}
			if first != test.request {
				t.Errorf("sent %q, want %q", first, test.request)
			}
		})
	}
}
