package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// peeringBench writes peerings as the store does, without Raft.
type peeringBench struct {
	*bench
	ids int
}

func (b *peeringBench) do(fn func(*Tx) error) error {
	b.t.Helper()
	tx, err := b.write(fn)
	if err == nil && tx.tx.Changed() && len(tx.audits) == 0 {
		b.t.Error("a mutation without an audit row")
	}
	return err
}

// token mints one; the secret's hash is given in clear, as the store never looks into it.
func (b *peeringBench) token(name, hash string) error {
	b.ids++
	return b.do(func(tx *Tx) error {
		_, err := tx.mintPeeringToken(PeeringToken{Name: name, ID: fmt.Sprint("id-", b.ids)}, hash)
		return err
	})
}

func (b *peeringBench) establish(e Establishing) error {
	b.ids++
	e.ID = fmt.Sprint("id-", b.ids)
	return b.do(func(tx *Tx) error {
		_, err := tx.establishPeering(e, []byte("sealed"), 1)
		return err
	})
}

func (b *peeringBench) exchange(id, hash, stream string) error {
	return b.do(func(tx *Tx) error { return tx.exchangePeeringSecret(id, hash, stream) })
}

func (b *peeringBench) open(id, hash string) error {
	return b.do(func(tx *Tx) error {
		_, err := tx.openPeeringStream(id, hash, "far")
		return err
	})
}

func (b *peeringBench) remove(name string) error {
	return b.do(func(tx *Tx) error { return tx.deletePeering(name) })
}

func (b *peeringBench) terminate(name string) error {
	return b.do(func(tx *Tx) error {
		p, err := tx.PeeringByName(name)
		if err != nil || p.Ended() {
			return err
		}
		return tx.terminatePeering(p)
	})
}

func (b *peeringBench) get(name string) Peering {
	b.t.Helper()
	p, err := b.view().PeeringByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	if p == nil {
		return Peering{}
	}
	return *p
}

