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

// TestUnknownFields: muster's own endpoints refuse a field that they do not know, and name the one that is meant. A
// misspelt field must not become a default, such as a token without end.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	s.Unchanged(func(u *sole.User) {
		for _, x := range []struct{ method, path, body, want string }{
			{"POST", "/api/v1/api-tokens", `{"name":"x","scopes":["enroll"],"ttl":60}`, "did you mean ttlSeconds?"},
			{"POST", "/api/v1/cluster/join-tokens", `{"maxUse":1}`, "did you mean maxUses?"},
			{"POST", "/api/v1/cluster/enrollment-tokens", `{"ttlSecond":1}`, "did you mean ttlSeconds?"},
			{"POST", "/api/v1/cluster/ca/rotate", `{"dry_run":true}`, "did you mean dryRun?"},
			{"POST", "/api/v1/cluster/keys/rotate", `{"maxAge":7200}`, "use one of maxAgeSeconds"},
			{"POST", "/api/v1/cluster/join-keys/rotate", `{"grace":0}`, "did you mean graceSeconds?"},
			{"PUT", "/api/v1/cluster/secrets/x", `{"value":"x","encode":"base64"}`, "use one of value, encoding"},
			{"PUT", "/api/v1/cluster/leases/x", `{"nodeId":1,"ttlSeconds":60,"kinds":"x"}`, "did you mean kind?"},
			{"POST", "/api/v1/workloads", `{"path":"/x","users":"x"}`, "did you mean user?"},
			{"POST", "/api/v1/cluster/schema/migrate", `{"excluded":[1]}`, "did you mean exclude?"},
			{"POST", "/api/v1/sql", `{"query":"SELECT 1","limit":1}`, "use one of query"},
			{"POST", "/api/v1/login", `{"token":"x"}`, "is not a field of this request"},
		} {
			a := u.Do(x.method, x.path, x.body, "Content-Type: application/json")
			if a.Status != 400 || !strings.Contains(string(a.Body), x.want) {
				t.Errorf("%s %s %s: %v", x.method, x.path, x.body, a)
			}
		}
	})
}
