package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"muster/certs"
)

// TestRotationTranscript plays testdata/ca_rotation: what an operator, the leader and three members do in the rotation
// of the HTTP authority, and the state after each step. -rewrite writes what happens now.
func TestRotationTranscript(t *testing.T) {
	t.Parallel()
	var m *rotationModel
	datadriven.RunTest(t, "testdata/ca_rotation", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "cluster" {
			m = newRotationModel(t)
			return m.transcript()
		}
		var said []string
		switch d.Cmd {
		case "operator": // asks for one change
			said = m.asked(t, d.CmdArgs[0].Key)
		case "round": // of the leader
			if _, err := m.write(func(tx *Tx) error { _, err := tx.advanceCA(m.installed()); return err }); err != nil {
				t.Fatal(err)
			}
		case "told", "done": // a member gets the trust; it presents what goes with it
			for _, arg := range d.CmdArgs {
				x := m.members[memberNumber(t, arg.Key)-1]
				if d.Cmd == "told" {
					m.tell(x)
				} else {
					m.finish(x)
				}
			}
		case "pass":
			hours, err := time.ParseDuration(d.CmdArgs[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			m.now = m.now.Add(hours)
		default:
			t.Fatalf("there is no command %q", d.Cmd)
		}
		m.accepted(t)
		return strings.Join(append(said, m.transcript()), "\n")
	})
}

func memberNumber(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 3 {
		t.Fatalf("%q is no member", text)
	}
	return n
}

// asked carries a request of the operator out and returns what is answered.
func (m *rotationModel) asked(t *testing.T, action string) (said []string) {
	in := m.installed()
	_, err := m.write(func(tx *Tx) error {
		out, err := Authorities{m.store}.changeCA(tx,
			CARequest{Kinds: []certs.Kind{certs.HTTP}, Action: action, Installed: in})
		for _, s := range append(out.Steps, out.Warnings...) {
			said = append(said, "> "+settledCA.Replace(s))
		}
		return err
	})
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return []string{"refused: " + settledCA.Replace(refusal.Message)}
	}
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// settledCA shortens what no reader of a transcript looks for.
var settledCA = strings.NewReplacer("CN=muster http CA 0f5b8c1e", "CA")

// transcript describes the authorities, the rotation and the members.
func (m *rotationModel) transcript() string {
	var b strings.Builder
	list, err := m.view().inUse(certs.HTTP)
	if err != nil {
		m.t.Fatal(err)
	}
	for i := range list {
		fmt.Fprintf(&b, "generation %d: %s\n", list[i].Generation, list[i].State)
	}
	r, err := m.view().caRotation(certs.HTTP)
	if err != nil {
		m.t.Fatal(err)
	}
	if r != nil {
		fmt.Fprintf(&b, "rotation: %d → %d, phase %s, rolled back %t\n", r.Old, r.New, r.Phase, r.RolledBack)
	}
	in := m.installed()
	for _, x := range m.members {
		bundle, err := certs.ParseCerts(x.bundle)
		if err != nil {
			m.t.Fatal(err)
		}
		fmt.Fprintf(&b, "member %d: trusts %d, leaf of %s, up to date %t\n", x.id, len(bundle), m.issuerOf(x), in.Nodes[x.id])
	}
	return b.String()
}

// issuerOf names the generation that has signed what a member presents.
func (m *rotationModel) issuerOf(x *trustee) string {
	name := x.leaf.Issuer.CommonName
	if _, generation, ok := strings.Cut(name, "CA 0f5b8c1e "); ok {
		return "generation " + generation
	}
	return "generation 1"
}

// accepted fails unless every member accepts every other.
func (m *rotationModel) accepted(t *testing.T) {
	t.Helper()
	for _, x := range m.members {
		for _, y := range m.members {
			if err := m.verifies(y.bundle, x); err != nil {
				t.Errorf("member %d does not accept member %d: %v", y.id, x.id, err)
			}
		}
	}
}
