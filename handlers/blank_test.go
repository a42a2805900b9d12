package handlers_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// TestBlankFields: a field that is given but blank, as a script's failed command leaves it, is refused and never taken
// for one that is absent.
func TestBlankFields(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	s.Unchanged(func(u *sole.User) {
		for _, x := range []struct{ method, path, body string }{
			{"POST", "/api/v1/api-tokens", `{"name":%q,"scopes":["enroll"]}`},
			{"POST", "/api/v1/api-tokens", `{"name":"x","scopes":[%q]}`},
			{"POST", "/_security/api_key", `{"name":%q}`},
			{"POST", "/_security/api_key", `{"name":"x","expiration":%q}`},
			{"POST", "/api/v1/cluster/enrollment-tokens", `{"scope":%q}`},
			{"POST", "/api/v1/cluster/ca/rotate", `{"dryRun":true,"kind":%q}`},
			{"POST", "/api/v1/cluster/ca/rotate", `{"dryRun":true,"action":%q}`},
			{"POST", "/api/v1/cluster/ca/rotate", `{"dryRun":true,"overlap":%q}`},
			{"PUT", "/api/v1/cluster/secrets/x", `{"value":"eA==","encoding":%q}`},
			{"POST", "/api/v1/workloads", `{"path":%q,"user":"x"}`},
			{"POST", "/api/v1/workloads", `{"path":"/x","user":%q}`},
			{"POST", "/api/v1/workloads", `{"path":"/x","user":"x","group":%q}`},
			{"POST", "/api/v1/workloads", `{"path":"/x","user":"x","unit":%q}`},
			{"POST", "/api/v1/cluster/join-tokens", `{"mode":%q}`},
			{"POST", "/api/v1/cluster/join-tokens", `{"format":%q}`},
			{"POST", "/api/v1/cluster/join-tokens", `{"bindCidr":%q}`},
			{"POST", "/api/v1/cluster/join-tokens", `{"bindKey":%q}`},
			{"POST", "/api/v1/cluster/join-tokens", `{"bindName":%q}`},
			{"PUT", "/v1/operator/autopilot/configuration?cas=%s", `{}`},
			{"GET", "/v1/operator/snapshot?recipient=%s", ""},
			{"DELETE", "/api/v1/cluster/enrollment-tokens/x?keepEnrollments=%s", ""},
			{"POST", "/v1/peering/token", `{"PeerName":%q}`},
			{"POST", "/v1/peering/token", `{"PeerName":"x","ServerExternalAddresses":[%q]}`},
		} {
			for _, blank := range []string{"", " "} {
				path, body := x.path, x.body
				if strings.Contains(path, "%s") {
					path = fmt.Sprintf(path, url.QueryEscape(blank))
				} else {
					body = fmt.Sprintf(body, blank)
				}
				if a := u.Do(x.method, path, body, "Content-Type: application/json"); a.Status != 400 {
					t.Errorf("%s %s %s: %v", x.method, path, body, a)
				}
			}
		}
	})
}
