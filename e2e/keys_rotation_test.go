package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/client"
)

// testRotationOnce: a rotation that is asked for twice with one Idempotency-Key happens once.
func testRotationOnce(t *testing.T, c *cluster) {
	u := c.admin(t)
	key := "Idempotency-Key: rotate-once"
	one := u.rotate(t, c.members[0], "", key)
	two := u.rotate(t, c.members[1], "", key)
	if newest := u.newest(t, c.members[0]).Generation; one != two || newest != one {
		t.Errorf("one rotation, asked for twice: generation %d, then %d; the newest is %d", one, two, newest)
	}
	const path, body = "/api/v1/cluster/join-keys/rotate", `{"graceSeconds":60}`
	first, again := u.do(c.members[0], "POST", path, body, "Idempotency-Key: join-keys"), u.do(c.members[1], "POST", path,
		body, "Idempotency-Key: join-keys")
	if first.status != 200 || again.body != first.body {
		t.Errorf("join-keys/rotate repeated with its Idempotency-Key: %v, the first time %v", again, first)
	}
	if a := u.do(c.members[1], "POST", "/api/v1/cluster/keys/rotate", `{"maxAgeSeconds":86400}`,
		"Idempotency-Key: with-age"); a.status != 200 {
		t.Errorf("rotating with an age: %v", a)
	}
	u.awaitRetired(t, c.members[0])
}

// testJoinsAndRotations: whoever joins at the moment in which the key changes holds the newest one.
func testJoinsAndRotations(t *testing.T, c *cluster) {
	const rounds, machines = 3, 24
	u := c.admin(t)
	leader := c.leader(t)
	token := u.create(t, leader, `{"maxUses":1000,"mode":"replicate"}`).Token
	holders := u.awaitRetired(t, leader).Holders
	for round := range rounds {
		var bodies []string
		for range machines {
			bodies = append(bodies, newMachine(t).body(t, token))
		}
		for _, a := range atOnce(machines+1, func(i int) answer {
			if i == machines {
				return u.do(leader, "POST", "/api/v1/cluster/keys/rotate", "")
			}
			time.Sleep(time.Duration(i) * 7 * time.Millisecond) // one after the other, so that some are under way at the moment
			return u.patiently(leader, "POST", "/api/v1/cluster/join", bodies[i])
		}) {
			if a.status != 200 {
				t.Errorf("a join during a rotation: %v", a)
			}
		}
		newest := u.awaitRetired(t, leader)
		if holders += machines; newest.Holders != holders {
			t.Errorf("round %d: generation %d is the only one in use; %d members hold keys and %d have a wrap of it", round+1,
				newest.Generation, holders, newest.Holders)
			u.rotate(t, leader, "") // which gives one to all
			if holders = u.awaitRetired(t, leader).Holders; holders != newest.Holders {
				t.Logf("the next rotation has %d holders", holders)
			}
		}
	}
}

