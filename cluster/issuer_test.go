package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/store"
)

// askAs sends an internal request as a member does that comes from an address.
func (m *testMember) askAs(t *testing.T, node uint64, from, path string, body any) (int, string) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	mux := m.internal()
	r := httptest.NewRequest("POST", path, bytes.NewReader(data))
	r.RemoteAddr = from + ":1"
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r.WithContext(transport.WithMember(r.Context(), node)))
	return w.Code, w.Body.String()
}

// joinedWithHosts joins a member whose token allows the name two.example, and returns its number.
func joinedWithHosts(t *testing.T, m *testMember) uint64 {
	t.Helper()
	ctx := t.Context()
	key, err := m.Store.Keys.Active(ctx, store.AsLeader, store.KeyJoinHMAC)
	if err != nil {
		t.Fatal(err)
	}
	token, err := m.Store.JoinTokens.Create(ctx, store.Actor{Name: "test"},
		store.JoinToken{
			ID:        store.NewID(),
			Format:    store.FormatMuster,
			MaxUses:   1,
			KeyEpoch:  key.Epoch,
			ExpiresAt: time.Now().Add(time.Hour),
			Hosts:     []string{"two.example"},
		})
	if err != nil {
		t.Fatal(err)
	}
	joined, err := m.Store.Members.Join(ctx, store.Actor{Remote: "192.0.2.2"},
		store.Joiner{TokenID: token.ID, Certificates: []store.Certificate{store.NewCertificate(certs.HTTP, time.Now())},
			Member: store.Member{
				Name:          "two",
				Mode:          store.ModeFull,
				RaftAddress:   "192.0.2.2:7000",
				APIAddress:    "two.example:5000",
				AdvertiseAddr: "192.0.2.2",
			}})
	if err != nil {
		t.Fatal(err)
	}
	return joined.Member.NodeID
}

