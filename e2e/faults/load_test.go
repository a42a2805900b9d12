package faults

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"muster/client"
)

const (
	tokenUses  = 2   // of a join token of the load
	keyLife    = 400 // requests to one secret, so that its record can be checked quickly
	registers  = 3   // secrets at a time
	firstMint  = 1_000_000
	pauseOfOne = 15 * time.Millisecond
)

// load is clients at work.
type load struct {
	c       *campaign
	rec     *recorder
	prefix  string
	stopped atomic.Bool
	wait    sync.WaitGroup
	asked   atomic.Int64 // about secrets
	values  atomic.Int64
	first   uint64 // node that it mints for; those before it are of another epoch
}

// nodeIDs and ports are never used twice, also not after a restore.
var nodeIDs, joinPorts, clientIDs atomic.Int64

// work starts the clients of an epoch, whose secrets begin with a prefix.
func (c *campaign) work(epoch int) *load {
	l := &load{c: c, rec: c.rec, prefix: fmt.Sprintf("e%d", epoch), first: uint64(firstMint + nodeIDs.Load() + 1)}
	l.start(4, epoch, l.secret)
	l.start(1, epoch, l.mint)
	l.start(1, epoch, l.lists)
	l.start(1, epoch, l.round)
	return l
}

func (l *load) start(n, epoch int, one func(client int, r *mrand.Rand)) {
	for range n {
		id := int(clientIDs.Add(1))
		r := mrand.New(mrand.NewPCG(l.c.plan.seed, uint64(epoch<<8+id)))
		l.wait.Go(func() {
			for !l.stopped.Load() {
				one(id, r)
				time.Sleep(pauseOfOne)
			}
		})
	}
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.wait.Wait()
}

// someone picks a member, sometimes one that may not answer.
func (l *load) someone(r *mrand.Rand) *member {
	list := l.c.members()
	for range 4 {
		if m := list[r.IntN(len(list))]; m.answers() {
			return m
		}
	}
	return list[r.IntN(len(list))]
}

// ask sends a request and records it.
func (l *load) ask(o *op, m *member, method, path, body string) answer {
	o.Through, o.Call = m.name, l.rec.now()
	limit := bound
	if o.Kind == "remove" {
		limit = 0
	}
	a := l.c.do(m, method, path, body, limit)
	o.Return, o.Verdict, o.Status = l.rec.now(), a.verdict.String(), a.status
	if a.verdict != done {
		o.Text = fmt.Sprintf("%.200s", a.body)
		if a.err != nil {
			o.Text = a.err.Error()
		}
	}
	return a
}

func (l *load) secret(id int, r *mrand.Rand) {
	key := fmt.Sprintf("%s-%d-%d", l.prefix, l.asked.Add(1)/(keyLife*registers), r.IntN(registers))
	o, m := &op{Client: id, Key: key}, l.someone(r)
	switch x := r.IntN(10); {
	case x < 5:
		o.Kind = "get"
		l.get(o, m)
		return
	case x < 9:
		o.Kind, o.Value = "put", fmt.Sprintf("v%d", l.values.Add(1))
		a := l.ask(o, m, "PUT", secretsPath+key, fmt.Sprintf(`{"value":%q}`, o.Value))
		v, _ := result[struct{ Version int }](a)
		o.Version = v.Version
	default:
		o.Kind = "delete"
		l.ask(o, m, "DELETE", secretsPath+key, "")
	}
	l.rec.add(o)
}

func (l *load) get(o *op, m *member) {
	a := l.ask(o, m, "GET", secretsPath+o.Key, "")
	v, _ := result[struct {
		Value   string
		Version int
	}](a)
	o.Got, o.Version = v.Value, v.Version
	l.rec.add(o)
}

func (l *load) mint(id int, r *mrand.Rand) {
	o := &op{Client: id, Kind: "mint", ID: uint64(firstMint + nodeIDs.Add(1))}
	l.ask(o, l.someone(r), "POST", mintPath, fmt.Sprintf(`{"nodeID":%d,"ttlSeconds":86400}`, o.ID))
	l.rec.add(o)
	time.Sleep(100 * time.Millisecond) // a long list makes all that read it slow
}

