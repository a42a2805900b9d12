package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// step is one fault. What is random about it was decided by the seed; only who leads is found out when its time comes.
type step struct {
	kind   string
	leader bool // it hits the leader, if somebody leads
	a, b   int  // places
	choice int  // a hundred, for what a kind decides by itself
	lasts  time.Duration
	rest   time.Duration // after it
	with   *step         // another one at the same time
}

func (s *step) String() string {
	text := fmt.Sprintf("%s place %d", s.kind, s.a)
	if s.leader {
		text = s.kind + " the leader"
	}
	if strings.HasPrefix(s.kind, "cut") || s.kind == "delay" || s.kind == "refuse" {
		text += fmt.Sprintf(" to %d", s.b)
	}
	text += fmt.Sprintf(" for %v", s.lasts)
	if s.with != nil {
		text += ", and " + s.with.String()
	}
	return text
}

// plan is what a seed has decided.
type plan struct {
	seed    uint64
	members int
	steps   []*step
}

// deck is how often each kind comes in a round of faults. Those with a star hit the leader.
var deck = map[string]int{
	"kill": 3, "kill*": 3, "kill-all": 1, "kill-majority": 1, "terminate": 1, "terminate*": 1, "freeze": 2, "freeze*": 2,
	"cut": 1, "cut-one-way": 2, "cut-one-way*": 2, "isolate": 1, "isolate*": 2, "deafen*": 1, "silence*": 1, "delay": 2,
	"refuse":   1,
	"transfer": 2, "drain": 1, "drain*": 1, "replace": 1, "replace*": 1, "rotate-data-key": 2, "rotate-join-keys": 1,
	"rotate-ca": 1, "disk-full": 1, "disk-full*": 1,
	"disk-stuck": 1, "disk-stuck*": 1, "restore": 1,
}

// pairs are the kinds that come together with another one of them.
var pairs = []string{"kill", "kill*", "freeze", "freeze*", "cut", "cut-one-way", "cut-one-way*", "isolate", "isolate*",
	"delay", "refuse", "transfer", "disk-stuck*"}

func newPlan(seed uint64, members, faults int) plan {
	r := rand.New(rand.NewPCG(seed, uint64(members)))
	p := plan{seed: seed, members: members}
	var hand []string
	for len(p.steps) < faults {
		if len(hand) == 0 {
			hand = deal(r)
		}
		p.steps = append(p.steps, p.one(r, hand[0]))
		hand = hand[1:]
	}
	if faults > 1 && faults < size() { // a short plan ends with a restore, too
		p.steps[faults-1] = p.one(r, "restore")
	}
	return p
}

// one makes a fault, with another one at the same time for a quarter of them, and for every second restore.
func (p *plan) one(r *rand.Rand, kind string) *step {
	s := p.step(r, kind)
	if among := map[bool]int{true: 2, false: 4}[kind == "restore"]; r.IntN(among) == 0 {
		s.with = p.step(r, pairs[r.IntN(len(pairs))])
		s.with.lasts = min(s.with.lasts, s.lasts)
	}
	if s.kind == "disk-stuck" && s.choice < 30 { // long enough to be found out
		s.lasts += 8 * time.Second
	}
	return s
}

// size is the number of faults in a round.
func size() (n int) {
	for _, times := range deck {
		n += times
	}
	return n
}

// deal shuffles the deck; a restore is the last of its round.
func deal(r *rand.Rand) (hand []string) {
	var kinds []string
	for kind := range deck {
		kinds = append(kinds, kind)
	}
	sortStrings(kinds)
	for _, kind := range kinds {
		for range deck[kind] {
			hand = append(hand, kind)
		}
	}
	r.Shuffle(len(hand), func(i, j int) { hand[i], hand[j] = hand[j], hand[i] })
	for i, kind := range hand {
		if kind == "restore" {
			hand[i], hand[len(hand)-1] = hand[len(hand)-1], hand[i]
			break
		}
	}
	return hand
}

func (p *plan) step(r *rand.Rand, kind string) *step {
	s := &step{a: r.IntN(p.members), choice: r.IntN(100)}
	s.kind, s.leader = strings.TrimSuffix(kind, "*"), strings.HasSuffix(kind, "*")
	s.b = (s.a + 1 + r.IntN(p.members-1)) % p.members
	s.lasts = time.Duration(200+r.IntN(2300)) * time.Millisecond
	s.rest = time.Duration(200+r.IntN(1000)) * time.Millisecond
	return s
}
