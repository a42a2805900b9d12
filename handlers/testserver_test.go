package handlers

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// testServer is a member with a real store that has founded a cluster, in this process. It leads, and there is nobody else.
type testServer struct {
	*Server
	t     testing.TB
	admin string // a credential with the scope management
	dir   string
	ask2  *atomic.Pointer[func() bool] // do the other voters confirm it? nil: they do
	peer  *atomic.Pointer[store.Store] // the second voter, if there is one
}

// newTestServer founds a cluster in a temporary directory; change, if not nil, adjusts the configuration of the handlers.
func newTestServer(t testing.TB, change ...func(*Config)) *testServer {
	t.Helper()
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f, admin := testFounding(t, identity.Recipient().String())
	log := slog.New(slog.DiscardHandler)
	out := &testServer{t: t, admin: admin, dir: t.TempDir(), ask2: new(atomic.Pointer[func() bool]), peer: new(atomic.Pointer[store.Store])}
	dial := func(ctx context.Context, _ uint64) (net.Conn, error) {
		if peer := out.peer.Load(); peer != nil {
			return peer.DialOwn(ctx)
		}
		return nil, errors.New("there is nobody else")
	}
	ask := func(context.Context, []uint64, int) bool {
		confirms := out.ask2.Load()
		return confirms == nil || (*confirms)()
	}
	st, err := store.Open(store.Config{Dir: out.dir, NodeID: 1, Identity: identity, Founding: f, Logger: log, Dial: dial, Ask: ask})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := st.AwaitLeader(ctx); err != nil {
		t.Fatal("the founder does not lead:", err)
	}
	if err := st.Confirm(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(st, f.ClusterID, log)
	for _, c := range change {
		c(&cfg)
	}
	out.Server = New(cfg)
	return out
}

// addVoter makes the cluster one of two voters; confirms tells whether the second one confirms the first.
func (s *testServer) addVoter(confirms func() bool) {
	s.t.Helper()
	check := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	identity, err := certs.NewIdentity()
	check(err)
	peer, err := store.Open(store.Config{Dir: s.t.TempDir(), NodeID: 2, Identity: identity, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, _ uint64) (net.Conn, error) { return s.Store.DialOwn(ctx) },
		Ask:  func(context.Context, []uint64, int) bool { return true }})
	check(err)
	s.peer.Store(peer)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = peer.Close(ctx)
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	actor, recipient := store.Actor{Name: "test"}, identity.Recipient().String()
	token, err := s.Store.JoinTokens.Create(ctx, actor, store.JoinToken{ID: store.NewID(), Format: store.FormatMuster, KeyEpoch: 1, NodeID: 2, MaxUses: 1,
		ExpiresAt: time.Now().Add(time.Hour)})
	check(err)
	dek, generation, err := s.Store.Keys.ActiveDEK()
	check(err)
	wrap, err := certs.Wrap(dek[:], recipient)
	check(err)
	_, err = s.Store.Members.Join(ctx, actor, store.Joiner{TokenID: token.ID, Wrap: wrap, DEKGeneration: generation,
		Member: store.Member{Mode: store.ModeFull, Name: "two", Recipient: recipient, RaftAddress: "127.0.0.1:7002", APIAddress: "127.0.0.1:5002",
			MaxSchema: store.LatestSchema()}})
	check(err)
	check(s.Store.Assign(ctx, 2, store.RoleVoter))
	s.ask2.Store(&confirms)
}

// testConfig is what a member gives its handlers, with answers of a cluster of one.
func testConfig(st *store.Store, clusterID string, log *slog.Logger) Config {
	fine := func(context.Context, uint64) error { return nil }
	empty := func() any { return struct{}{} }
	unchanged := func(_ context.Context, data []byte) (json.RawMessage, error) { return data, nil }
	return Config{Store: st, Peers: nobody{}, ClusterID: clusterID, Name: "one", Version: "test", Commit: "test", Logger: log,
		Autopilot: empty, Alive: func(uint64) string { return "alive" }, DownSince: func(uint64) time.Time { return time.Time{} }, History: empty, Wake: func() {},
		CanRemove: fine, Reachable: fine, CanLead: fine, Diff: func(context.Context) (any, error) { return []int{}, nil },
		PrepareRemoval: func(ctx context.Context, id uint64) (*store.DEKRotation, error) {
			return st.Keys.PrepareRotation(ctx, id, nil)
		},
		NewJoinKeys:   func() ([]store.NewKey, error) { return nil, errors.New("not in this test") },
		Schema:        func(context.Context) (any, error) { return struct{}{}, nil },
		MigrateSchema: func(context.Context, store.Actor, []uint64) (any, error) { return struct{}{}, nil },
		AutopilotConfig: func(context.Context, store.Consistency) (any, uint64, error) {
			return json.RawMessage(`{}`), 0, nil
		},
		ReplaceAutopilot: unchanged, MergeAutopilot: unchanged, Disk: empty, DiskLow: func(uint64) bool { return false },
		Notices: func() []string { return nil }, Storing: func() (string, any) { return "", nil }, CannotStore: func(uint64) string { return "" },
		Transferred: func(context.Context, store.Actor, uint64) (uint64, error) { return 1, nil },
		Installed: func(context.Context) (store.Installed, map[uint64]string, error) {
			return store.Installed{}, nil, nil
		},
		ExchangePeeringSecret: func(context.Context, []string, string, []string, string, string) (string, error) {
			return "", errors.New("the other cluster cannot be reached")
		},
		PeerStream: func(string) PeerStream { return PeerStream{} },
		Leaf:       func() []byte { return nil }, Chain: func() [][]byte { return nil }}
}