// testRotation: 2 000 secrets change their key while others are written and the leader is killed.
func testRotation(t *testing.T, c *cluster) {
	const n = 2000
	u := c.admin(t)
	leader := c.leader(t)
	var next atomic.Int64
	var fill sync.WaitGroup
	begin := time.Now()
	for range 32 {
		fill.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				if a := u.patiently(leader, "PUT", fmt.Sprintf("/api/v1/cluster/secrets/many-%d", i),
					fmt.Sprintf(`{"value":"value of secret number %d"}`, i)); a.status != 201 {
					t.Errorf("secret %d: %v", i, a)
					return
				}
			}
		})
	}
	fill.Wait()
	t.Logf("%d secrets in %v", n, time.Since(begin).Round(time.Millisecond))
	old := u.awaitRetired(t, leader).Generation
	others := c.others(leader)

	var done atomic.Bool
	var writers sync.WaitGroup
	var mu sync.Mutex
	last := map[string]string{}
	writes := 0
	for w := range 3 {
		own := c.admin(t)
		writers.Go(func() {
			for i := 0; !done.Load(); i++ {
				name := fmt.Sprintf("many-%d", w*500+i%400+1)
				value := fmt.Sprintf("written by %d as number %d", w, i)
				if a := own.patiently(others[w%2], "PUT", "/api/v1/cluster/secrets/"+name, `{"value":"`+value+
					`"}`); a.status != 200 {
					t.Errorf("a write during the rotation: %v", a)
					return
				}
				mu.Lock()
				last[name] = value
				writes++
				mu.Unlock()
			}
		})
	}
	begin = time.Now()
	generation := u.rotate(t, leader, "")
	seen := "nothing"
	for range 200 {
		list, err := try[[]client.Generation](u, leader, "GET", "/api/v1/cluster/keys", "")
		if err != nil {
			break
		}
		g := list[len(list)-1]
		seen = fmt.Sprintf("%d of %d remain", g.Remaining, g.Total)
		if g.Remaining < g.Total {
			break
		}
	}
	leader.kill()
	c2 := &cluster{t: t, members: others}
	survivor := c2.leader(t)
	out := command{limit: formed}.run(t, "key", "status", "--data", c.members[0].dir, "--addr", survivor.api, "-o", "json")
	t.Logf("killed when %s; a moment later: %s", seen, strings.Join(strings.Fields(out.stdout), " "))
	leader.start(t)
	newest := u.awaitRetired(t, survivor)
	mu.Lock()
	t.Logf("generation %d to %d in %v, %d writes meanwhile", old, generation, time.Since(begin).Round(time.Millisecond),
		writes)
	mu.Unlock()
	done.Store(true)
	writers.Wait()
	if newest.Generation != generation || newest.Total < n {
		t.Errorf("the newest generation is %+v, want %d", newest, generation)
	}
	var status struct {
		Generation                uint64
		State                     string
		Percent, Remaining, Total int
	}
	out = muster(t, "key", "status", "--data", c.members[0].dir, "--addr", survivor.api, "-o", "json")
	if err := json.Unmarshal([]byte(out.stdout), &status); err != nil || status.Generation != generation ||
		status.State != "active" || status.Percent != 100 || status.Remaining != 0 {
		t.Errorf("key status: %+v, %v", out, err)
	}
	checkSecrets(t, u, survivor, n, last)
	leader.awaitReady(t)
	c.awaitVoters(t)
	survivor = c.leader(t) // its mirror comes soonest
	awaitCopies(t, c, survivor)
	checkRotated(t, c, survivor, generation)
}

// checkRotated looks at the tables after a rotation, and rotates by command.
func checkRotated(t *testing.T, c *cluster, survivor *member, generation uint64) {
	t.Helper()
	for _, q := range []string{"secrets", "sealed_secrets", "authorities", "idempotency"} {
		if got := sqlite(t, survivor.db(),
			fmt.Sprintf("SELECT count(*) FROM %s WHERE dek_generation <> %d", q, generation)); got != "0" {
			t.Errorf("node %d: %s rows of %s are of another generation", survivor.n, got, q)
		}
	}
	if got := sqlite(t, survivor.db(),
		"SELECT group_concat(DISTINCT generation) FROM dek_wraps"); got != fmt.Sprint(generation) {
		t.Errorf("node %d has wraps of the generations %s", survivor.n, got)
	}
	if got := sqlite(t, survivor.db(), "SELECT value FROM settings WHERE name = 'key_rotation'"); got != `"24h0m0s"` {
		t.Errorf("the age that was set is %q", got)
	}
	out := muster(t, "key", "rotate", "--data", c.members[0].dir)
	if out.code != 0 || out.stdout != "" || !strings.Contains(out.stderr, "re-encrypting: 100 %") ||
		!strings.Contains(out.stderr, fmt.Sprintf("generation %d is active, the older ones are retired\n", generation+1)) {
		t.Errorf("key rotate: %+v", out)
	}
	t.Logf("muster key rotate took %v:\n%s", out.took.Round(time.Millisecond), out.stderr)
	if out = muster(t, "key", "list", "--data", c.members[0].dir); strings.Count(out.stdout,
		"retired") != int(generation) || strings.Count(out.stdout, "active") != 1 {
		t.Errorf("key list: %+v", out)
	}
}

// checkSecrets reads the secrets many-1 to many-n; last has what was written over the first values.
func checkSecrets(t *testing.T, u *user, m *member, n int64, last map[string]string) {
	t.Helper()
	var next atomic.Int64
	var check sync.WaitGroup
	for range 16 {
		check.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				name := fmt.Sprintf("many-%d", i)
				want, written := last[name]
				if !written {
					want = fmt.Sprintf("value of secret number %d", i)
				}
				if got, err := u.value(m, name); err != nil || got != want {
					t.Errorf("%s is %q, %v, want %q", name, got, err, want)
					return
				}
			}
		})
	}
	check.Wait()
}
