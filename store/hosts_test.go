package store

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"muster/certs"
	"muster/migrations"
)

// TestHostsOfAnnouncement: a member that says of itself that it is elsewhere is believed what is allowed or shown.
func TestHostsOfAnnouncement(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		what      string
		raft, api string
		e         HostEvidence
		setting   string
		refused   string
	}{
		{what: "to where it comes from", raft: "10.0.0.9", api: "10.0.0.9", e: HostEvidence{Remote: "10.0.0.9"}},
		{
			what:    "to somebody else's address",
			raft:    "10.0.0.2",
			api:     "192.0.2.8",
			e:       HostEvidence{Remote: "10.0.0.2"},
			refused: "192.0.2.8",
		},
		{
			what:    "to a name",
			raft:    "10.0.0.2",
			api:     "api.bank.example",
			e:       HostEvidence{Remote: "10.0.0.2"},
			refused: "api.bank.example",
		},
		{what: "to a name at which it answers", raft: "10.0.0.2", api: "two-b.example",
			e: HostEvidence{Dialled: []string{"two-b.example"}}},
		{what: "to an address at which it answers", raft: "192.0.2.8", api: "10.0.0.2",
			e: HostEvidence{Dialled: []string{"192.0.2.8"}}},
		{
			what:    "to a member's host, where it answers",
			raft:    "10.0.0.2",
			api:     "one.example",
			e:       HostEvidence{Dialled: []string{"one.example"}},
			refused: "one.example",
		},
		{
			what:    "to a member's host that the setting allows",
			raft:    "10.0.0.2",
			api:     "one.example",
			setting: `"one.example"`,
			refused: "node 1",
		},
		{what: "to a name that the setting allows", raft: "10.0.0.2", api: "new.example", setting: `"*.example"`},
		{what: "the leader itself", raft: "new.example", api: "new.example", e: HostEvidence{Own: true}},
	} {
		b := hostBench(t, x.setting)
		_, err := b.write(func(tx *Tx) error {
			return tx.announce(Announcement{
				NodeID:        2,
				RaftAddress:   x.raft + ":7009",
				APIAddress:    x.api + ":5009",
				BinaryVersion: "v",
				MaxSchema:     2,
				Evidence:      x.e,
			})
		})
		if (err != nil) != (x.refused != "") || err != nil && !strings.Contains(err.Error(), x.refused) {
			t.Errorf("%s: %v", x.what, err)
		}
		if x.refused == "" {
			for _, host := range []string{x.raft, x.api} {
				if hosts, left := b.certHosts(2); !slices.Contains(hosts, host) || len(left) > 0 {
					t.Errorf("%s: certificates for %q without %q", x.what, hosts, left)
				}
			}
		}
	}
}

// TestHostsOfRenewal: a running member gets certificates all the same, without what is allowed no longer.
func TestHostsOfRenewal(t *testing.T) {
	t.Parallel()
	b := hostBench(t, `"*.example"`)
	if hosts, left := b.certHosts(2); !slices.Equal(hosts, []string{"two.example", "10.0.0.2"}) || len(left) > 0 {
		t.Errorf("%q without %q", hosts, left)
	}
	b.exec("UPDATE members SET hosts = '{}' WHERE raft_node_id = 2")
	if hosts, left := b.certHosts(2); !slices.Equal(hosts, []string{"two.example"}) ||
		!slices.Equal(left, []string{"10.0.0.2"}) {
		t.Errorf("an address that nobody has shown: %q without %q", hosts, left)
	}
	b.exec("DELETE FROM settings WHERE name = ?", SettingCertificateHosts)
	if hosts, left := b.certHosts(2); len(hosts) > 0 || !slices.Equal(left, []string{"two.example", "10.0.0.2"}) {
		t.Errorf("without the setting: %q without %q", hosts, left)
	}
	b.exec("INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, 1)", SettingCertificateHosts,
		`"*.example,10.0.0.0/8"`)
	b.exec("UPDATE members SET api_address = 'one.example:1', raft_address = '10.0.0.1:1' WHERE raft_node_id = 2")
	if hosts, left := b.certHosts(2); !slices.Equal(hosts, []string{"10.0.0.2"}) ||
		!slices.Equal(left, []string{"one.example", "10.0.0.1"}) {
		t.Errorf("what another member has: %q without %q", hosts, left)
	}
}

// TestHostsBeforeTheStep: members from before there were grants keep the hosts that they have, then and after the step.
func TestHostsBeforeTheStep(t *testing.T) {
	t.Parallel()
	db, p := oldDB(t, 1)
	b := newBench(t, db)
	f := testFounding(t, mustIdentity(t))
	f.Member.RaftAddress, f.Member.APIAddress = "[2001:db8::1]:7000", "One.example:5000"
	f.Member.AdvertiseAddr = "10.0.0.1"
	if _, err := b.write(f.apply); err != nil {
		t.Fatal(err)
	}
	want := []string{"one.example", "2001:db8::1", "10.0.0.1"}
	if hosts, left := b.certHosts(1); !slices.Equal(hosts, want) || len(left) > 0 {
		t.Errorf("before: %q without %q", hosts, left)
	}
	if _, err := b.write(func(tx *Tx) error {
		return tx.announce(Announcement{
			NodeID:        1,
			RaftAddress:   "[2001:db8::1]:7000",
			APIAddress:    "api.bank.example:5000",
			BinaryVersion: "v",
			MaxSchema:     2,
		})
	}); err == nil || !strings.Contains(err.Error(), "api.bank.example") {
		t.Errorf("before: %v", err)
	}
	if _, err := b.write(func(tx *Tx) error { _, err := tx.joinToken("x"); return err }); err != nil {
		t.Error(err)
	}
	b.s.Conn().Close() // goose wants it
	if _, err := p.UpTo(bg, migrations.Latest); err != nil {
		t.Fatal(err)
	}
	b = newBench(t, db)
	if hosts, left := b.certHosts(1); !slices.Equal(hosts, want) || len(left) > 0 {
		t.Errorf("after: %q without %q", hosts, left)
	}
}