// lists reads the tokens and the members.
func (l *load) lists(id int, r *mrand.Rand) {
	l.tokens(id, l.someone(r))
	l.members(id, l.someone(r))
	time.Sleep(150 * time.Millisecond)
}

func (l *load) tokens(id int, m *member) {
	o := &op{Client: id, Kind: "tokens"}
	list, err := result[[]client.JoinToken](l.ask(o, m, "GET", tokensPath, ""))
	for _, x := range list {
		if x.NodeID >= l.first {
			o.IDs = append(o.IDs, x.NodeID)
		}
		if x.Uses > x.MaxUses {
			l.c.violate("token %s of %d uses was used %d times", x.ID, x.MaxUses, x.Uses)
		}
	}
	if err != nil && o.is(done) {
		l.c.violate("the list of tokens through %s cannot be read: %v", m.name, err)
	}
	l.rec.add(o)
}

func (l *load) members(id int, m *member) {
	o := &op{Client: id, Kind: "members"}
	list, err := result[[]client.Member](l.ask(o, m, "GET", membersPath, ""))
	for _, x := range list {
		o.IDs = append(o.IDs, x.NodeID)
	}
	if err != nil && o.is(done) {
		l.c.violate("the list of members through %s cannot be read: %v", m.name, err)
	}
	l.rec.add(o)
}

// round makes a token, has more machines join with it at once than it admits, each until it is answered, and removes
// some of those that were admitted.
func (l *load) round(id int, r *mrand.Rand) {
	x, err := result[client.NewJoinToken](l.c.do(l.someone(r), "POST", tokensPath,
		fmt.Sprintf(`{"ttlSeconds":3600,"mode":"replicate","maxUses":%d}`, tokenUses), bound))
	if err != nil {
		return
	}
	seeds := make([]uint64, tokenUses+2)
	for i := range seeds {
		seeds[i] = r.Uint64()
	}
	var wait sync.WaitGroup
	ids := make([]uint64, len(seeds))
	for i, seed := range seeds {
		wait.Go(func() { ids[i] = l.join(x, mrand.New(mrand.NewPCG(seed, 1))) })
	}
	wait.Wait()
	for _, node := range ids {
		if node != 0 && r.IntN(4) > 0 {
			o := &op{Client: id, Kind: "remove", ID: node}
			l.ask(o, l.someone(r), "DELETE", fmt.Sprintf("%s/%d?force=true", membersPath, node), "")
			l.rec.add(o)
		}
	}
	time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
}

// join asks for a place until there is a sure answer, up to four times, with the same key.
func (l *load) join(x client.NewJoinToken, r *mrand.Rand) (node uint64) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		l.c.violate("no key for a joiner: %v", err)
		return 0
	}
	var public []int
	for _, b := range private.PublicKey().Bytes() {
		public = append(public, int(b))
	}
	port := joinPorts.Add(1)
	body, _ := json.Marshal(map[string]any{"token": x.Token, "advertise_addr": fmt.Sprintf("127.%d.3.1", l.c.octet),
		"overlay_port": 51420,
		"raft_port":    port, "wg_public_key": "", "mode": "replicate", "secrets_pubkey": public})
	first := l.rec.now()
	for range 4 {
		o := &op{Client: int(clientIDs.Add(1)), Kind: "join", Key: fmt.Sprintf("k%d", port), Value: x.ID}
		a := l.ask(o, l.someone(r), "POST", joinPath, string(body))
		var v client.JoinResponse
		if a.verdict == done {
			if json.Unmarshal([]byte(a.body), &v) != nil || v.RaftNodeID == 0 {
				l.c.violate("a join was answered with %v", a)
			}
			// A try before it that was not answered may have been the one that was carried out.
			o.ID, o.Call = v.RaftNodeID, first
		}
		l.rec.add(o)
		if a.verdict == done || a.verdict == refused {
			return v.RaftNodeID
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0
}
