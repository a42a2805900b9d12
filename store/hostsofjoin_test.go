package store

import (
	"slices"
	"strings"
	"testing"
)

// hostCase is a way in which a member gets certificates, and for which hosts.
type hostCase struct {
	what              string
	raft, api, advert string // hosts
	remote            string
	hosts             []string // of the token
	cidr              string
	setting           string // JSON
	dead              bool   // the others
	noCSR             bool
	refused           string   // part of the refusal
	want              []string // hosts of the certificates, "" for none
}

var hostCases = []hostCase{
	{
		what:   "loopback",
		raft:   "127.0.0.1",
		api:    "localhost",
		advert: "::1",
		remote: "127.0.0.1",
		want:   []string{"localhost", "127.0.0.1", "::1"},
	},
	{
		what:   "where it comes from",
		raft:   "192.0.2.7",
		api:    "192.0.2.7",
		advert: "192.0.2.7",
		remote: "192.0.2.7",
		want:   []string{"192.0.2.7"},
	},
	{
		what:   "where it comes from, mapped",
		raft:   "192.0.2.7",
		api:    "192.0.2.7",
		advert: "192.0.2.7",
		remote: "::ffff:192.0.2.7",
		want:   []string{"192.0.2.7"},
	},
	{
		what:    "somebody else's API address",
		raft:    "192.0.2.7",
		api:     "192.0.2.8",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		refused: "192.0.2.8",
	},
	{
		what:    "somebody else's raft address",
		raft:    "192.0.2.8",
		api:     "192.0.2.7",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		refused: "192.0.2.8",
	},
	{
		what:    "somebody else's advertised address",
		raft:    "192.0.2.7",
		api:     "192.0.2.7",
		advert:  "2001:db8::8",
		remote:  "192.0.2.7",
		refused: "2001:db8::8",
	},
	{
		what:   "by HTTP alone",
		raft:   "192.0.2.8",
		api:    "192.0.2.8",
		advert: "192.0.2.8",
		remote: "192.0.2.7",
		noCSR:  true,
		want:   []string{},
	},
	{
		what:    "a name, by HTTP alone",
		raft:    "192.0.2.8",
		api:     "api.bank.example",
		advert:  "192.0.2.8",
		remote:  "192.0.2.7",
		noCSR:   true,
		refused: "--host api.bank.example",
	},
	{
		what:    "a name as API address",
		raft:    "192.0.2.7",
		api:     "api.bank.example",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		refused: "certificates.hosts",
	},
	{
		what:    "a name as raft address",
		raft:    "api.bank.example",
		api:     "192.0.2.7",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		refused: "api.bank.example",
	},
	{
		what:    "a name as advertised address",
		raft:    "192.0.2.7",
		api:     "192.0.2.7",
		advert:  "api.bank.example",
		remote:  "192.0.2.7",
		refused: "api.bank.example",
	},
	{
		what:   "the token's name",
		raft:   "192.0.2.7",
		api:    "DB1.example.",
		advert: "192.0.2.7",
		remote: "192.0.2.7",
		hosts:  []string{"db1.example"},
		want:   []string{"db1.example", "192.0.2.7"},
	},
	{
		what:   "the token's pattern",
		raft:   "a.b.example",
		api:    "a.b.example",
		advert: "a.b.example",
		remote: "192.0.2.7",
		hosts:  []string{"*.example"},
		want:   []string{"a.b.example"},
	},
	{
		what:    "another name than the token's",
		raft:    "192.0.2.7",
		api:     "db2.example",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		hosts:   []string{"db1.example"},
		refused: "db2.example",
	},
	{
		what:   "the token's network",
		raft:   "10.1.1.1",
		api:    "10.1.1.1",
		advert: "10.1.1.1",
		remote: "10.9.9.9",
		cidr:   "10.0.0.0/8",
		want:   []string{"10.1.1.1"},
	},
	{
		what:    "a member's address in the token's network",
		raft:    "10.0.0.2",
		api:     "10.0.0.2",
		advert:  "10.0.0.2",
		remote:  "10.9.9.9",
		cidr:    "10.0.0.0/8",
		refused: "node 2",
	},
	{
		what:    "the setting's name",
		raft:    "192.0.2.7",
		api:     "a.example",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		setting: `"a.example"`,
		want:    []string{"a.example", "192.0.2.7"},
	},
	{
		what:    "the setting's network",
		raft:    "10.1.1.1",
		api:     "10.1.1.1",
		advert:  "10.1.1.1",
		remote:  "192.0.2.7",
		setting: `"*.x, 10.0.0.0/8"`,
		want:    []string{"10.1.1.1"},
	},
	{
		what:    "a member's address in the setting's network",
		raft:    "10.0.0.2",
		api:     "10.0.0.2",
		advert:  "10.0.0.2",
		remote:  "192.0.2.7",
		setting: `"10.0.0.0/8"`,
		refused: "node 2",
	},
	{
		what:    "a member's host",
		raft:    "192.0.2.7",
		api:     "two.example",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		setting: `"*.example"`,
		refused: "node 2",
	},
	{
		what:    "a member's name",
		raft:    "192.0.2.7",
		api:     "two",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		hosts:   []string{"two"},
		refused: "node 2",
	},
	{
		what:    "a dead member's host, by a pattern",
		raft:    "192.0.2.7",
		api:     "two.example",
		advert:  "192.0.2.7",
		remote:  "192.0.2.7",
		setting: `"*.example"`,
		dead:    true,
		refused: "node 2",
	},
	{
		what:   "a dead member's host, by the token",
		raft:   "192.0.2.7",
		api:    "two.example",
		advert: "192.0.2.7",
		remote: "192.0.2.7",
		hosts:  []string{"two.example"},
		dead:   true,
		want:   []string{"two.example", "192.0.2.7"},
	},
	{
		what:   "the machine of another member",
		raft:   "10.0.0.2",
		api:    "10.0.0.2",
		advert: "10.0.0.2",
		remote: "10.0.0.2",
		want:   []string{"10.0.0.2"},
	},
}

