package e2e

import (
	"fmt"
	"sync"
	"testing"
)

// Tokens for one use survive the death of the leader: each enrolls exactly one, and whoever repeats a request that got
// no answer gets the enrollment that was made by it.
func TestEnrollLeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	others := c.others(leader)
	const tokens = 24
	keys, ids := make([]string, tokens), map[string]bool{}
	for i := range keys {
		x, token := u.enrollToken(t, others[0], "")
		keys[i], ids[x.ID] = apiKeyHeader(token.Key), true
	}
	var wait sync.WaitGroup
	answers := make([]answer, tokens)
	begun := make(chan struct{}, tokens)
	for i, key := range keys {
		nobody := c.nobody(t)
		wait.Go(func() {
			begun <- struct{}{}
			_ = within(formed, func() error {
				answers[i] = nobody.do(others[i%2], "GET", enrollNode, "", key, fmt.Sprintf("Idempotency-Key: enroll-%d", i))
				if answers[i].err != nil || answers[i].status == 503 {
					return errNotYet
				}
				return nil
			})
		})
		if i == tokens/2 {
			<-begun // some are under way, and some are yet to come
			leader.kill()
		}
	}
	wait.Wait()
	serials := map[string]bool{}
	for i, a := range answers {
		if a.err != nil || a.status != 200 {
			t.Errorf("token %d: %v", i, a)
			continue
		}
		e := parseEnrolled(t, c, a)
		serials[e.Transport.SerialNumber.Text(16)] = true
	}
	if len(serials) != tokens {
		t.Errorf("%d tokens have made %d certificates", tokens, len(serials))
	}
	seen := map[string]int{}
	for _, e := range u.enrollments(t, others[1]) {
		if ids[e.TokenID] {
			seen[e.TokenID]++
		}
		if !serials[e.TransportSerial] {
			t.Errorf("an enrollment that nobody was told of: %+v", e)
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("token %s has enrolled %d times", id, n)
		}
	}
	for _, x := range u.enrollTokens(t, others[0]) {
		if ids[x.ID] && (x.Uses != 1 || x.State != "used") {
			t.Errorf("%+v", x)
		}
	}
	if len(seen) != tokens {
		t.Errorf("%d of %d tokens are in the list of enrollments", len(seen), tokens)
	}
}