// renewedNames renews the certificates of a member, and returns the names in them and those that were left out.
func renewedNames(t *testing.T, m *testMember, id uint64, from string) (names, left []string) {
	t.Helper()
	var q certificateRequest
	for _, csr := range []*[]byte{&q.HTTP, &q.Transport} {
		key, err := certs.NewKey()
		if err == nil {
			*csr, err = certs.NewCSR(key, "x")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	code, text := m.askAs(t, id, from, transport.PathCertificates, q)
	var a certificateAnswer
	if err := json.Unmarshal([]byte(text), &a); err != nil || code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	for _, leaf := range [][]byte{a.HTTP, a.Transport} {
		chain, err := certs.ParseCerts(leaf)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, chain[0].DNSNames...)
		for _, ip := range chain[0].IPAddresses {
			names = append(names, ip.String())
		}
	}
	return names, a.LeftOut
}

// TestNamesOfRunningMembers: what the holder of a member's transport.key can get by announcements and renewals.
func TestNamesOfRunningMembers(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	ctx, id := t.Context(), joinedWithHosts(t, m)
	announce := func(from, raft, api string) (int, string) {
		return m.askAs(t, id, from, transport.PathAnnounce,
			store.Announcement{RaftAddress: raft, APIAddress: api, BinaryVersion: "v", MaxSchema: store.LatestSchema()})
	}
	renew := func(from string) (names, left []string) { return renewedNames(t, m, id, from) }
	own := func(what string, want ...string) {
		t.Helper()
		names, left := renew("192.0.2.2")
		for _, host := range want {
			if !slices.Contains(names, host) {
				t.Errorf("%s: %q is not in %q, without %q", what, host, names, left)
			}
		}
		if strings.Contains(strings.Join(names, " "), "bank") || slices.Contains(names, "192.0.2.9") {
			t.Errorf("%s: %q", what, names)
		}
	}
	own("as it has joined", "192.0.2.2", "two.example")
	for _, x := range []struct{ from, raft, api, host string }{
		{"192.0.2.2", "192.0.2.2:7000", "api.bank.example:5000", "api.bank.example"},
		{"192.0.2.2", "api.bank.example:7000", "two.example:5000", "api.bank.example"},
		{"192.0.2.2", "192.0.2.2:7000", "192.0.2.9:5000", "192.0.2.9"},
		{"192.0.2.2", "192.0.2.9:7000", "two.example:5000", "192.0.2.9"},
	} {
		if code, text := announce(x.from, x.raft, x.api); code != 409 || !strings.Contains(text, x.host) ||
			!strings.Contains(text, store.SettingCertificateHosts) {
			t.Errorf("%+v: %d %s", x, code, text)
		}
		own("after an announcement that was refused", "192.0.2.2", "two.example")
	}
	if code, text := announce("192.0.2.3", "192.0.2.3:7000", "two.example:5000"); code != 200 {
		t.Errorf("it has moved: %d %s", code, text)
	}
	own("it has moved", "192.0.2.3", "two.example")
	if _, err := m.Store.Settings.Set(ctx, store.Actor{Name: "test"},
		map[string]json.RawMessage{store.SettingCertificateHosts: json.RawMessage(`"new.example"`)}); err != nil {
		t.Fatal(err)
	}
	if code, text := announce("192.0.2.3", "192.0.2.3:7000", "new.example:5000"); code != 200 {
		t.Errorf("the setting allows it: %d %s", code, text)
	}
	own("the setting allows it", "192.0.2.3", "new.example")
	if _, err := m.Store.Settings.Set(ctx, store.Actor{Name: "test"},
		map[string]json.RawMessage{store.SettingCertificateHosts: json.RawMessage("null")}); err != nil {
		t.Fatal(err)
	}
	names, left := renew("192.0.2.3")
	if slices.Contains(names, "new.example") || !slices.Equal(left, []string{"new.example"}) {
		t.Errorf("the setting allows it no more: %q without %q", names, left)
	}
	if text := m.log.String(); !strings.Contains(text, "certificates were issued without hosts") ||
		!strings.Contains(text, "new.example") {
		t.Error("nothing is said about it")
	}
}

// TestProofs: an address is a member's when the member itself answers there.
func TestProofs(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Transport.Prove(ctx, 1, m.address); err != nil {
		t.Error(err)
	}
	if err := m.Transport.Prove(ctx, 2, m.address); err == nil {
		t.Error("member 1 answers for member 2")
	}
	serve := func(ca certs.CA, node uint64) string {
		key, err := certs.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		der, err := ca.Sign(key.Public(), certs.Leaf{
			Kind:      certs.HTTP,
			ClusterID: m.node.ClusterID,
			NodeID:    node,
			Name:      "x",
			NotBefore: time.Now().Add(-time.Hour),
			NotAfter:  time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp",
			"127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func(c net.Conn) { defer c.Close(); _, _ = io.Copy(io.Discard, c) }(conn)
			}
		}()
		return l.Addr().String()
	}
	trust, err := m.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := certs.NewCA(certs.HTTP, m.node.ClusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what string
		ca   certs.CA
		node uint64
		ok   bool
	}{{"the member", trust.HTTP.CA, 2, true}, {"another member", trust.HTTP.CA, 3, false}, {"a stranger", foreign, 2,
		false},
		{"the cluster listener's authority", trust.Of(certs.Transport).CA, 2, false}} {
		if err := m.issuer.proveAPI(ctx, 2, serve(x.ca, x.node)); (err == nil) != x.ok {
			t.Errorf("%s answers: %v", x.what, err)
		}
	}
}

// TestWithheld: a member does not ask again and again for hosts that were left out of its certificates.
func TestWithheld(t *testing.T) {
	var w withheld
	now := time.Now()
	if w.has("a", now) || w.note(nil, now) || !w.note([]string{"a.example"}, now) || w.note([]string{"a.example"}, now) {
		t.Error("it is news once")
	}
	if !w.has("A.example.", now.Add(time.Minute)) || w.has("b.example", now) || w.has("a.example", now.Add(withheldFor)) {
		t.Error("it waits for what was left out, for an hour")
	}
}
