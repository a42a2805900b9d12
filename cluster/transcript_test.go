package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"muster/store"
)

// TestReconcileTranscript plays testdata/reconcile: what the members table says, what Raft has, and the steps that make
// Raft agree, one after the other. -rewrite writes what happens now.
func TestReconcileTranscript(t *testing.T) {
	var members []store.Member
	var servers []store.Server
	datadriven.RunTest(t, "testdata/reconcile", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "table": // ID=ROLE …; none for a member outside Raft
			members = nil
			for _, arg := range d.CmdArgs {
				members = append(members, store.Member{NodeID: nodeNumber(t, arg.Key), Role: roleNamed(arg.Vals[0])})
			}
		case "raft":
			servers = nil
			for _, arg := range d.CmdArgs {
				servers = append(servers, store.Server{NodeID: nodeNumber(t, arg.Key), Role: roleNamed(arg.Vals[0])})
			}
		case "settle": // without=ID has a member not answer: what concerns it is left out
			without := map[uint64]bool{}
			for _, arg := range d.CmdArgs {
				without[nodeNumber(t, arg.Vals[0])] = true
			}
			var log []string
			servers, log = settleRaft(members, servers, without)
			return strings.Join(append(log, "raft: "+inRaft(servers)), "\n") + "\n"
		default:
			t.Fatalf("there is no command %q", d.Cmd)
		}
		return ""
	})
}

// settleRaft carries the differences out as the leader does, one in each step, until none is left that can be.
func settleRaft(members []store.Member, servers []store.Server, without map[uint64]bool) ([]store.Server, []string) {
	var log []string
	for {
		todo := slices.DeleteFunc(differences(members, servers), func(d Difference) bool { return without[d.NodeID] })
		if len(todo) == 0 {
			return servers, log
		}
		d := todo[0]
		servers = slices.DeleteFunc(servers, func(s store.Server) bool { return s.NodeID == d.NodeID })
		if d.Want != store.RoleNone {
			servers = append(servers, store.Server{NodeID: d.NodeID, Role: d.Want})
		}
		log = append(log, fmt.Sprintf("%d: %s → %s", d.NodeID, roleName(d.Have), roleName(d.Want)))
	}
}

func inRaft(servers []store.Server) string {
	slices.SortFunc(servers, func(a, b store.Server) int { return cmp.Compare(a.NodeID, b.NodeID) })
	var list []string
	for _, s := range servers {
		list = append(list, fmt.Sprintf("%d=%s", s.NodeID, roleName(s.Role)))
	}
	return strings.Join(list, " ")
}

func nodeNumber(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func roleNamed(text string) store.Role {
	if text == "none" {
		return store.RoleNone
	}
	return store.Role(text)
}

func roleName(r store.Role) string { return cmp.Or(string(r), "none") }
