package store

import (
	"strings"
	"testing"
)

// peeringStep is a call, its error and what is there afterwards.
type peeringStep struct {
	what string
	do   func(b *peeringBench) error
	err  string // part of it, "" for success
	want string // state, a space, secrets
}

// peeringStepsCases are what TestPeeringSteps goes through.
var peeringStepsCases = map[string][]peeringStep{
	"an acceptor": {
		{"a token", func(b *peeringBench) error { return b.token("us", "e1") }, "", "PENDING e1//"},
		{"a stream without secrets", func(b *peeringBench) error { return b.open("id-1", "x") },
			"unable to authorize connection", "PENDING e1//"},
		{"another token", func(b *peeringBench) error { return b.token("us", "e2") }, "", "PENDING e2//"},
		{"the superseded secret", func(b *peeringBench) error { return b.exchange("id-1", "e1", "s1") },
			"invalid peering establishment secret", "PENDING e2//"},
		{"no secret", func(b *peeringBench) error { return b.exchange("id-1", "", "s1") },
			"invalid peering establishment secret", "PENDING e2//"},
		{"an unknown peering", func(b *peeringBench) error { return b.exchange("id-9", "e2", "s1") },
			"invalid peering establishment secret", "PENDING e2//"},
		{"the right secret", func(b *peeringBench) error { return b.exchange("id-1", "e2", "s1") }, "", "PENDING /s1/"},
		{"the same again", func(b *peeringBench) error { return b.exchange("id-1", "e2", "s2") },
			"invalid peering establishment secret", "PENDING /s1/"},
		{"a stream with a wrong secret", func(b *peeringBench) error { return b.open("id-1", "e2") },
			"invalid peering stream secret", "PENDING /s1/"},
		{"a stream with none", func(b *peeringBench) error { return b.open("id-1", "") }, "invalid peering stream secret",
			"PENDING /s1/"},
		{"a stream for nobody", func(b *peeringBench) error { return b.open("", "s1") }, "must specify a PeerID",
			"PENDING /s1/"},
		{"the pending secret", func(b *peeringBench) error { return b.open("id-1", "s1") }, "", "ACTIVE //s1"},
		{"a token meanwhile", func(b *peeringBench) error { return b.token("us", "e3") }, "", "ACTIVE e3//s1"},
		{"its exchange", func(b *peeringBench) error { return b.exchange("id-1", "e3", "s2") }, "", "ACTIVE /s2/s1"},
		{"the old stream again", func(b *peeringBench) error { return b.open("id-1", "s1") }, "", "ACTIVE /s2/s1"},
		{"the new one", func(b *peeringBench) error { return b.open("id-1", "s2") }, "", "ACTIVE //s2"},
		{"the old one is over", func(b *peeringBench) error { return b.open("id-1", "s1") }, "invalid peering stream secret",
			"ACTIVE //s2"},
		{"establish the same name", func(b *peeringBench) error { e := there; e.Name = "us"; return b.establish(e) },
			"there is an existing peering expecting to be dialed", "ACTIVE //s2"},
		{"the other side ends it", func(b *peeringBench) error { return b.terminate("us") }, "", "TERMINATED //s2"},
		{"it ends once", func(b *peeringBench) error { return b.terminate("us") }, "", "TERMINATED //s2"},
		{"a stream after the end", func(b *peeringBench) error { return b.open("id-1", "s2") }, "deleted by the other side",
			"TERMINATED //s2"},
		{"a stranger after the end", func(b *peeringBench) error { return b.open("id-1", "s1") }, "marked as deleted",
			"TERMINATED //s2"},
		{"a token takes it up again", func(b *peeringBench) error { return b.token("us", "e4") }, "", "PENDING e4//"},
	},
	"a dialer": {
		{"establish", func(b *peeringBench) error { return b.establish(there) }, "", "ESTABLISHING //"},
		{"a token for the name", func(b *peeringBench) error { return b.token("them", "e1") },
			"there is already an established peering", "ESTABLISHING //"},
		{"the wrong end is dialled", func(b *peeringBench) error { return b.open("id-1", "s") },
			"the wrong end of peering is being dialed", "ESTABLISHING //"},
		{"an exchange with a dialer", func(b *peeringBench) error { return b.exchange("id-1", "", "s") },
			"invalid peering establishment secret", "ESTABLISHING //"},
		{"the other side ends it", func(b *peeringBench) error { return b.terminate("them") }, "", "TERMINATED //"},
		{"establish again", func(b *peeringBench) error { return b.establish(there) }, "", "ESTABLISHING //"},
	},
	"deletion": {
		{"of nothing", func(b *peeringBench) error { return b.remove("us") }, "", " //"},
		{"a token", func(b *peeringBench) error { return b.token("us", "e1") }, "", "PENDING e1//"},
		{"an exchange", func(b *peeringBench) error { return b.exchange("id-1", "e1", "s1") }, "", "PENDING /s1/"},
		{"deleted", func(b *peeringBench) error { return b.remove("US") }, "", "DELETING //"},
		{"deleted again", func(b *peeringBench) error { return b.remove("us") }, "", "DELETING //"},
		{"a token meanwhile", func(b *peeringBench) error { return b.token("us", "e2") }, "marked for deletion",
			"DELETING //"},
		{"establish meanwhile", func(b *peeringBench) error { e := there; e.Name = "us"; return b.establish(e) },
			"marked for deletion", "DELETING //"},
		{"the end of the other side meanwhile", func(b *peeringBench) error { return b.terminate("us") }, "", "DELETING //"},
		{"who has the secret is told", func(b *peeringBench) error { return b.open("id-1", "s1") },
			"deleted by the other side", "DELETING //"},
		{"who has none is not", func(b *peeringBench) error { return b.open("id-1", "e1") }, "marked as deleted",
			"DELETING //"},
	},
}

// Each step is told with what it must leave: the state and the secrets (establishment/pending/active).
func TestPeeringSteps(t *testing.T) {
	t.Parallel()
	for name, steps := range peeringStepsCases {
		t.Run(name, func(t *testing.T) {
			b := newPeeringBench(t)
			for _, s := range steps {
				var p Peering
				for _, n := range []string{"us", "them"} {
					if x := b.get(n); x.ID != "" {
						p = x
					}
				}
				err := s.do(b)
				if (err == nil) != (s.err == "") || err != nil && !strings.Contains(err.Error(), s.err) {
					t.Errorf("%s: %v, want %q", s.what, err, s.err)
				}
				after := b.get("us")
				if after.ID == "" {
					after = b.get("them")
				}
				if got := after.State + " " + b.secrets(after.Name); got != s.want {
					t.Errorf("%s: it is %q, want %q", s.what, got, s.want)
				}
				if p.ID != "" && (after.ID != p.ID || after.CreatedRev != p.CreatedRev || after.Dialer != p.Dialer ||
					after.ModifiedRev < p.ModifiedRev) {
					t.Errorf("%s: %+v became %+v", s.what, p, after)
				}
			}
		})
	}
}
