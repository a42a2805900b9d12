package store

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestRefusalsDisplaceNothing: rows of refusals, replays and other clusters go by their own number, whatever there is
// of them; those of operators and members stay.
func TestRefusalsDisplaceNothing(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	for range 4 {
		for _, x := range []struct {
			actor Actor
			rows  int
		}{{actor, 200}, {Actor{Name: "peering", Peer: true}, 600}} {
			err := l.Write(bg, x.actor, func(tx *Tx) error {
				for i := range x.rows {
					if err := tx.audit("test.row", fmt.Sprint("test/", i), ""); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		list := make([]RefusedAttempt, 600)
		for i := range list {
			list[i] = RefusedAttempt{Remote: fmt.Sprint(i), Object: "POST /x", Detail: "401"}
		}
		if err := l.Audit.NoteRefusals(bg, list); err != nil {
			t.Fatal(err)
		}
	}
	ok := func() int64 {
		return integers(t, l, "SELECT count(*) FROM audit WHERE outcome = 'ok' AND action <> 'audit.prune'")[0]
	}
	others := func() int64 { return integers(t, l, "SELECT count(*) FROM audit WHERE outcome <> 'ok'")[0] }
	before := ok()
	if n := others(); n != 4800 {
		t.Fatalf("%d rows of others", n)
	}
	prune := func() {
		t.Helper()
		for steps, more := 0, true; more; steps++ {
			var err error
			if more, err = l.Audit.Prune(bg, actor); err != nil || steps > 20 {
				t.Fatalf("step %d: %v", steps, err)
			}
		}
	}
	for name, value := range map[string]string{SettingRefusalsRows: "2000", SettingAuditMaxRows: "1000"} {
		if _, err := l.Settings.Set(bg, actor, map[string]json.RawMessage{name: json.RawMessage(value)}); err != nil {
			t.Fatal(err)
		}
	}
	before += 2 // of the settings
	prune()
	if now, n := ok(), others(); now != before || n > 2020 || n < 1000 {
		t.Errorf("%d rows of %d are kept, and %d of others", now, before, n)
	}
	if oldest, err := l.Events.Oldest(bg); err != nil || oldest > 1 {
		t.Errorf("what operators did is said to be there from revision %d on, %v", oldest, err)
	}
	// Many rows of operators do not take the others away either.
	n := others()
	err := l.Write(bg, actor, func(tx *Tx) error {
		for i := range 1500 {
			if err := tx.audit("test.row", fmt.Sprint("test/", i), ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	prune()
	if others() != n {
		t.Errorf("%d rows of others, %d before", others(), n)
	}
}

// TestHistoryIsBounded: what rotations and removals leave behind does not grow without end, and what comes next is
// still numbered behind all that there was.
func TestHistoryIsBounded(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	numbers := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
	err := l.Write(bg, actor, func(tx *Tx) error {
		for _, query := range []string{
			"UPDATE dek_generations SET generation = 5000",
			"UPDATE dek_wraps SET generation = 5000",
			"UPDATE authorities SET generation = 5000, dek_generation = 5000",
			"UPDATE sealed_secrets SET dek_generation = 5000",
			"UPDATE secrets SET dek_generation = 5000",
			"UPDATE idempotency SET dek_generation = 5000",
			"INSERT INTO dek_generations (generation, state, reason, created_at, created_rev) " + fmt.Sprintf(numbers, 4900) +
				"SELECT i, 'retired', 'test', '2026-01-01T00:00:00Z', 1 FROM n",
			"INSERT INTO authorities (kind, generation, state, cert_pem, fingerprint, sealed_key, dek_generation, created_at, " +
				"expires_at, created_rev, modified_rev) " +
				fmt.Sprintf(numbers, 4900) +
				"SELECT 'http', i, 'retired', 'x', 'x', x'', 7, '2026-01-01T00:00:00Z', '2027-01-01T00:00:00Z', 1, 1 FROM n",
			"INSERT INTO cluster_keys (purpose, epoch, state, kid, created_at, created_rev, modified_rev) " +
				fmt.Sprintf(numbers, 3000) +
				"SELECT 'join-hmac', i + 10, 'retired', 'k' || i, '2026-01-01T00:00:00Z', 1, 1 FROM n",
			"INSERT INTO removed_members (raft_node_id, id, name, removed_at, removed_rev) " +
				fmt.Sprintf(numbers, removedKept+500) +
				"SELECT i + 100, 'u' || i, 'n', '2026-01-01T00:00:00Z', i FROM n",
		} {
			if err := tx.exec(query); err != nil {
				return fmt.Errorf("%s: %w", query, err)
			}
		}
		return tx.audit("test", "test", "")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Prune(bg, actor); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int64{
		"SELECT count(*) FROM dek_generations WHERE state = 'retired' AND generation > 7": 900, // 4 001 to 4 900
		// an authority that is left names it
		"SELECT count(*) FROM dek_generations WHERE generation = 7":                           1,
		"SELECT count(*) FROM authorities WHERE kind = 'http' AND state = 'retired'":          1000,
		"SELECT max(generation) FROM dek_generations":                                         5000,
		"SELECT count(*) FROM cluster_keys WHERE purpose = 'join-hmac' AND state = 'retired'": 1000,
		"SELECT max(epoch) FROM cluster_keys WHERE purpose = 'join-hmac'":                     3010,
		"SELECT count(*) FROM removed_members":                                                removedKept,
		"SELECT max(raft_node_id) FROM removed_members":                                       removedKept + 600,
		"SELECT count(*) FROM removed_members WHERE raft_node_id < 600":                       0,
		"SELECT count(*) FROM dek_generations WHERE state = 'active'":                         1,
		"SELECT count(*) FROM pragma_foreign_key_check":                                       0,
	} {
		if got := integers(t, l, query)[0]; got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// TestTransferThatWentOn: a member that leadership was handed to and that has handed it on has taken over all the same.
func TestTransferThatWentOn(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	since := l.Revision()
	note := func(to uint64) bool {
		t.Helper()
		took, err := l.Audit.NoteTransferred(bg, actor, to, since)
		if err != nil {
			t.Fatal(err)
		}
		return took
	}
	if note(9) {
		t.Error("node 9 has never led")
	}
	if !note(l.NodeID()) {
		t.Error("this member leads")
	}
	if err := l.Write(bg, actor, func(tx *Tx) error {
		return tx.audit("leader.elected", nodeObject(9), "epoch 9")
	}); err != nil {
		t.Fatal(err)
	}
	if !note(9) {
		t.Error("node 9 has led")
	}
	if since = l.Revision(); note(9) {
		t.Error("node 9 has led before, not since")
	}
	if got := integers(t, l,
		"SELECT count(*) FROM audit WHERE action = 'leader.transferred' AND outcome = 'refused'"); got[0] != 2 {
		t.Errorf("%d refused outcomes, want 2", got[0])
	}
}
