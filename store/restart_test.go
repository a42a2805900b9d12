package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
)

func (c *testCluster) joinAny(recipient string) (Joined, error) {
	l := c.leader()
	tok, err := mint(bg, l)
	if err != nil {
		return Joined{}, err
	}
	return l.Members.Join(bg, Actor{Name: "test"},
		Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull, Recipient: recipient, RaftAddress: "10.0.0.9:7000"}})
}

// (h) All state survives a restart of all nodes, the epoch grows, and ids go on where they were.
func TestRestartOfAll(t *testing.T) {
	c := newTestCluster(t, 3)
	ids := map[uint64]bool{1: true, 2: true, 3: true}
	next := uint64(4)
	join := func(what string) {
		t.Helper()
		var j Joined
		c.eventually(what, func() (err error) { j, err = c.joinAny(uuid.NewString()); return err })
		if j.Member.NodeID != next || ids[j.Member.NodeID] {
			t.Errorf("%s: node %d, want %d", what, j.Member.NodeID, next)
		}
		ids[j.Member.NodeID] = true
		next++
	}
	join("join before the restart")
	epoch := integers(t, c.leader(), "SELECT epoch FROM cluster")[0]
	for round := range 2 {
		before := c.agree()
		for id := range c.Dirs {
			c.stop(id)
		}
		for id := range c.Dirs {
			c.start(id)
		}
		l := c.leader()
		now := integers(t, l, "SELECT epoch FROM cluster")[0]
		if now <= epoch {
			t.Errorf("round %d: epoch %d after %d", round, now, epoch)
		}
		epoch = now
		after := c.agree()
		for table, rows := range before {
			if table == "cluster" || table == "audit" { // the new leadership writes there
				continue
			}
			if err := difference(map[string][]string{table: rows}, map[string][]string{table: after[table]}); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		have := map[string]bool{}
		for _, r := range after["audit"] {
			have[r] = true
		}
		for _, r := range before["audit"] {
			if !have[r] {
				t.Errorf("round %d: lost audit row %s", round, r)
			}
		}
		join(fmt.Sprintf("join after restart %d", round))
	}
	// A refused join uses no id up.
	l := c.leader()
	tok, err := mint(bg, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.JoinTokens.Revoke(bg, Actor{}, tok.ID); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if _, err := l.Members.Join(bg, Actor{}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull}}); !errors.As(err,
		&refusal) || refusal.Code != Unauthorized {
		t.Errorf("join with a revoked token: %v", err)
	}
	join("join after a refusal")
	c.stop(c.leader().NodeID())
	join("join on another leader")
	checkRevisions(t, c.leader())
}

// checkRevisions verifies that no revision and no audit number is missing or used twice.
func checkRevisions(t testing.TB, l *Store) {
	t.Helper()
	revisions := integers(t, l, "SELECT DISTINCT revision FROM audit ORDER BY revision")
	for i, r := range revisions {
		if r != int64(i)+1 {
			t.Fatalf("revision %d follows %d", r, i)
		}
	}
	if now := integers(t, l, "SELECT revision FROM cluster"); len(now) != 1 || now[0] != int64(len(revisions)) {
		t.Errorf("the cluster is at revision %v, the audit at %d", now, len(revisions))
	}
	if gaps := integers(t, l,
		"SELECT revision FROM audit GROUP BY revision HAVING min(seq) <> 1 OR max(seq) <> count(*)"); len(gaps) > 0 {
		t.Errorf("audit rows are missing in revisions %v", gaps)
	}
}

func audits(t testing.TB, s *Store, request string) int {
	t.Helper()
	return len(integers(t, s, "SELECT seq FROM audit WHERE request_id = ?", request))
}

func noLeader(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome)
}

// A join that a member has passed on twice, with a rotation of the keys in between, is answered like a joiner that
// comes once more: with the keys of now. Who repeats a join with an Idempotency-Key of its own is told to use another
// one.
func TestJoinPassedOnTwice(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	for _, x := range []struct {
		key     string
		refused bool
	}{{AutoKey + "a", false}, {"own", true}} {
		tok, err := mint(bg, l)
		if err != nil {
			t.Fatal(err)
		}
		j := Joiner{TokenID: tok.ID, DEKGeneration: 1,
			Member: Member{Mode: ModeFull, Recipient: uuid.NewString(), RaftAddress: "10.0.0.9:7000"}}
		actor := Actor{Name: "test", IdempotencyKey: x.key, RequestHash: "h"}
		first, err := l.Members.Join(bg, actor, j)
		if err != nil {
			t.Fatal(err)
		}
		j.DEKGeneration = 2
		again, err := l.Members.Join(bg, actor, j)
		var refusal *Refusal
		switch refused := errors.As(err, &refusal) && refusal.Code == Conflict; {
		case refused != x.refused, !refused && err != nil:
			t.Errorf("with the key %s: %v", x.key, err)
		case !refused && (again.Member.NodeID != first.Member.NodeID || again.DEKGeneration != 2):
			t.Errorf("node %d with generation %d, node %d with generation %d", first.Member.NodeID, first.DEKGeneration,
				again.Member.NodeID, again.DEKGeneration)
		}
	}
}
