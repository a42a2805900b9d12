package cli

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// byMember are the commands and flags that take a member, with what they send when it is member 2.
var byMember = map[string]string{
	"member show ID":                     "GET /api/v1/cluster/members",
	"member drain ID":                    "POST /api/v1/cluster/members/2/drain",
	"member resume ID":                   "POST /api/v1/cluster/members/2/resume",
	"member promote ID":                  "POST /api/v1/cluster/members/2/promote",
	"member remove ID":                   "DELETE /api/v1/cluster/members/2",
	"raft transfer ID":                   "PUT /v1/operator/raft/transfer-leadership?id=" + uuidB,
	"raft remove ID --yes":               "DELETE /v1/operator/raft/peer?id=" + uuidB,
	"lease list --member ID":             "GET /api/v1/cluster/leases?nodeId=2",
	"lease put x --member ID":            `PUT /api/v1/cluster/leases/x {"nodeId":2,`,
	"cert list --node ID":                "GET /api/v1/cluster/certificates?current=true&nodeId=2",
	"audit --node ID":                    "GET /api/v1/audit?", // the server looks for the member, also without a leader
	"workload create /x --user u --node": `POST /api/v1/workloads {"path":"/x","nodeId":2,"user":"u"}`,
	"schema migrate --exclude":           `POST /api/v1/cluster/schema/migrate {"exclude":[2]}`,
}

// TestEveryNameOfAMember: whatever takes a member takes each of its names, and nothing else does something.
func TestEveryNameOfAMember(t *testing.T) {
	outside(t)
	answers := map[string][]string{
		"DELETE /v1/operator/raft/peer":        {`true`},
		"GET /api/v1/cluster/leases":           {`{"result":[]}`},
		"PUT /api/v1/cluster/leases/x":         {`{"result":{"id":"x","nodeId":2}}`},
		"GET /api/v1/cluster/certificates":     {`{"result":[]}`},
		"POST /api/v1/workloads":               {`{"result":{"id":"x","spiffeId":"spiffe://c/x"}}`},
		"GET /api/v1/audit":                    {`{"result":{"entries":[]}}`},
		"POST /api/v1/cluster/schema/migrate":  {`{"result":{"applied":2,"latest":2}}`},
		"POST /api/v1/cluster/members/2/drain": {`{"result":{"message":"x","drainState":"drained"}}`},
		"GET /api/v1/cluster/members":          {memberList("drained")},
	}
	for name, list := range api() {
		if answers[name] == nil {
			answers[name] = list
		}
	}
	for _, words := range slices.Sorted(maps.Keys(byMember)) {
		line := words
		if !strings.Contains(line, "ID") {
			line += " ID"
		}
		for _, name := range []string{"b", "b.global", uuidB, strings.ToUpper(uuidB), "10.0.0.2", "10.0.0.2:7000",
			"10.0.0.2:5000", "https://10.0.0.2:5000"} {
			s := newServer(t, answers)
			args := strings.Fields(strings.ReplaceAll(line, "ID", name))
			code, _, errs := run(t, append(args, "--addr", s.URL, "--cacert", s.caFile(t))...)
			want := byMember[words]
			if code != 0 || !slices.ContainsFunc(s.requests, func(r string) bool { return strings.HasPrefix(r, want) }) {
				t.Errorf("muster %s: exit %d, %s; it sent %q, want %q", strings.Join(args, " "), code, errs, s.requests, want)
			}
		}
		if strings.HasPrefix(words, "audit") { // it is the server that refuses
			continue
		}
		s := newServer(t, answers)
		args := strings.Fields(strings.ReplaceAll(line, "ID", "nobody"))
		code, _, errs := run(t, append(args, "--addr", s.URL, "--cacert", s.caFile(t))...)
		if code != 1 || !strings.Contains(errs, `there is no member "nobody"`) || len(s.requests) != 1 {
			t.Errorf("muster %s: exit %d, %s; it sent %q", strings.Join(args, " "), code, errs, s.requests)
		}
	}
}

// TestNoFlagTakesANumberOnly: a flag that means a member is a text, and is among those above.
func TestNoFlagTakesANumberOnly(t *testing.T) {
	taken := strings.Join(slices.Sorted(maps.Keys(byMember)), "\n")
	numbers := []string{"node-id", "snapshot-threshold", "snapshot-trailing"} // the new member's number; no members
	everyCommand(Command(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "muster ")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			switch {
			case f.Value.Type() == "uint64" && !slices.Contains(numbers, f.Name):
				t.Errorf("muster %s --%s takes a number only", path, f.Name)
			case slices.Contains([]string{"member", "node", "exclude"}, f.Name) && !strings.Contains(taken, "--"+f.Name):
				t.Errorf("muster %s --%s is not tried", path, f.Name)
			case strings.Contains(f.Usage, "address or host name") && !strings.Contains(taken, path):
				t.Errorf("muster %s --%s is not tried", path, f.Name)
			}
		})
		if group, _, _ := strings.Cut(path, " "); (group == "member" && path != "member list" || cmd.Short != "" &&
			strings.Contains(cmd.Short, "host name")) && !strings.Contains(taken, path) {
			t.Errorf("muster %s is not tried", path)
		}
	})
}