// hostBench is a cluster of the members one (one.example, 10.0.0.1) and two (two.example, 10.0.0.2), with a setting.
func hostBench(t *testing.T, setting string) *bench {
	t.Helper()
	b := foundedBench(t, "10.200.0.0/16", 28)
	b.exec("UPDATE members SET name = 'one', raft_address = '10.0.0.1:7000', api_address = 'one.example:5000', " +
		"advertise_addr = '10.0.0.1'")
	if _, err := b.write(func(tx *Tx) error {
		return tx.insertMember(&Member{
			NodeID:        2,
			ID:            "2",
			Name:          "two",
			Mode:          ModeFull,
			RaftAddress:   "10.0.0.2:7000",
			APIAddress:    "two.example:5000",
			AdvertiseAddr: "10.0.0.2",
			CertKey:       "key",
		}, hostGrants{Proven: []string{"two.example", "10.0.0.2"}})
	}); err != nil {
		t.Fatal(err)
	}
	b.exec("UPDATE sequences SET value = 2 WHERE name = 'raft_node_id'")
	if setting != "" {
		b.exec("INSERT INTO settings (name, value, modified_rev) VALUES (?, ?, 1)", SettingCertificateHosts, setting)
	}
	return b
}

// hostToken makes a join token and returns its id.
func (b *bench) hostToken(id string, hosts []string, cidr string) string {
	b.t.Helper()
	b.exec(
		`INSERT INTO join_tokens (id, format, mode, labels, bind_cidr, bind_name, bind_key, max_uses, created_by, created_at,
		expires_at, created_rev, modified_rev, hosts)
		VALUES (?, 'muster', '', '{}', ?, '', '', 9, '', '2030-01-01T00:00:00Z', '2031-01-01T00:00:00Z', 9, 9, ?)`,
		id, cidr, string(mustMarshal(b.t, hosts)))
	return id
}

// certHosts is what a renewal would give a member.
func (b *bench) certHosts(id uint64) (hosts, left []string) {
	b.t.Helper()
	v := b.view()
	m, err := v.Member(id)
	if err != nil {
		b.t.Fatal(err)
	}
	g, err := v.grantsOf(m)
	if err == nil {
		hosts, left, err = v.certHosts(m, g)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return hosts, left
}

func mustMarshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// TestReachable: a member that is not on loopback would dial itself where another says that it is on loopback, so that
// no way to say where a member is takes it. A cluster on loopback goes on as before.
func TestReachable(t *testing.T) {
	for _, x := range []struct {
		address string
		refused bool
	}{
		{"127.0.0.1:7003", true}, {"127.8.9.1:7003", true}, {"[::1]:7003", true}, {"[::ffff:127.0.0.1]:7003", true},
		{"localhost:7003", true}, {"LOCALHOST.:7003", true}, {"10.0.0.3:7003", false},
	} {
		for _, field := range []string{"raft", "api"} {
			for _, self := range []string{"10.0.0.1:7000", "127.0.0.1:7000"} {
				b := hostBench(t, `"10.0.0.0/8"`)
				b.exec("UPDATE members SET raft_address = ? WHERE raft_node_id = 1", self)
				raft, api := "10.0.0.3:7003", "10.0.0.3:5003"
				if field == "raft" {
					raft = x.address
				} else {
					api = x.address
				}
				at := func(raft, api string) Joiner {
					return Joiner{TokenID: "t", Alive: func(uint64) string { return "down" }, Member: Member{
						Name:          "three",
						Mode:          ModeFull,
						Recipient:     "age1three",
						RaftAddress:   raft,
						APIAddress:    api,
						AdvertiseAddr: "10.0.0.3",
					}}
				}
				join := func(j Joiner) error {
					_, err := b.write(func(tx *Tx) error {
						tx.self = 1
						_, err := tx.join(j, NewID(), tx.actor)
						return err
					})
					return err
				}
				b.hostToken("t", nil, "")
				ways := map[string]error{"join": join(at(raft, api))}
				if err := join(at("10.0.0.3:7004", "10.0.0.3:5004")); err != nil {
					t.Fatal(err)
				}
				ways["join again"] = join(at(raft, api))
				_, ways["announce"] = b.write(func(tx *Tx) error {
					tx.self = 1
					return tx.announce(Announcement{
						NodeID:        2,
						RaftAddress:   raft,
						APIAddress:    strings.ReplaceAll(api, ":5003", ":5007"),
						BinaryVersion: "v",
						MaxSchema:     2,
						Evidence:      HostEvidence{Remote: "10.0.0.3"},
					})
				})
				refused := x.refused && !strings.HasPrefix(self, "127.")
				for way, err := range ways {
					if way == "announce" && (!refused || x.refused && self != "10.0.0.1:7000") {
						continue // it may collide with the member that has joined
					}
					if (err != nil && strings.Contains(err.Error(), "is on loopback, and node 1")) != refused {
						t.Errorf("%s %s=%s at %s: %v", way, field, x.address, self, err)
					}
				}
			}
		}
	}
}
