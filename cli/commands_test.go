package cli

import (
	"strings"
	"testing"
)

// commandsCases are what TestCommands goes through.
var commandsCases = []struct {
	args    string // split at blanks
	code    int
	request string   // the last one that must have been sent; empty for none
	stdout  []string // each must be in it; nil: nothing may be
	stderr  []string
}{
	{"members", 0, "GET /api/v1/cluster/members",
		[]string{"ID  NAME  STATUS  ROLE      LEADER  DRAIN", "\n2   b     alive   stand-by  no      active"}, nil},
	{"member show 2", 0, "GET /api/v1/cluster/members/2",
		[]string{"UUID           " + uuidB, "disk=ssd, zone=x", "DRAIN CHANGED  -"}, nil},
	{"member show 3", 1, "GET /api/v1/cluster/members/3", nil, []string{"muster: there is no member \"3\"\n"}},
	{"member show b -o json", 0, "GET /api/v1/cluster/members", []string{`"name": "b"`, `"nodeId": 2`}, nil},
	{"member resume 2", 0, "POST /api/v1/cluster/members/2/resume", nil, []string{"member 2 takes part again\n"}},
	{"member promote b", 0, "POST /api/v1/cluster/members/2/promote", nil, []string{"member 2 is a voter\n"}},
	{"member promote " + uuidB, 0, "POST /api/v1/cluster/members/2/promote", nil, []string{"member 2 is a voter\n"}},
	{"member promote nix", 1, "GET /api/v1/cluster/members", nil, []string{"muster: there is no member \"nix\"\n"}},
	{"member remove 2", 0, "DELETE /api/v1/cluster/members/2", nil, []string{"member 2 is removed\n"}},
	{"member remove 2 --force --yes", 0, "DELETE /api/v1/cluster/members/2?force=true", nil,
		[]string{"member 2 is removed\n"}},
	{"member remove 2 -o json", 0, "DELETE /api/v1/cluster/members/2",
		[]string{`{` + "\n" + `  "message": "member 2 is removed"`}, nil},
	{"member remove 1", 1, "DELETE /api/v1/cluster/members/1", nil,
		[]string{
			"muster: Cannot remove the current leader; drain this node first so leadership transfers, then retry (409)\n"}},
	{"join-token list", 0, "GET /api/v1/cluster/join-tokens",
		[]string{"t1  valid  4       full  0 of 1  2026-05-06T10:00:00Z"}, nil},
	{"join-token revoke t1", 0, "DELETE /api/v1/cluster/join-tokens/t1", nil, []string{"join token t1 is revoked\n"}},
	{"join-token revoke t9", 1, "DELETE /api/v1/cluster/join-tokens/t9", nil, []string{"muster: no such thing (404)\n"}},
	{"api-token list", 0, "GET /api/v1/api-tokens", []string{"ID  NAME  SCOPES"}, nil},
	{"api-token list -o json", 0, "GET /api/v1/api-tokens", []string{"[]\n"}, nil},
	{"api-token revoke k1", 0, "DELETE /api/v1/api-tokens/k1", nil, []string{"API token k1 is revoked\n"}},
	{"autopilot", 0, "GET /api/v1/cluster/autopilot", []string{"ID  NAME  STATUS  HEALTHY", "1   -     alive   yes"},
		[]string{"the cluster is healthy and survives the loss of 1 voter; leader: 1\n"}},
	{"autopilot -o json", 0, "GET /api/v1/cluster/autopilot", []string{`"failureTolerance": 1`}, nil},
	{"raft peers", 0, "GET /v1/operator/raft/configuration", []string{"a     " + uuidA + "  10.0.0.1:7000  yes    yes"},
		nil},
	{"raft peers --stale", 0, "GET /v1/operator/raft/configuration?stale=", []string{uuidA}, nil},
	{"raft transfer 2", 0, "PUT /v1/operator/raft/transfer-leadership?id=" + uuidB, nil,
		[]string{"leadership went to 2\n"}},
	{"raft transfer b", 0, "PUT /v1/operator/raft/transfer-leadership?id=" + uuidB, nil,
		[]string{"leadership went to b\n"}},
	{"raft transfer " + uuidA, 0, "PUT /v1/operator/raft/transfer-leadership?id=" + uuidA, nil,
		[]string{"leadership went to"}},
	{"raft remove 9 --yes", 1, "DELETE /v1/operator/raft/peer?id=9", nil,
		[]string{"muster: id \"9\" was not found in the Raft configuration (500)\n"}},
	{"sql SELECT-1", 0, `POST /api/v1/sql {"query":"SELECT-1"}`,
		[]string{"id                name\n1                 a\\tb\n9007199254740993  NULL\n"},
		[]string{"there are more than 2 rows"}},
	{"sql SELECT-1 -o json", 0, `POST /api/v1/sql {"query":"SELECT-1"}`,
		[]string{"9007199254740993", `"truncated": true`, "null"}, nil},
	{"status", 0, "", []string{"1   a     Leader  yes    1       42        3       1.0      c-1\n"}, nil},
	{"version", 0, "", []string{"muster dev (commit dev, go1."}, nil},
	{"version -o json", 0, "", []string{`"version": "dev"`}, nil},
	{"completion bash", 0, "", []string{"bash completion V2 for muster"}, nil},
	{"completion zsh", 0, "", []string{"#compdef muster"}, nil},
	{"completion fish", 0, "", []string{"fish completion for muster"}, nil},
	{"help member drain", 0, "", []string{"--deadline duration"}, nil},
	{"member drain --help", 0, "", []string{"--deadline duration"}, nil},

	{"", 2, "", nil, []string{"Look after a cluster:", "muster: a command is missing"}},
	{"member", 2, "", nil, []string{"Available Commands:", "muster: a command is missing"}},
	{"membrs", 2, "", nil, []string{"muster: unknown command \"membrs\"; did you mean", "members"}},
	{"member nix", 2, "", nil, []string{"muster: unknown command \"nix\""}},
	{"help nix", 2, "", nil, []string{"muster: unknown command \"nix\""}},
	{"members --nix", 2, "", nil, []string{"muster: unknown flag: --nix (see \"muster members --help\")\n"}},
	{"members more", 2, "", nil, []string{"muster: \"more\" is one argument too many"}},
	{"members -o xml", 2, "", nil, []string{"muster: -o \"xml\" is none of table, json, name"}},
	{"member show", 2, "", nil, []string{"muster: ID is missing (see \"muster member show --help\")\n"}},
	{"member drain 2 --deadline soon", 2, "", nil,
		[]string{"muster: --deadline must be a duration such as 500ms, 10s or 2h: \"soon\" is not"}},
	{"member drain 2 --deadline -1s", 2, "", nil, []string{"muster: --deadline -1s is not between"}},
	{"member drain 2 --deadline 2h", 2, "", nil, []string{"muster: --deadline 2h0m0s is not between"}},
	{"join-token create --node-id 0", 2, "", nil, []string{"muster: --node-id must be at least 1"}},
	{"join-token create --node-id x", 2, "", nil,
		[]string{"muster: --node-id must be a whole number, not negative: \"x\" is not"}},
	{"join-token create --ttl 0s", 2, "", nil, []string{"muster: --ttl must be more"}},
	{"join-token create --max-uses 0", 2, "", nil, []string{"muster: --max-uses must be"}},
	{"join-token create --mode half", 2, "", nil, []string{"muster: --mode \"half\""}},
	{"api-token create --scope enroll", 2, "", nil, []string{"muster: --name is missing"}},
	{"api-token create --name n", 2, "", nil, []string{"muster: --scope is missing"}},
	{"api-token create --name n --scope all", 2, "", nil, []string{"muster: --scope \"all\" is none of"}},
	{"sql", 2, "", nil, []string{"muster: the query is missing"}},
	{"completion", 2, "", nil, []string{"muster: the shell is missing"}},
	{"completion csh", 2, "", nil, []string{"muster: the shell \"csh\" is none of"}},
}

func TestCommands(t *testing.T) {
	for _, test := range commandsCases {
		t.Run(test.args, func(t *testing.T) {
			outside(t)
			s := newServer(t, api())
			t.Setenv("MUSTER_ADDR", s.URL)
			t.Setenv("MUSTER_CACERT", s.caFile(t))
			t.Setenv("MUSTER_TOKEN", "tok")
			code, stdout, stderr := run(t, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			contains(t, "stdout", stdout, test.stdout)
			contains(t, "stderr", stderr, test.stderr)
			requests, tokens := s.sent()
			last := ""
			if len(requests) > 0 {
				last = requests[len(requests)-1]
			}
			if last != test.request {
				t.Errorf("sent %q, want %q", last, test.request)
			}
			for _, token := range tokens {
				if token != "tok" {
					t.Errorf("token %q", token)
				}
			}
		})
	}
}
