package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"muster/store/engine"

	"github.com/google/uuid"
)

// Many callers do all that the package offers at the same time; then the leader's working copy and dqlite's own
// copies on all nodes must be the same, and the audit must tell exactly what was answered.
// MUSTER_SEED repeats the draws of a run (not the interleaving).
func TestAllCopiesAreTheSame(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("MUSTER_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MUSTER_SEED=%d", seed)
	c := newTestCluster(t, 3)
	l := c.leader()
	epoch := l.Epoch()
	x := &mixer{
		l:          l,
		t:          t,
		counts:     map[string][3]int{},
		wanted:     map[string]expect{},
		recipients: map[uint64]string{},
	}
	var wg sync.WaitGroup
	const goroutines, each = 8, 60
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			for range each {
				x.step(r)
			}
		}()
	}
	wg.Wait()
	if l.Epoch() != epoch {
		t.Error("the leadership was lost in the middle, although nothing was wrong with the nodes")
		l = c.leader()
	}
	content := c.agree()
	checkRevisions(t, l)
	have := map[string]int{}
	err := l.Read(bg, AsLeader, func(v *View) error {
		rows, err := v.query("SELECT request_id FROM audit WHERE action NOT IN ('cluster.found', 'leader.elected')")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			have[id]++
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, e := range x.wanted {
		switch n := have[id]; {
		case e.rows == some && n == 0:
			t.Errorf("%s was done and has no audit row", e.what)
		case e.rows == none && n != 0:
			t.Errorf("%s has %d audit rows", e.what, n)
		}
	}
	for id, n := range have {
		if _, ok := x.wanted[id]; !ok && id == "" {
			t.Errorf("%d audit rows have no request id", n)
		}
	}
	// No two members share anything, and every one has a host and a slice of its own.
	members, err := l.Members.List(bg, Linearisable)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]uint64{}
	for _, m := range members {
		for _, k := range []string{"id " + m.ID, "host " + m.OverlayIP, "slice " + m.SliceCIDR, "key " + m.Recipient} {
			if other, ok := seen[k]; ok || k == "host " || k == "slice " {
				t.Errorf("nodes %d and %d share %q", other, m.NodeID, k)
			}
			seen[k] = m.NodeID
		}
		if r, ok := x.recipients[m.NodeID]; ok && r != m.Recipient {
			t.Errorf("node %d was given to %s and belongs to %s", m.NodeID, r, m.Recipient)
		}
	}
	if got := len(members); got != 3+len(x.recipients) {
		t.Errorf("%d members, %d were answered", got, 3+len(x.recipients))
	}
	n := integers(t, l,
		"SELECT count(*) FROM join_tokens WHERE uses <> (SELECT count(*) FROM join_token_uses WHERE token_id = id)")[0]
	if n != 0 {
		t.Errorf("%d tokens count other uses than there are", n)
	}
	for what, n := range x.counts {
		t.Logf("%-28s %3d done, %3d refused", what, n[0], n[1])
		if n[0]+n[1] == 0 {
			t.Errorf("%s was never tried", what)
		}
	}
	t.Logf("%d members, %d audit rows, %d revisions", len(members), len(content["audit"]), l.Revision())
}

type rowsWanted int

const (
	none rowsWanted = iota
	some
	any_ // the operation may find that there is nothing to do
)

type expect struct {
	what string
	rows rowsWanted
}

// mixer draws operations and remembers what each must have left in the audit.
type mixer struct {
	l          *Store
	t          *testing.T
	mu         sync.Mutex
	tokens     []JoinToken
	joins      []Joiner // that were done, to be repeated
	keys       []string // ids of API tokens
	hashes     []string
	counts     map[string][3]int
	wanted     map[string]expect
	recipients map[uint64]string
	lost       sync.Once
}

func pick[T any](x *mixer, r *rand.Rand, list *[]T) (v T, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(*list) == 0 {
		return v, false
	}
	return (*list)[r.IntN(len(*list))], true
}

func put[T any](x *mixer, list *[]T, v T) {
	x.mu.Lock()
	*list = append(*list, v)
	x.mu.Unlock()
}

