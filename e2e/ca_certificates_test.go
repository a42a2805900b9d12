package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// testCertificates: the list shows what each member has, and the newest one is what it presents.
func testCertificates(t *testing.T, c *cluster) {
	u, m := c.fresh(t), c.members[1]
	all := get[[]client.Certificate](t, u, m, "GET", "/api/v1/cluster/certificates?nodeId=2", "")
	current := get[[]client.Certificate](t, u, m, "GET", "/api/v1/cluster/certificates?nodeId=2&current=true", "")
	if len(current) != 2 || len(all) <= len(current) {
		t.Errorf("node 2 has %d certificates, %d of them current", len(all), len(current))
	}
	for _, x := range current {
		chain, err := certs.ParseCerts(m.read(t, "tls/"+x.Kind+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		leaf := chain[0]
		if leaf.SerialNumber.Text(16) != x.Serial || !leaf.NotAfter.Equal(x.ExpiresAt) || x.Node != "node-2" ||
			x.Authority != inState(t, u.ca(t, m, x.Kind), "active").Generation {
			t.Errorf("the %s certificate is %s, until %s; the list has %+v", x.Kind, leaf.SerialNumber.Text(16), leaf.NotAfter,
				x)
		}
	}
	out := muster(t, "cert", "list", "--kind", "http", "--expires-within", "720h", "--data", c.members[0].dir, "-o",
		"json")
	soon := jsonOf[[]client.Certificate](t, out)
	if len(soon) < 3 {
		t.Errorf("the leaves of a CA with 20 days left: %+v", soon)
	}
	for _, x := range soon {
		if x.Kind != "http" || x.DaysLeft > 20 || !x.Current {
			t.Errorf("%+v", x)
		}
	}
	if out := muster(t, "ca", "status", "--data", c.members[0].dir); out.code != 0 ||
		!strings.Contains(out.stdout, "operator") || !strings.HasPrefix(out.stdout, "KIND") {
		t.Errorf("ca status: %+v", out)
	}
}

// testCARemoved: after a removal the others' node identities are new ones by themselves, and a rotation is advised.
func testCARemoved(t *testing.T, c *cluster) {
	gone := c.members[3]
	m := c.leader(t)
	identities := map[*member]string{}
	for _, x := range c.members[:3] {
		identities[x] = strings.TrimSpace(string(x.read(t, "node.jwt")))
		if info, err := os.Stat(x.file("node.jwt")); err != nil || info.Mode() != 0o600 {
			t.Errorf("node.jwt of node %d: %v %v", x.n, info.Mode(), err)
		}
		u := c.fresh(t)
		u.token = identities[x]
		if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
			t.Errorf("the identity of node %d: %v", x.n, a)
		}
	}
	u := c.fresh(t)
	id := fmt.Sprint(u.memberID(t, m, gone))
	u.do(m, "DELETE", "/api/v1/cluster/members/"+id+"?force=true", "").expect(t, "removal", 200,
		`{"result":{"message":"Cluster member removed"}}`)
	gone.awaitExpelled(t)
	c.members = c.members[:3]
	u.awaitRetired(t, m) // the keys of the authorities are re-encrypted, those that are erased are left alone
	begin := time.Now()
	for x, old := range identities {
		eventually(t, formed, fmt.Sprintf("node %d has a new identity", x.n), func() error {
			text := strings.TrimSpace(string(x.read(t, "node.jwt")))
			if text == old {
				return fmt.Errorf("it is the old one")
			}
			u := c.fresh(t)
			u.token = text
			if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
	t.Logf("new identities %v after the removal", time.Since(begin).Round(10*time.Millisecond))
	for _, kind := range []string{"http", "transport"} {
		if k := u.ca(t, m, kind); !strings.HasPrefix(k.RotationAdvised, "node "+id+" (node-4), removed at 20") ||
			!strings.HasSuffix(k.RotationAdvised, ", could read the CA keys") {
			t.Errorf("%s: %q", kind, k.RotationAdvised)
		}
	}
	u.rotateCA(t, m, `{"kind":"transport","overlap":"0s"}`)
	u.awaitPhase(t, m, "none", "transport")
	if k := u.ca(t, m, "transport"); k.RotationAdvised != "" {
		t.Errorf("after the rotation: %q", k.RotationAdvised)
	}
}

// memberID is the node id that a member has got.
func (u *user) memberID(t *testing.T, m, of *member) uint64 {
	t.Helper()
	for _, x := range u.members(t, m) {
		if x.RaftAddress == of.raft {
			return x.NodeID
		}
	}
	t.Fatalf("node %d is no member", of.n)
	return 0
}
