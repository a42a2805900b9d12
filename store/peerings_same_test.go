package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// Many callers do all that there is to do with a few peerings at the same time; then the leader's working copy and
// dqlite's own copies on all nodes must be the same.
func TestPeeringsAreTheSameEverywhere(t *testing.T) {
	c := newTestCluster(t, 3)
	l := c.leader()
	actor := Actor{Name: "it's \"x\" ?"}
	counts := map[string][2]int{}
	var mu sync.Mutex
	step := func(r *rand.Rand) {
		name := fmt.Sprint("p", r.IntN(4))
		id := "id"
		if p, err := l.Peerings.List(bg, AsLeader); err == nil && len(p) > 0 {
			id = p[r.IntN(len(p))].ID
		}
		hash := func() string { return fmt.Sprint("h", r.IntN(3)) }
		what := ""
		var err error
		switch r.IntN(12) {
		case 0, 1:
			what = "token"
			k := PeeringToken{Name: name, ID: "acceptor " + NewID(), TTL: time.Duration(r.IntN(2)) * time.Hour,
				Meta: map[string]string{"q'": "; -- \x00 日"}}
			_, err = l.Peerings.MintToken(bg, actor, k, hash())
		case 2:
			what = "exchange"
			err = l.Peerings.ExchangeSecret(bg, actor, id, hash(), hash())
		case 3, 4:
			what = "open"
			_, err = l.Peerings.OpenStream(bg, actor, id, hash(), "far")
		case 5:
			what = "establish"
			e := there
			e.Name, e.ID = name, "dialer "+NewID()
			_, err = l.Peerings.Establish(bg, actor, e, "secret")
		case 6:
			what = "delete"
			err = l.Peerings.Delete(bg, actor, name)
		case 7:
			what = "clean"
			_, err = l.Peerings.Clean(bg, actor, id)
		case 8:
			what = "import"
			var list []PeerMember
			for i := range r.IntN(20) {
				list = append(list, PeerMember{ID: fmt.Sprint(i), Name: fmt.Sprint("n", r.IntN(3)), Health: "alive"})
			}
			_, _, err = l.Peerings.Import(bg, actor, id, list)
		case 9:
			what = "down and up"
			if _, err = l.Peerings.StoreNews(bg, actor, id,
				PeerNews{State: PeeringFailing, Reason: fmt.Sprint("reason ", r.IntN(3))}); err == nil {
				_, err = l.Peerings.StoreNews(bg, actor, id, PeerNews{State: PeeringActive})
			}
		case 10:
			what = "leave"
			if err = l.Peerings.Leave(bg, actor, id, hash()); err == nil {
				err = l.Peerings.Terminate(bg, actor, id)
			}
		case 11:
			what = "trust, addresses, farewell"
			_, err = l.Peerings.StoreNews(bg, actor, id, PeerNews{Roots: []string{hash()}, Addresses: []string{hash()}})
			err = errors.Join(err, l.Peerings.FarewellSaid(bg, actor, id, "known"))
		}
		var refusal *Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Errorf("%s: %v", what, err)
		}
		mu.Lock()
		defer mu.Unlock()
		n := counts[what]
		if err == nil {
			n[0]++
		} else {
			n[1]++
		}
		counts[what] = n
	}
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), g))
			for range 80 {
				step(r)
			}
		})
	}
	wg.Wait()
	for what, n := range counts {
		t.Logf("%-28s %3d done, %3d refused", what, n[0], n[1])
		if n[0]+n[1] == 0 {
			t.Errorf("%s was never tried", what)
		}
	}
	content := c.agree()
	t.Logf("%d peerings, %d secrets, %d tombstones, %d imported members", len(content["peerings"]),
		len(content["peering_secrets"]),
		len(content["peering_tombstones"]), len(content["peer_members"]))
	// Nothing is left of peerings that are gone.
	for _, table := range []string{
		"SELECT count(*) FROM peering_secrets WHERE peering_id NOT IN (SELECT id FROM peerings)",
		"SELECT count(*) FROM peer_members WHERE peering_id NOT IN (SELECT id FROM peerings)"} {
		if n := integers(t, l, table)[0]; n != 0 {
			t.Errorf("%d rows: %s", n, table)
		}
	}
}