func (x *mixer) step(r *rand.Rand) {
	actor := Actor{Name: "it's \"x\" ?", Remote: "[::1]:5", RequestID: uuid.NewString()}
	what, done := "", some
	var err error
	switch r.IntN(14) {
	case 0, 1, 2:
		what = "CreateJoinToken"
		tok := JoinToken{
			ID:        NewID(),
			KeyEpoch:  1,
			Format:    FormatMuster,
			MaxUses:   1 + r.IntN(3),
			ExpiresAt: time.Now().Add(time.Hour),
			Labels:    map[string]string{"quote'": "a;b -- ? /* \x00 日"},
		}
		if r.IntN(3) == 0 { // members' ids among them
			tok.NodeID = 1 + uint64(r.IntN(60))
		}
		if r.IntN(4) == 0 { // long expired: Prune deletes it, with its uses
			tok.ExpiresAt = tok.ExpiresAt.Add(-tokenKept - 2*time.Hour)
		}
		if tok, err = x.l.JoinTokens.Create(bg, actor, tok); err == nil {
			put(x, &x.tokens, tok)
		}
	case 3:
		what = "RevokeJoinToken"
		tok, _ := pick(x, r, &x.tokens)
		if r.IntN(4) == 0 {
			tok.ID = "of nobody"
		}
		done = any_
		err = x.l.JoinTokens.Revoke(bg, actor, tok.ID)
	case 4, 5, 6:
		what = "Join"
		tok, _ := pick(x, r, &x.tokens)
		j := Joiner{
			TokenID:       tok.ID,
			Wrap:          []byte{0, 1, '\''},
			DEKGeneration: 1,
			Member: Member{
				Name:          "n'?",
				Mode:          ModeFull,
				Recipient:     "age1" + uuid.NewString(),
				RaftAddress:   "10.0.0.1:7000",
				AdvertiseAddr: "10.0.0.1",
			},
			Certificates: []Certificate{{Serial: NewID(), Kind: "http", IssuedAt: time.Now(), ExpiresAt: time.Now()}},
		}
		var out Joined
		actor.Remote = "10.0.0.1"
		if out, err = x.l.Members.Join(bg, actor, j); err == nil {
			put(x, &x.joins, j)
			x.mu.Lock()
			if r, ok := x.recipients[out.Member.NodeID]; ok {
				x.t.Errorf("node %d was given to %s and to %s", out.Member.NodeID, r, j.Member.Recipient)
			}
			x.recipients[out.Member.NodeID] = j.Member.Recipient
			x.mu.Unlock()
		}
	case 7:
		what = "Join again"
		j, ok := pick(x, r, &x.joins)
		if !ok {
			return
		}
		j.Certificates = []Certificate{{Serial: NewID(), Kind: "http", IssuedAt: time.Now(), ExpiresAt: time.Now()}}
		actor.Remote = "10.0.0.1"
		if r.IntN(2) == 0 {
			host := fmt.Sprintf("10.0.0.%d", r.IntN(256))
			j.Member.RaftAddress, j.Member.AdvertiseAddr, actor.Remote = host+":7000", host, host
		}
		var out Joined
		if out, err = x.l.Members.Join(bg, actor, j); err == nil {
			x.mu.Lock()
			if !out.Rejoined || x.recipients[out.Member.NodeID] != j.Member.Recipient ||
				out.Member.RaftAddress != j.Member.RaftAddress {
				x.t.Errorf("joined again as %+v", out.Member)
			}
			x.mu.Unlock()
		}
	case 8:
		what = "CreateAPIToken"
		hash := NewID()
		if h, ok := pick(x, r, &x.hashes); ok && r.IntN(3) == 0 {
			hash = h // UNIQUE refuses it
		}
		if r.IntN(3) == 0 {
			actor.IdempotencyKey, actor.RequestHash = fmt.Sprint("key ", r.IntN(3)), fmt.Sprint(r.IntN(2))
			done = any_
		}
		tok := APIToken{ID: NewID(), Name: "t", SecretHash: hash,
			Scopes: []string{ScopeEnroll, ScopeManagement}[:1+r.IntN(2)]}
		if tok, err = x.l.APITokens.Create(bg, actor, tok); err == nil {
			put(x, &x.keys, tok.ID)
			put(x, &x.hashes, tok.SecretHash)
		}
	case 9:
		what = "DeleteAPIToken"
		id, _ := pick(x, r, &x.keys)
		if r.IntN(5) == 0 {
			id = "admin"
		}
		err = x.l.APITokens.Delete(bg, actor, id)
	case 10:
		what, done = "SetRoles", any_
		var list []RoleChange
		for range 1 + r.IntN(3) {
			list = append(list, RoleChange{uint64(1 + r.IntN(12)),
				[]Role{RoleNone, RoleSpare, RoleStandBy, RoleVoter}[r.IntN(4)], "as drawn"})
		}
		if r.IntN(5) == 0 { // the second is refused by a CHECK, and takes the first with it
			list = append(list, RoleChange{1 + uint64(r.IntN(3)), "nonsense", ""})
			what = "SetRoles, one wrong"
		}
		err = x.l.Members.SetRoles(bg, actor, list)
	case 11:
		what, done = "Announce", any_
		err = x.l.Members.Announce(bg, actor, Announcement{
			NodeID:        uint64(1 + r.IntN(12)),
			RaftAddress:   "h:1",
			APIAddress:    "h:2",
			BinaryVersion: fmt.Sprint("v", r.IntN(3)),
			MaxSchema:     1,
			Evidence:      HostEvidence{Own: r.IntN(2) == 0, Dialled: []string{"h"}},
		})
	case 12:
		what, done = "Write that panics or refuses", none
		how := r.IntN(4)
		err = x.l.Write(bg, actor, func(tx *Tx) error {
			if err := tx.setSequence("raft_node_id", 1<<40); err != nil {
				return err
			}
			if err := tx.exec("DELETE FROM members"); err != nil {
				return err
			}
			switch how {
			case 0:
				panic("as drawn")
			case 1:
				return refuse(Forbidden, "as drawn")
			case 2: // and no audit row
				return nil
			}
			if err := tx.audit("test", "nothing", ""); err != nil {
				return err
			}
			return tx.exec("DELETE FROM a_table_that_is_not")
		})
		if err == nil {
			x.t.Error("a request that fails was answered with success")
		}
	case 13:
		what, done = "Prune", any_
		err = x.l.Prune(bg, actor)
	}
	if err != nil {
		if noLeader(err) {
			x.lost.Do(func() { x.t.Errorf("%s: %v", what, err) })
			return
		}
		var refusal *Refusal
		if !errors.As(err, &refusal) && !engine.IsUnique(err) && done != none && what != "SetRoles, one wrong" {
			x.t.Errorf("%s: %v", what, err)
		}
		done = none
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.counts[what]
	if err == nil {
		n[0]++
	} else {
		n[1]++
	}
	x.counts[what] = n
	x.wanted[actor.RequestID] = expect{what, done}
}
