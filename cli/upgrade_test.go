package cli

import (
	"fmt"
	"strings"
	"testing"
)

// upgradeAnswer is what a leader says of an upgrade of nodes 1 and 2.
func upgradeAnswer(next int, done bool, wait, one, two string) string {
	return fmt.Sprintf(`{"result":{"target":"v2","schema":3,"newestSchema":4,"done":%t,"summary":"what is so","next":%d,`+
		`"wait":[%s],"members":[`+
		`{"nodeId":2,"name":"b","nodeStatus":"alive","healthy":true,"isLeader":false,"version":"v1","maxSchema":3,`+
		`"state":%q},`+
		`{"nodeId":1,"name":"a","role":"voter","nodeStatus":"alive","healthy":true,"isLeader":true,"version":"v1",`+
		`"maxSchema":3,"state":%q,"note":"leads"}]}}`,
		done, next, wait, two, one)
}

func TestUpgrade(t *testing.T) {
	const path = "GET /api/v1/cluster/upgrade"
	begun := upgradeAnswer(2, false, "", "waiting", "next")
	restarted := upgradeAnswer(0, false, `"b (2) is not well yet"`, "waiting", "upgraded")
	half := upgradeAnswer(1, false, "", "next", "upgraded")
	done := upgradeAnswer(0, true, "", "upgraded", "upgraded")
	dead := upgradeAnswer(0, false, "", "upgraded", "down")
	for _, c := range []struct {
		name, args string
		answers    []string
		code       int
		stdout     []string
		stderr     []string
	}{
		{"status", "upgrade status", []string{half}, 0,
			[]string{"2   b     v1       3       member  no      -     alive   upgraded"}, []string{"what is so"}},
		{"status as JSON", "upgrade status -o json", []string{half}, 0, []string{`"next": 1`}, nil},
		{"plan", "upgrade plan", []string{restarted}, 0, []string{"1   a     voter  -     v1       waiting  leads"},
			[]string{"what is so", "not now: b (2) is not well yet"}},
		{"next waits for its turn", "upgrade next --to v2", []string{restarted, half}, 0, []string{"a\n"},
			[]string{"waiting: b (2) is not well yet", "a: leads"}},
		{"next of one member", "upgrade next --member 1", []string{begun, half}, 0, []string{"a\n"},
			[]string{"waiting: what is so"}},
		{"next of one that has it", "upgrade next --member 2", []string{half}, 0, nil, []string{"member 2 runs v2 already"}},
		{"next, nothing to do", "upgrade next", []string{done}, 0, nil, []string{"what is so"}},
		{"next, only the dead", "upgrade next", []string{dead}, 1, nil, []string{"what is so"}},
		{"next restarts all", "upgrade next --exec echo,$UPGRADE_ID,$UPGRADE_HOST",
			[]string{begun, restarted, half, half, done}, 0, nil,
			[]string{"restarting b (2)", "2 10.0.0.2", "waiting: b (2) is not well yet", "restarting a (1)", "1 10.0.0.1"}},
		{"next, the restart fails", "upgrade next --exec exit,7", []string{begun}, 1, nil,
			[]string{"the restart of b (2) failed: exit status 7"}},
		{"next says all", "upgrade next --watch", []string{begun, half, half, done}, 0, []string{"b\na\n"},
			[]string{"what is so"}},
		{"not in time", "upgrade next --timeout 3s", []string{restarted}, 1, nil,
			[]string{"not within 3s: b (2) is not well yet"}},
		{"no time", "upgrade next --timeout -1s", nil, 2, nil, []string{"--timeout must not be negative"}},
		{"self is nobody", "upgrade next --member self", nil, 2, nil, []string{"--member self needs --data"}},
		{"an old leader", "upgrade plan", []string{`404 {"error":"no such endpoint"}`}, 1, nil,
			[]string{"the leader's muster is too old to lead an upgrade"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			outside(t)
			answers := api()
			answers[path] = c.answers
			s := newServer(t, answers)
			t.Setenv("MUSTER_ADDR", s.URL)
			t.Setenv("MUSTER_CACERT", s.caFile(t))
			t.Setenv("MUSTER_TOKEN", "tok")
			args := strings.Fields(c.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], ",", " ")
			}
			code, stdout, stderr := run(t, args...)
			if code != c.code {
				t.Errorf("exit status %d, want %d", code, c.code)
			}
			contains(t, "stdout", stdout, c.stdout)
			contains(t, "stderr", stderr, c.stderr)
		})
	}
}
