package e2e

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// asShortLived in the environment makes a muster whose certificates live for seconds: "LEAF CA", each a duration or 0s
// for what it always is.
const asShortLived = "MUSTER_E2E_LIVES"

func shortLives(text string) {
	leaf, ca, ok := strings.Cut(text, " ")
	if !ok {
		return
	}
	if d, err := time.ParseDuration(leaf); err == nil && d > 0 {
		store.LeafLifetime = d
	}
	if d, err := time.ParseDuration(ca); err == nil && d > 0 {
		certs.CAEnd = func(now time.Time) time.Time { return now.Add(d) }
	}
}

// shortLived forms a cluster of three whose certificates live for seconds.
func shortLived(t *testing.T, leaf, ca time.Duration) *cluster {
	t.Helper()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	for len(c.members) < 3 {
		m := c.add()
		m.env = []string{fmt.Sprintf("%s=%s %s", asShortLived, leaf, ca)}
		if m.n > 1 {
			c.join(m)
			m.awaitReady(t)
			continue
		}
		m.start(t)
		m.awaitReady(t)
		c.adopt(t)
	}
	c.awaitVoters(t)
	return c
}

// leafOf reads a member's certificate of a kind.
func leafOf(t *testing.T, m *member, kind string) *x509.Certificate {
	t.Helper()
	list, err := certs.ParseCerts(m.read(t, "tls/"+kind+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// TestExpiredLeaves: a cluster that was off for longer than its certificates live elects a leader all the same, and
// everybody has a fresh certificate at once. A running one renews them by itself.
func TestExpiredLeaves(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second
	c := shortLived(t, life, 0)
	u := c.admin(t)
	u.put(t, c.members[0], "before", "the night")
	first := leafOf(t, c.members[1], "transport")
	eventually(t, formed, "a running member renews by itself", func() error {
		if now := leafOf(t, c.members[1], "transport"); now.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return fmt.Errorf("it still has the leaf that ends at %v", now.NotAfter)
		}
		return nil
	})
	awaitCopies(t, c, c.members...)
	for _, m := range c.members {
		m.stop(t)
	}
	for _, m := range c.members {
		for _, kind := range []string{"http", "transport"} {
			eventually(t, 2*life, "the leaf expires", func() error {
				if leaf := leafOf(t, m, kind); time.Now().Before(leaf.NotAfter.Add(time.Second)) {
					return fmt.Errorf("it is valid until %v", leaf.NotAfter)
				}
				return nil
			})
		}
	}
	out := muster(t, "doctor", "--data", c.members[0].dir)
	if !strings.Contains(out.stdout, "expired") || !strings.Contains(out.stderr, "start a majority of the voters") {
		t.Errorf("doctor on expired certificates: %+v", out)
	}
	for _, m := range c.members {
		m.env = nil // and from now on they live as long as ever
		m.start(t)
	}
	u = c.fresh(t)
	for _, m := range c.members {
		eventually(t, formed, fmt.Sprintf("node %d has fresh certificates", m.n), func() error {
			for _, kind := range []string{"http", "transport"} {
				if leaf := leafOf(t, m, kind); time.Until(leaf.NotAfter) < 24*time.Hour {
					return fmt.Errorf("%s ends at %v", kind, leaf.NotAfter)
				}
			}
			return nil
		})
		eventually(t, formed, "it serves again", func() error {
			v, err := u.value(m, "before")
			if err == nil && v != "the night" {
				err = fmt.Errorf("%q", v)
			}
			return err
		})
	}
	c.awaitVoters(t)
	said := 0
	for _, m := range c.members {
		log, err := os.ReadFile(m.log)
		if err != nil {
			t.Fatal(err)
		}
		said += strings.Count(string(log), "AN EXPIRED CERTIFICATE was accepted")
	}
	if said == 0 || said > 30 {
		t.Errorf("the logs tell %d times of expired certificates that were accepted", said)
	}
}

// TestExpiredAuthority: the same when the authorities themselves have ended meanwhile.
func TestExpiredAuthority(t *testing.T) {
	t.Parallel()
	const life = 15 * time.Second
	c := shortLived(t, 0, life)
	u := c.admin(t)
	u.put(t, c.members[0], "before", "the end")
	awaitCopies(t, c, c.members...)
	for _, m := range c.members {
		m.stop(t)
	}
	for _, m := range c.members {
		for _, kind := range []string{"http", "transport"} {
			leaf := leafOf(t, m, kind)
			eventually(t, 2*life, "the leaf expires", func() error {
				if time.Now().Before(leaf.NotAfter.Add(time.Second)) {
					return fmt.Errorf("it is valid until %v", leaf.NotAfter)
				}
				return nil
			})
		}
	}
	for _, m := range c.members {
		m.env = nil
		m.start(t)
	}
	for _, m := range c.members {
		eventually(t, 2*formed, fmt.Sprintf("node %d has certificates of new authorities", m.n), func() error {
			for _, kind := range []string{"http", "transport"} {
				if leaf := leafOf(t, m, kind); time.Until(leaf.NotAfter) < 24*time.Hour {
					return fmt.Errorf("%s ends at %v", kind, leaf.NotAfter)
				}
			}
			return nil
		})
	}
	u = c.fresh(t)
	u.awaitPhase(t, c.members[0], "none", "http", "transport")
	for _, m := range c.members {
		eventually(t, formed, "it serves again", func() error {
			v, err := u.value(m, "before")
			if err == nil && v != "the end" {
				err = fmt.Errorf("%q", v)
			}
			return err
		})
	}
	c.awaitVoters(t)
}