func (b *peeringBench) secrets(name string) string {
	b.t.Helper()
	x, err := b.view().peeringSecrets(b.get(name).ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprintf("%s/%s/%s", x.establish, x.pending, x.active)
}

func newPeeringBench(t testing.TB) *peeringBench {
	return &peeringBench{bench: foundedBench(t, "10.200.0.0/16", 28)}
}

var there = Establishing{
	Name:             "them",
	PeerID:           "far-id",
	ServerName:       "server.x",
	ServerAddresses:  []string{"1.2.3.4:5"},
	CAPems:           []string{"pem"},
	RemoteDatacenter: "far",
}

func TestPeeringTokenExpires(t *testing.T) {
	t.Parallel()
	b := newPeeringBench(t)
	if err := b.do(func(tx *Tx) error {
		_, err := tx.mintPeeringToken(PeeringToken{Name: "us", ID: "id", TTL: time.Hour}, "e")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	begin := b.now
	b.now = begin.Add(time.Hour)
	if err := b.exchange("id", "e", "s"); !errors.Is(err, ErrPeeringSecret) {
		t.Errorf("after the hour: %v", err)
	}
	b.now = begin.Add(time.Hour - time.Second)
	if err := b.exchange("id", "e", "s"); err != nil {
		t.Errorf("before the hour is over: %v", err)
	}
}

// A dialer that leaves ends the peering, unless another token was used since; who has no secret ends nothing.
func TestPeeringLeave(t *testing.T) {
	c := newTestCluster(t, 1)
	s, actor := c.leader(), Actor{Name: "test"}
	state := func(want string) {
		t.Helper()
		p, err := s.Peerings.ByName(bg, Linearisable, "us")
		if err != nil || p.State != want {
			t.Errorf("%+v, %v, want %s", p, err, want)
		}
	}
	use := func(establish, stream string) {
		t.Helper()
		if _, err := s.Peerings.MintToken(bg, actor, PeeringToken{Name: "us", ID: "id"}, establish); err != nil {
			t.Fatal(err)
		}
		if err := s.Peerings.ExchangeSecret(bg, actor, "id", establish, stream); err != nil {
			t.Fatal(err)
		}
	}
	use("e1", "s1")
	if _, err := s.Peerings.OpenStream(bg, actor, "id", "s1", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Peerings.Leave(bg, actor, "id", "e1"); !errors.Is(err, ErrStreamSecret) {
		t.Error(err)
	}
	use("e2", "s2")
	if err := s.Peerings.Leave(bg, actor, "id", "s1"); err != nil {
		t.Error(err)
	}
	state(PeeringActive)
	if _, err := s.Peerings.OpenStream(bg, actor, "id", "s1", ""); !errors.Is(err, ErrStreamSecret) {
		t.Errorf("who has left comes back: %v", err)
	}
	for range 2 { // the second time it is known already
		if err := s.Peerings.Leave(bg, actor, "id", "s2"); err != nil {
			t.Error(err)
		}
		state(PeeringTerminated)
	}
}

// What a dialer knows survives a new token while the stream is up, and Meta stays unless it is given.
func TestPeeringEstablishAgain(t *testing.T) {
	t.Parallel()
	b := newPeeringBench(t)
	e := there
	e.Meta = map[string]string{"a": "b"}
	if err := b.establish(e); err != nil {
		t.Fatal(err)
	}
	if err := b.do(func(tx *Tx) error {
		p, err := tx.PeeringByName("them")
		if err != nil {
			return err
		}
		p.turn(PeeringActive, "", tx.Now)
		p.ServerAddresses = []string{"9.9.9.9:9"} // learnt over the stream
		if err := tx.putPeering(p); err != nil {
			return err
		}
		return tx.audit("test", "", "")
	}); err != nil {
		t.Fatal(err)
	}
	e.Meta, e.CAPems, e.ManualAddresses = nil, []string{"other"}, []string{"5.5.5.5:5"}
	if err := b.establish(e); err != nil {
		t.Fatal(err)
	}
	p := b.get("them")
	if p.State != PeeringActive || p.Meta["a"] != "b" || !slices.Equal(p.ServerAddresses, []string{"9.9.9.9:9"}) ||
		p.CAPems[0] != "other" || p.Addresses()[0] != "5.5.5.5:5" {
		t.Errorf("%+v", p)
	}
	e.PeerID, e.ManualAddresses = "another", nil // with somebody else the stream starts afresh
	if err := b.establish(e); err != nil {
		t.Fatal(err)
	}
	if p := b.get("them"); p.State != PeeringEstablishing || !slices.Equal(p.Addresses(), there.ServerAddresses) {
		t.Errorf("%+v", p)
	}
}

// Whatever happens in whatever order: one establishment secret serves once, a stream opens only with the newest
// secrets, the creation index stays, the modification index never falls, a role never changes.
func TestPeeringSecretsProperty(t *testing.T) {
	t.Parallel()
	base := newPeeringBench(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		name := fmt.Sprint("peer-", run)
		b := &peeringBench{bench: base.bench, ids: run * 1000}
		var id string
		var establish, pending, active string // what the model holds valid
		n := 0
		next := func(kind string) string { n++; return fmt.Sprint(kind, run, "-", n) }
		old := []string{"", "x"}
		last := Peering{}
		rt.Repeat(map[string]func(*rapid.T){
			"token": func(rt *rapid.T) {
				h := next("e")
				if err := b.token(name, h); err != nil {
					rt.Fatal(err)
				}
				p := b.get(name)
				if last.State == PeeringTerminated {
					old = append(old, pending, active)
					pending, active = "", ""
				}
				old = append(old, establish)
				id, establish = p.ID, h
			},
			"exchange": func(rt *rapid.T) {
				h := rapid.SampledFrom(append(old, establish, pending, active)).Draw(rt, "secret")
				s := next("s")
				err := b.exchange(id, h, s)
				if right := h != "" && h == establish && last.State != PeeringTerminated; (err == nil) != right {
					rt.Fatalf("exchange of %q with %q valid: %v", h, establish, err)
				}
				if err == nil {
					old = append(old, establish, pending)
					establish, pending = "", s
				}
			},
			"open": func(rt *rapid.T) {
				h := rapid.SampledFrom(append(old, establish, pending, active)).Draw(rt, "secret")
				err := b.open(id, h)
				if right := h != "" && (h == pending || h == active) && last.State != PeeringTerminated; (err == nil) != right {
					rt.Fatalf("a stream with %q, valid %q and %q: %v", h, pending, active, err)
				}
				if err == nil && h == pending {
					old = append(old, active)
					pending, active = "", h
				}
			},
			"terminate": func(rt *rapid.T) {
				if id != "" {
					if err := b.terminate(name); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"": func(rt *rapid.T) {
				p := b.get(name)
				if last.ID != "" && (p.ID != last.ID || p.CreatedRev != last.CreatedRev || p.ModifiedRev < last.ModifiedRev ||
					p.Dialer) {
					rt.Fatalf("%+v became %+v", last, p)
				}
				last = p
			},
		})
	})
}

// A dialer's secret is sealed, moves to a new generation with everything else, and can be opened before and after; a
// deleted peering's farewell, too.
func TestPeeringSecretsAreReencrypted(t *testing.T) {
	c := newTestCluster(t, 1)
	s := c.leader()
	for _, name := range []string{"one", "two"} {
		e := there
		e.Name, e.ID = name, "id-"+name
		if _, err := s.Peerings.Establish(bg, Actor{Name: "test"}, e, "secret of "+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Peerings.Delete(bg, Actor{Name: "test"}, "two"); err != nil {
		t.Fatal(err)
	}
	check := func(generation int64) {
		t.Helper()
		if got, err := s.Peerings.StreamSecret(bg, AsLeader, "id-one"); err != nil || got != "secret of one" {
			t.Errorf("%q, %v", got, err)
		}
		list, err := s.Peerings.Farewells(bg, AsLeader)
		if err != nil || len(list) != 1 || list[0].Secret != "secret of two" || list[0].PeerID != there.PeerID ||
			list[0].Addresses[0] != there.ServerAddresses[0] {
			t.Errorf("%+v, %v", list, err)
		}
		for _, g := range integers(t, s,
			"SELECT dek_generation FROM peering_secrets UNION ALL SELECT dek_generation FROM peering_tombstones") {
			if g != generation {
				t.Errorf("a secret is sealed under generation %d, not %d", g, generation)
			}
		}
	}
	check(1)
	r, err := s.Keys.PrepareDEKRotation(bg, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keys.RotateDEK(bg, Actor{Name: "test"}, r, "test"); err != nil {
		t.Fatal(err)
	}
	for moved := 1; moved > 0; {
		if moved, err = s.Keys.Reencrypt(bg, Actor{Name: "test"}, 1); err != nil {
			t.Fatal(err)
		}
	}
	check(2)
	if err := s.Peerings.FarewellSaid(bg, Actor{Name: "test"}, "id-two", "known"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Peerings.Farewells(bg, AsLeader); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Imported members follow the other side's list in steps, and go with the peering in steps.
func TestPeerMembers(t *testing.T) {
	c := newTestCluster(t, 1)
	s, actor := c.leader(), Actor{Name: "test"}
	e := there
	e.ID = "id"
	if _, err := s.Peerings.Establish(bg, actor, e, "secret"); err != nil {
		t.Fatal(err)
	}
	list := make([]PeerMember, 1200)
	for i := range list {
		list[i] = PeerMember{ID: fmt.Sprintf("%04d", i), Name: fmt.Sprintf("m%04d", i), NodeID: uint64(i + 1),
			Health: "alive"}
	}
	apply := func(list []PeerMember, steps ...int) {
		t.Helper()
		for _, want := range append(steps, 0) {
			if n, _, err := s.Peerings.Import(bg, actor, "id", list); err != nil || n != want {
				t.Errorf("%d members changed, want %d: %v", n, want, err)
			}
		}
		got, err := s.Peerings.Members(bg, Linearisable, "id")
		if err != nil || !slices.Equal(got, list) {
			t.Errorf("%d members of %d, %v", len(got), len(list), err)
		}
	}
	apply(list, 500, 500, 200)
	list[7].Health = "left"
	apply(list, 1)
	list = list[3:]
	apply(list, 3)
	before := integers(t, s, "SELECT modified_rev FROM peerings")[0]
	if err := s.Peerings.Delete(bg, actor, "them"); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Audit.List(bg, Linearisable, AuditFilter{Action: "peering.delete", Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Detail != "was=ESTABLISHING datacenter=far members=1197" {
		t.Errorf("%+v, %v", rows, err)
	}
	if n, _, err := s.Peerings.Import(bg, actor, "id", nil); err != nil || n != 0 {
		t.Errorf("an import into a peering that has ended: %d, %v", n, err)
	}
	for i := range 4 {
		p, err := s.Peerings.ByName(bg, Linearisable, "THEM")
		if err != nil || p == nil || p.State != PeeringDeleting || p.DeletedAt == nil || p.ModifiedRev <= uint64(before) {
			t.Fatalf("step %d: %+v, %v", i, p, err)
		}
		if done, err := s.Peerings.Clean(bg, actor, "id"); err != nil || done != (i == 3) {
			t.Errorf("step %d: done %t, %v", i, done, err)
		}
	}
	if p, err := s.Peerings.ByName(bg, Linearisable, "them"); err != nil || p != nil {
		t.Errorf("%+v, %v", p, err)
	}
}