// nobody is a cluster without other members.
type nobody struct{}

func (nobody) Forward(*http.Request, uint64) (*http.Response, error) {
	return nil, errors.New("there is nobody else")
}

// testFounding is the first transaction of a cluster with all that a real one has, and the secret of its first API token.
func testFounding(t testing.TB, recipient string) (f *store.Founding, admin string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dek := certs.NewDEK()
	wrap, err := certs.Wrap(dek[:], recipient)
	check(err)
	admin = certs.NewSecret()
	now := time.Now()
	f = &store.Founding{ClusterID: certs.NewUUID(), CreatedAt: now, Wrap: wrap, AdminTokenID: store.NewID(), AdminHash: certs.HashSecret(admin),
		OverlayCIDR: "10.200.0.0/16", OverlaySlices: 28,
		Member: store.Member{NodeID: 1, ID: certs.NewUUID(), Name: "one", Mode: store.ModeFull, Role: store.RoleVoter, Recipient: recipient,
			RaftAddress: "127.0.0.1:7001", APIAddress: "127.0.0.1:5001", AdvertiseAddr: "127.0.0.1", MaxSchema: store.LatestSchema(),
			DrainState: store.DrainActive}}
	for _, purpose := range []string{store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT} {
		secret := make([]byte, 32)
		_, err := rand.Read(secret)
		check(err)
		k := store.SealedKey{Purpose: purpose, KID: hex.EncodeToString(secret[:4])}
		switch purpose {
		case store.KeyJoinSigning, store.KeyJWT:
			public := ed25519.NewKeyFromSeed(secret).Public().(ed25519.PublicKey)
			k.Public, k.KID = public, certs.KeyID(public)
		case store.KeyJoinSecret:
			secret = []byte(hex.EncodeToString(secret))
		}
		k.Sealed, err = dek.Seal(store.KeySecret(purpose, 1), 1, secret)
		check(err)
		f.Keys = append(f.Keys, k)
	}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		ca, err := certs.NewCA(kind, f.ClusterID, now)
		check(err)
		key, err := certs.EncodeKey(ca.Key)
		check(err)
		sealed, err := dek.Seal(store.AuthoritySecret(kind, 1), 1, key)
		check(err)
		f.Authorities = append(f.Authorities, store.SealedAuthority{Kind: kind, CertPEM: string(certs.EncodeCert(ca.Cert.Raw)), SealedKey: sealed,
			ExpiresAt: ca.Cert.NotAfter})
	}
	return f, admin
}

// token makes an API token with these scopes and returns its secret.
func (s *testServer) token(scopes ...string) string {
	s.t.Helper()
	if scopes == nil {
		scopes = []string{}
	}
	secret := certs.NewSecret()
	id := store.NewID()
	_, err := s.Store.APITokens.Create(s.t.Context(), store.Actor{Name: "test"}, store.APIToken{ID: id, Name: "t-" + id, Scopes: scopes,
		Secret: secret, SecretHash: certs.HashSecret(secret)})
	if err != nil {
		s.t.Fatal(err)
	}
	return secret
}

// call asks the API as a client with a bearer token does; headers are pairs of name and value.
func (s *testServer) call(method, target, token, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.ask(s.API(), method, target, token, body, headers...)
}

// ask is call for one of the other listeners.
func (s *testServer) ask(h http.Handler, method, target, token, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	var in io.Reader = http.NoBody
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, in)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// serving runs the API on a real listener of this machine without TLS and returns its address.
func (s *testServer) serving() string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, s.API(), s.Limits.Streams, slog.New(slog.DiscardHandler)) }()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// TestServerInProcess: the member of these tests answers as a real one does.
func TestServerInProcess(t *testing.T) {
	s := newTestServer(t)
	if w := s.call("GET", "/api/v1/cluster/members", s.admin, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"nodeId":1`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.call("POST", "/api/v1/cluster/join-tokens", s.token(store.ScopeClusterManage), `{}`); w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.call("GET", "/api/v1/cluster/members", "", ""); w.Code != 401 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