// TestHostsOfJoin: which hosts a machine gets certificates for when it joins, when it joins again and when it repeats
// itself.
func TestHostsOfJoin(t *testing.T) {
	t.Parallel()
	for _, x := range hostCases {
		t.Run(x.what, func(t *testing.T) {
			b := hostBench(t, x.setting)
			alive := func(uint64) string {
				if x.dead {
					return "down"
				}
				return "alive"
			}
			token := b.hostToken("t", x.hosts, x.cidr)
			j := Joiner{TokenID: token, Alive: alive, Member: Member{
				Name:          "three",
				Mode:          ModeFull,
				Recipient:     "age1three",
				RaftAddress:   x.raft + ":7003",
				APIAddress:    x.api + ":5003",
				AdvertiseAddr: x.advert,
			}}
			if strings.Contains(x.raft, ":") {
				t.Fatal("write it with brackets")
			}
			if !x.noCSR {
				j.Certificates, j.CertKey = []Certificate{NewCertificate("http", b.now)}, "key"
			}
			try := func(what string, j Joiner) {
				var out Joined
				for i := range j.Certificates {
					j.Certificates[i].Serial = NewID()
				}
				_, err := b.write(func(tx *Tx) (err error) {
					tx.actor.Remote = x.remote
					out, err = tx.join(j, NewID(), tx.actor)
					return err
				})
				if x.refused != "" {
					if err == nil || !strings.Contains(err.Error(), x.refused) {
						t.Errorf("%s: %+v, %v", what, out.Hosts, err)
					}
					return
				}
				if len(x.want) > 0 && (err != nil || !slices.Equal(out.Hosts, x.want)) {
					t.Errorf("%s: %q, %v; want %q", what, out.Hosts, err, x.want)
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				if err := localTx(b.view()).joinedAgain(j, &out); err != nil {
					t.Errorf("%s, repeated: %v", what, err)
				}
			}
			try("join", j)
			try("join again", j)
			// A member joins again with other addresses.
			home := j
			home.Certificates = slices.Clone(j.Certificates)
			for i := range home.Certificates {
				home.Certificates[i].Serial = NewID()
			}
			home.TokenID, home.Member.Recipient, home.Member.Name = b.hostToken("u", x.hosts, x.cidr), "age1four", "four"
			home.Member.RaftAddress, home.Member.APIAddress = "127.0.0.1:7004", "127.0.0.1:5004"
			home.Member.AdvertiseAddr = "127.0.0.1"
			if _, err := b.write(func(tx *Tx) error {
				tx.actor.Remote = "10.9.9.9"
				_, err := tx.join(home, NewID(), tx.actor)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			b.exec("DELETE FROM members WHERE name = 'three'")
			home.Member.RaftAddress, home.Member.APIAddress = j.Member.RaftAddress, j.Member.APIAddress
			home.Member.AdvertiseAddr = j.Member.AdvertiseAddr
			try("rejoin", home)
		})
	}
}
