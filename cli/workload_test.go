package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkloadCommands: what the commands send, and what they refuse by themselves.
func TestWorkloadCommands(t *testing.T) {
	outside(t)
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	one := `{"id":"01a1","spiffeId":"spiffe://c/billing/api","path":"/billing/api","user":"billing","createdBy":"admin",` +
		`"createdAt":"2026-05-06T10:00:00Z"}`
	answers := map[string][]string{
		"POST /api/v1/workloads":        {`{"result":` + one + `}`},
		"GET /api/v1/workloads":         {`{"result":[` + one + `,{"id":"01a2","path":"/db"},{"id":"01a3","path":"/db"}]}`},
		"GET /api/v1/workloads/01a1":    {`{"result":` + one + `}`},
		"DELETE /api/v1/workloads/01a1": {`{"result":{"message":"Workload deleted"}}`},
	}
	nowhere := filepath.Join(t.TempDir(), "none.sock")
	for _, x := range []struct {
		line      string
		exit      int
		request   string
		out, errs string
	}{
		{"workload create /billing/api --user billing --host a.example --host 10.0.0.1", 0,
			`POST /api/v1/workloads {"path":"/billing/api","user":"billing","hosts":["a.example","10.0.0.1"]}`,
			"spiffe://c/billing/api\n", "01a1 is registered"},
		{"workload create /x", 2, "", "", "one of --user, --group and --unit is missing"},
		{"workload list", 0, "GET /api/v1/workloads", "/billing/api", ""},
		{"workload list -o name", 0, "GET /api/v1/workloads", "01a1\n01a2\n01a3\n", ""},
		{"workload show /billing/api", 0, "GET /api/v1/workloads/01a1", "spiffe://c/billing/api", ""},
		{"workload show /none", 1, "GET /api/v1/workloads", "", "there is no workload \"/none\""},
		{"workload delete /billing/api --yes", 0, "DELETE /api/v1/workloads/01a1", "", "is deleted"},
		{"workload delete /db --yes", 1, "GET /api/v1/workloads", "", "several workloads have the path /db"},
		{"workload fetch", 2, "", "", "--socket is missing"},
		{"workload fetch --watch --socket " + nowhere, 2, "", "", "--watch goes with --write"},
		{"workload jwt --socket " + nowhere, 2, "", "", "--audience is missing"},
		{"workload jwt --audience a --id nonsense --socket " + nowhere, 2, "", "", "--id is not a SPIFFE ID"},
		{"workload jwt --audience a --socket " + nowhere, 1, "", "", "the Workload API does not answer"},
	} {
		s := newServer(t, answers)
		code, out, errs := run(t, append(strings.Fields(x.line), "--addr", s.URL, "--cacert", s.caFile(t))...)
		last := ""
		if len(s.requests) > 0 {
			last = s.requests[len(s.requests)-1]
		}
		if code != x.exit || !strings.HasPrefix(last, x.request) || x.request == "" && last != "" ||
			!strings.Contains(out, x.out) || !strings.Contains(errs, x.errs) {
			t.Errorf("muster %s: exit %d, it sent %q\n%s\n%s", x.line, code, s.requests, out, errs)
		}
	}
}
