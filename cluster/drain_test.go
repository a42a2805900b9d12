package cluster

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"muster/internal/await"
	"muster/store"
)

// drainScene is a member that leads alone, and node 2, which never answers.
type drainScene struct {
	*testMember
	t    *testing.T
	seen store.Position // how much of the audit the transcript has
}

// TestDrainTranscript plays testdata/drain: what operators and lease holders ask for, and what the leader makes of it.
// -rewrite writes what happens now.
func TestDrainTranscript(t *testing.T) {
	t.Parallel()
	var s *drainScene
	datadriven.RunTest(t, "testdata/drain", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "cluster" {
			s = newDrainScene(t)
			return ""
		}
		node := uint64(2)
		if d.HasArg("node") {
			d.ScanArgs(t, "node", &node)
		}
		ctx, actor := t.Context(), store.Actor{Name: "operator"}
		var err error
		switch d.Cmd {
		case "lease":
			lease := store.Lease{ID: d.CmdArgs[0].Key, NodeID: node}
			_, _, err = s.Store.Leases.Put(ctx, actor, lease, time.Hour)
		case "release":
			err = s.Store.Leases.Delete(ctx, actor, d.CmdArgs[0].Key)
		case "drain": // for=DURATION waits for leases
			var wait time.Duration
			if d.HasArg("for") {
				var text string
				d.ScanArgs(t, "for", &text)
				if wait, err = time.ParseDuration(text); err != nil {
					t.Fatal(err)
				}
			}
			_, err = s.Store.Members.BeginDrain(ctx, actor, node, wait)
		case "resume":
			_, err = s.Store.Members.Resume(ctx, actor, node)
		case "await": // STATE, in which no hooks are to be run; what the audit has by then is part of the transcript
			s.await(node, d.CmdArgs[0].Key)
			return s.news()
		default:
			t.Fatalf("there is no command %q", d.Cmd)
		}
		var refusal *store.Refusal
		if errors.As(err, &refusal) {
			return "refused: " + refusal.Message + "\n"
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Wake()
		return ""
	})
}

func newDrainScene(t *testing.T) *drainScene {
	t.Helper()
	m := startMember(t, func(c *Config) {
		c.Hooks.Drain = []Hook{{Name: "quiet", Command: "true"}, {Name: "fails", Command: "echo it is busy; exit 3"}}
		c.Hooks.Resume = []Hook{{Name: "quiet", Command: "true"}}
	})
	key, err := m.Store.Keys.Active(t.Context(), store.AsLeader, store.KeyJoinHMAC)
	if err != nil {
		t.Fatal(err)
	}
	token, err := m.Store.JoinTokens.Create(t.Context(), store.Actor{Name: "operator"}, store.JoinToken{
		ID:        store.NewID(),
		Format:    store.FormatMuster,
		MaxUses:   1,
		KeyEpoch:  key.Epoch,
		ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	member := store.Member{Name: "two", Mode: store.ModeFull, RaftAddress: "127.0.0.1:1", APIAddress: "127.0.0.1:2"}
	if _, err := m.Store.Members.Join(t.Context(), store.Actor{},
		store.Joiner{TokenID: token.ID, Member: member}); err != nil {
		t.Fatal(err)
	}
	s := &drainScene{testMember: m, t: t}
	s.news()
	return s
}

func (s *drainScene) await(node uint64, state string) {
	s.t.Helper()
	await.NoError(s.t, fmt.Sprintf("node %d is %s", node, state), func() error {
		m, err := s.Store.Members.Get(s.t.Context(), store.AsLeader, node)
		if err == nil && (m.DrainState != state || m.HooksPending != "") {
			err = fmt.Errorf("it is %s, and its hooks are %q", m.DrainState, m.HooksPending)
		}
		return err
	})
}

var (
	ofDrains  = regexp.MustCompile(`^(lease\.|member\.(drain|resume))`)
	notSteady = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z|"millis":\d+`)
)

// news is what the audit says of drains and leases that it has not said before.
func (s *drainScene) news() string {
	s.t.Helper()
	rows, err := s.Store.Audit.List(s.t.Context(), store.Linearisable,
		store.AuditFilter{After: s.seen, HasAfter: true, Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for i := range rows {
		r := &rows[i]
		s.seen = r.Position()
		if ofDrains.MatchString(r.Action) {
			fmt.Fprintf(&b, "%s %s: %s %s\n", r.Actor, r.Action, r.Object, notSteady.ReplaceAllString(r.Detail, "…"))
		}
	}
	return b.String()
}
