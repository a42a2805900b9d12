package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/getkin/kin-openapi/openapi3"

	"muster/handlers/native/openapi"
)

// staleReads lists the documented reads with a parameter stale that ask for the cluster's state, with values in their
// paths. Not among them is what the member that is asked says of itself, and the health that only a leader knows.
func staleReads(t *testing.T) (list []string) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("{id}", "1", "{name}", "east", "{node}", "1")
	for path, item := range doc.Paths.Map() {
		own := strings.HasPrefix(path, "/v1/agent/") || path == "/v1/regions" || path == "/v1/operator/autopilot/health"
		if !own && item.Get != nil && item.Get.Parameters.GetByInAndName("query", "stale") != nil {
			list = append(list, values.Replace(path))
		}
	}
	slices.Sort(list)
	return list
}

// TestStale: the only member that is left of three answers every read that has ?stale, at once, and says how old it is.
func TestStale(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	admin := c.admin(t)
	leader := c.leader(t)
	if a := admin.do(leader, "POST", "/v1/peering/token", `{"PeerName":"east"}`); a.status != http.StatusOK {
		t.Fatal(a)
	}
	left := c.others(leader)[0]
	awaitCopies(t, c, c.members...)
	for _, m := range c.others(left) {
		m.kill()
	}
	eventually(t, formed, "no leader is known", func() error {
		if st, err := left.tryStatus(); err != nil || st.Cluster.LeaderNodeID != 0 {
			return fmt.Errorf("%v: %+v", err, st.Cluster)
		}
		return nil
	})
	reads := staleReads(t)
	if len(reads) < 20 {
		t.Errorf("only %d reads have ?stale: %v", len(reads), reads)
	}
	for _, path := range reads {
		a := admin.do(left, "GET", path+"?stale", "")
		gone := a.status == http.StatusNotFound && strings.HasSuffix(a.body, `not found"}`) // of what this cluster has none
		if a.err != nil || a.status != http.StatusOK && !gone {
			t.Errorf("GET %s?stale: %v", path, a)
			continue
		}
		ago, err := strconv.Atoi(a.header.Get("X-Muster-Last-Contact"))
		if known := a.header.Get("X-Muster-Known-Leader"); err != nil || ago <= 0 || ago > int(time.Hour.Milliseconds()) ||
			known != "false" {
			t.Errorf("GET %s?stale: last contact %d ms ago (%v), a leader known: %q", path, ago, err, known)
		}
	}
	for _, path := range []string{"/api/v1/cluster/members", "/v1/operator/raft/configuration"} {
		if a := admin.do(left, "GET", path+"?stale=perhaps", ""); a.status != http.StatusBadRequest {
			t.Errorf("GET %s?stale=perhaps: %v", path, a)
		}
	}
	var state struct {
		Result struct {
			Healthy bool
			Voters  []int
			Servers []struct{ NodeStatus string }
		}
	}
	decode(t, admin.do(left, "GET", "/api/v1/cluster/autopilot?stale", ""), &state)
	if state.Result.Healthy || len(state.Result.Voters) != 3 || len(state.Result.Servers) != 3 ||
		state.Result.Servers[0].NodeStatus != "unknown" {
		t.Errorf("without a leader autopilot says %+v", state.Result)
	}
}

// backupWithoutLeader saves what a member has that never led, with the keys for a recipient: the member opens them
// itself.
func backupWithoutLeader(t *testing.T, cmd command, dir string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity, file := filepath.Join(dir, "operator.key"), filepath.Join(dir, "stale.age")
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.ok(t, "backup", "save", file, "--stale", "--recipient", id.Recipient().String())
	if saved := jsonOf[struct{ Openable bool }](t,
		cmd.ok(t, "backup", "inspect", file, "--identity", identity, "-o", "json")); !saved.Openable {
		t.Error("its keys cannot be opened by the identity that it was saved for")
	}
}

// TestCommandsWithoutLeader: one member of three is left, the others are dead or hang. A command that reads shows what
// that member knew and how old it is; one that changes something says for certain that nothing has happened.
func TestCommandsWithoutLeader(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*member){"killed": func(m *member) { m.kill() }, "frozen": func(m *member) {
		m.pause()
	}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3)
			left := c.others(c.leader(t))[0]
			awaitCopies(t, c, c.members...)
			for _, m := range c.others(left) {
				lose(m)
				t.Cleanup(m.carryOn)
			}
			eventually(t, formed, "no leader is known", func() error {
				if st, err := left.tryStatus(); err != nil || st.Cluster.LeaderNodeID != 0 {
					return fmt.Errorf("%v: %+v", err, st.Cluster)
				}
				return nil
			})
			cmd := command{env: c.env(c.token)}
			for _, line := range []string{"members", "member list", "member show 1", "autopilot", "raft peers", "key list",
				"peering list", "settings get", "audit", "members --stale"} {
				out := cmd.run(t, strings.Fields(line)...)
				if out.code != 0 || out.stdout == "" && line != "peering list" ||
					!strings.Contains(out.stderr, "the member at https://"+left.api) || !strings.Contains(out.stderr, " ago\n") {
					t.Errorf("muster %s: exit %d, %q, %q", line, out.code, out.stdout, out.stderr)
				}
			}
			backupWithoutLeader(t, cmd, c.root)
			out := cmd.run(t, "join-token", "create")
			if out.code != 3 || out.stdout != "" ||
				!strings.HasSuffix(out.stderr, "Nothing was sent, so nothing has happened.\n") {
				t.Errorf("muster join-token create: exit %d, %q, %q", out.code, out.stdout, out.stderr)
			}
		})
	}
}
