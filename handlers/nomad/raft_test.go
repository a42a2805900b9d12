package nomad_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
	"muster/internal/await"
)

// TestRaftNeighbours: what tools of the family read besides the Raft configuration.
func TestRaftNeighbours(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	const leader = "127.0.0.1:7001"
	for i, m := range s.Members() {
		name := []string{"one", "two"}[i]
		for _, u := range []*sole.User{m.Here(s.Admin), m.Here("")} { // open to everybody, as documented
			u.Do("GET", "/v1/status/leader", "").Expect(t, "leader", 200, `"`+leader+`"`)
			u.Do("GET", "/v1/regions", "").Expect(t, "regions", 200, `["global"]`)
			u.Do("GET", "/v1/agent/health", "").Expect(t, "health", 200, `{"server":{"message":"ok","ok":true}}`)
			u.Do("GET", "/v1/agent/health?type=client", "").Expect(t, "health of a client", 500,
				`{"client":{"ok":false,"message":"client not enabled"}}`)
			u.Do("GET", "/v1/status/leader?region=nope", "").Expect(t, "region", 500, "No path to region")
			for _, query := range []string{"", "?stale"} {
				await.NoError(t, "two peers"+query, func() error { // a replica may be a moment behind
					var peers []string
					a := u.Do("GET", "/v1/status/peers"+query, "")
					if err := json.Unmarshal([]byte(a.Body), &peers); err != nil ||
						!slices.Equal(peers, []string{leader, "127.0.0.1:7002"}) {
						return fmt.Errorf("%s: %v", name, a)
					}
					return nil
				})
			}
		}
		u := m.Here(s.Admin)
		u.Do("GET", "/v1/status/leader?pretty", "").Expect(t, "pretty", 200, `"`+leader+`"`+"\n")
		var members struct {
			Members []struct {
				Addr, Name, Status string
				Port               int
				Tags               map[string]string
			}
			ServerName, ServerRegion, ServerDC string
		}
		await.NoError(t, "the agent lists two", func() error { // its replica may be a moment behind
			a := u.Do("GET", "/v1/agent/members", "")
			if err := json.Unmarshal([]byte(a.Body), &members); err != nil || len(members.Members) != 2 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
		leads := 0
		for _, x := range members.Members {
			if x.Status != "alive" || x.Tags["role"] != "nomad" || !strings.HasSuffix(x.Name, ".global") ||
				len(x.Tags["id"]) != 36 {
				t.Errorf("%s shows %+v", name, x)
			}
			// how the command line finds the leader
			if x.Addr+":"+x.Tags["port"] == leader && fmt.Sprint(x.Port) == x.Tags["port"] {
				leads++
			}
		}
		if leads != 1 || members.ServerName != name || members.ServerRegion != "global" {
			t.Errorf("%s: %+v", name, members)
		}
		var self struct {
			Config map[string]any
			Member struct{ Name string }
			Stats  map[string]map[string]string
		}
		if a := u.Do("GET", "/v1/agent/self", ""); json.Unmarshal([]byte(a.Body), &self) != nil ||
			self.Member.Name != name+".global" || self.Stats["raft"]["num_peers"] != "1" {
			t.Errorf("self of %s: %v", name, a)
		}
		m.Here("").Do("GET", "/v1/agent/members", "").Expect(t, "members without a token", 403, "Permission denied")
		m.Here("").Do("GET", "/v1/operator/autopilot/health", "").Expect(t, "health without a token", 403,
			"Permission denied")
	}
}

// TestRaftMethods: other methods are refused as the original refuses them.
func TestRaftMethods(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	for _, x := range []struct{ method, path, body, kind string }{
		{"POST", "/v1/operator/raft/configuration", "", ""}, // unlike its siblings, as documented
		{"HEAD", "/v1/operator/raft/configuration", "", ""},
		{"GET", "/v1/operator/raft/peer", "Invalid method", "text/plain; charset=utf-8"},
		{"PUT", "/v1/operator/raft/peer", "Invalid method", "text/plain; charset=utf-8"},
		{"GET", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"DELETE", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"PATCH", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"OPTIONS", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/operator/autopilot/configuration", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/operator/autopilot/health", "Invalid method", "text/plain; charset=utf-8"},
		{"DELETE", "/v1/operator/snapshot", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/status/leader", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/status/peers", "Invalid method", "text/plain; charset=utf-8"},
	} {
		a := u.Do(x.method, x.path, "")
		if a.Status != 405 || a.Body != x.body || a.Header.Get("Content-Type") != x.kind {
			t.Errorf("%s %s: %v (%s)", x.method, x.path, a, a.Header.Get("Content-Type"))
		}
	}
	u.Do("GET", "/v1/operator/raft/nothing", "").Expect(t, "unknown leaf", 404, "Invalid method")
}

// TestRaftArguments: the order of the rules of a transfer and of a removal, which comes before the question of who
// asks.
func TestRaftArguments(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	unknown := "11111111-1111-4111-8111-111111111111"
	transfer, remove := "/v1/operator/raft/transfer-leadership", "/v1/operator/raft/peer"
	for _, x := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"PUT", transfer, 400, "must specify id or address"},
		{"PUT", transfer + "?id=a&address=b", 400, "must specify either id or address"},
		{"PUT", transfer + "?id", 400, "id must be non-empty"},
		{"PUT", transfer + "?id=a&id=b", 400, "must specify only one id"},
		{"PUT", transfer + "?address=", 400, "address must be non-empty"},
		{"PUT", transfer + "?address=a&address=b", 400, "must specify only one address"},
		{"PUT", transfer + "?id=foo", 400, "id must be a uuid: uuid string is wrong length"},
		{"PUT", transfer + "?id=" + strings.Repeat("1", 36), 400, "id must be a uuid: uuid is improperly formatted"},
		{"PUT", transfer + "?address=bar", 400, "address must be in IP:port format: not an ip:port"},
		{"PUT", transfer + "?address=localhost:4647", 400,
			`address must be in IP:port format: ParseAddr("localhost"): unable to parse IP`},
		{"POST", transfer + "?address=1.2.3.4:99999", 400,
			`address must be in IP:port format: invalid port "99999" parsing "1.2.3.4:99999"`},
		{"PUT", transfer + "?region=nope&id=" + unknown, 500, "No path to region"},
		{"DELETE", remove, 400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"},
		{"DELETE", remove + "?id=a&address=b", 400, "Must specify only one of ?id or ?address"},
		{"DELETE", remove + "?id=a&id=b", 400, "Must specify only one server to remove"},
		{"DELETE", remove + "?address=a&address=b", 400, "Must specify only one server to remove"},
		{"DELETE", remove + "?id=a&region=nope", 500, "No path to region"},
	} {
		for _, u := range []*sole.User{s.Root(), s.Nobody()} {
			u.Do(x.method, x.target, "").Expect(t, x.method+" "+x.target, x.status, x.body)
		}
	}
	u := s.Root()
	for range 2 { // the same words from each member
		u.Do("PUT", transfer+"?stale=random&id="+unknown, "").Expect(t, "unknown id", 400, `id "`+unknown+
			`" was not found in the Raft configuration`)
		u.Do("PUT", transfer+"?address=9.9.9.9:8000", "").Expect(t, "unknown address", 400,
			`address "9.9.9.9:8000" was not found in the Raft configuration`)
		u.Do("DELETE", remove+"?id", "").Expect(t, "empty id", 500, `id "" was not found in the Raft configuration`)
		u.Do("DELETE", remove+"?id=%22q%22%0Ax", "").Expect(t, "quoting", 500,
			`id "\"q\"\nx" was not found in the Raft configuration`)
		u.Do("DELETE", remove+"?address=nope", "").Expect(t, "unknown address", 500,
			`address "nope" was not found in the Raft configuration`)
	}
}

// TestRaftGzip: the Raft configuration is compressed for who wants it.
func TestRaftGzip(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	plain := u.Do("GET", "/v1/operator/raft/configuration", "", "Accept-Encoding: identity")
	for range 2 {
		a := u.Do("GET", "/v1/operator/raft/configuration", "", "Accept-Encoding: gzip")
		zip, err := gzip.NewReader(strings.NewReader(a.Body))
		if err != nil || a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("%v %v", err, a.Header)
		}
		text, err := io.ReadAll(zip)
		if err != nil || string(text) != plain.Body {
			t.Errorf("%v: %s, without compression %s", err, text, plain.Body)
		}
	}
}
