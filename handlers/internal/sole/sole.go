// Package sole runs a member in the test's process: a real store that has founded a cluster, and all routes.
package sole

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/internal/await"
	"muster/store"
)

// Member is a member with a real store that has founded a cluster of one, which it leads.
type Member struct {
	*handlers.Server
	Store *store.Store
	T     testing.TB
	Admin string // a credential with the scope management
	Dir   string
	ask2  *atomic.Pointer[func() bool] // do the other voters confirm it? nil: they do
	peer  *atomic.Pointer[store.Store] // the second voter, if there is one

	late     time.Duration // network latency of Raft; 0: the default
	follower *Member       // see NewPair
	secrets  sync.Map      // see Secret
	served   sync.Once
	at       string // where it serves users
}

// New founds a cluster in a temporary directory; change, if not nil, adjusts the configuration of the handlers.
func New(t testing.TB, change ...func(*Config)) *Member {
	t.Helper()
	return found(t, 0, change...)
}

// found is New with another network latency for Raft; 0 means the default.
func found(t testing.TB, latency time.Duration, change ...func(*Config)) *Member {
	t.Helper()
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f, admin := founding(t, identity.Recipient().String())
	log := slog.New(slog.DiscardHandler)
	out := &Member{
		late:  latency,
		T:     t,
		Admin: admin,
		Dir:   t.TempDir(),
		ask2:  new(atomic.Pointer[func() bool]),
		peer:  new(atomic.Pointer[store.Store]),
	}
	dial := func(ctx context.Context, _ uint64) (net.Conn, error) {
		if peer := out.peer.Load(); peer != nil {
			return peer.DialOwn(ctx, 1)
		}
		return nil, errors.New("there is nobody else")
	}
	ask := func(context.Context, []uint64, int) bool {
		confirms := out.ask2.Load()
		return confirms == nil || (*confirms)()
	}
	st, err := store.Open(store.Config{
		Dir:            out.Dir,
		NodeID:         1,
		Identity:       identity,
		Founding:       f,
		Logger:         log,
		Dial:           dial,
		Ask:            ask,
		NetworkLatency: latency,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
	})
	t.Cleanup(out.searched)
	ctx, cancel := context.WithTimeout(t.Context(), 2*await.Limit)
	defer cancel()
	if _, err := st.AwaitLeader(ctx); err != nil {
		t.Fatal("the founder does not lead:", err)
	}
	await.NoError(t, "the founder is confirmed", func() error { return st.Confirm(ctx) })
	cfg := NewConfig(st, f.ClusterID, "one")
	for _, c := range change {
		c(cfg)
	}
	out.Server, out.Store = Serve(cfg), st
	return out
}

// AddVoter adds a second voter; confirms reports whether it confirms the first as leader.
func (s *Member) AddVoter(confirms func() bool) {
	s.T.Helper()
	check := func(err error) {
		s.T.Helper()
		if err != nil {
			s.T.Fatal(err)
		}
	}
	identity, err := certs.NewIdentity()
	check(err)
	peer, err := store.Open(store.Config{
		Dir:            s.T.TempDir(),
		NodeID:         2,
		Identity:       identity,
		Logger:         slog.New(slog.DiscardHandler),
		Dial:           func(ctx context.Context, _ uint64) (net.Conn, error) { return s.Store.DialOwn(ctx, 2) },
		Ask:            func(context.Context, []uint64, int) bool { return true },
		NetworkLatency: s.late,
	})
	check(err)
	s.peer.Store(peer)
	s.T.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = peer.Close(ctx)
	})
	ctx, cancel := context.WithTimeout(s.T.Context(), 2*await.Limit)
	defer cancel()
	actor, recipient := store.Actor{Name: "test"}, identity.Recipient().String()
	token, err := s.Store.JoinTokens.Create(ctx, actor,
		store.JoinToken{
			ID:        store.NewID(),
			Format:    store.FormatMuster,
			KeyEpoch:  1,
			NodeID:    2,
			MaxUses:   1,
			ExpiresAt: time.Now().Add(time.Hour),
		})
	check(err)
	dek, generation, err := s.Store.Keys.ActiveDEK()
	check(err)
	wrap, err := certs.Wrap(dek[:], recipient)
	check(err)
	_, err = s.Store.Members.Join(ctx, actor, store.Joiner{TokenID: token.ID, Wrap: wrap, DEKGeneration: generation,
		Member: store.Member{
			Mode:        store.ModeFull,
			Name:        "two",
			Recipient:   recipient,
			RaftAddress: "127.0.0.1:7002",
			APIAddress:  "127.0.0.1:5002",
			MaxSchema:   store.LatestSchema(),
		}})
	check(err)
	check(s.Store.Assign(ctx, 2, store.RoleVoter))
	s.ask2.Store(&confirms)
}

// founding returns the first transaction of a cluster, and the secret of its first API token.
func founding(t testing.TB, recipient string) (f *store.Founding, admin string) {
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
	f = &store.Founding{
		ClusterID:     certs.NewUUID(),
		CreatedAt:     now,
		Wrap:          wrap,
		AdminTokenID:  store.NewID(),
		AdminHash:     certs.HashSecret(admin),
		OverlayCIDR:   "10.200.0.0/16",
		OverlaySlices: 28,
		Member: store.Member{
			NodeID:        1,
			ID:            certs.NewUUID(),
			Name:          "one",
			Mode:          store.ModeFull,
			Role:          store.RoleVoter,
			Recipient:     recipient,
			RaftAddress:   "127.0.0.1:7001",
			APIAddress:    "127.0.0.1:5001",
			AdvertiseAddr: "127.0.0.1",
			MaxSchema:     store.LatestSchema(),
			DrainState:    store.DrainActive,
		},
	}
	for _, purpose := range []string{store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT} {
		f.Keys = append(f.Keys, sealedKey(t, dek, purpose))
	}
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		ca, err := certs.NewCA(kind, f.ClusterID, now)
		check(err)
		key, err := certs.EncodeKey(ca.Key)
		check(err)
		sealed, err := dek.Seal(store.AuthoritySecret(kind, 1), 1, key)
		check(err)
		f.Authorities = append(f.Authorities,
			store.SealedAuthority{Kind: kind, CertPEM: string(certs.EncodeCert(ca.Cert.Raw)), SealedKey: sealed,
				ExpiresAt: ca.Cert.NotAfter})
	}
	return f, admin
}

// Token creates an API token with these scopes and returns its secret.
func (s *Member) Token(scopes ...string) string {
	s.T.Helper()
	if scopes == nil {
		scopes = []string{}
	}
	secret := certs.NewSecret()
	id := store.NewID()
	_, err := s.Store.APITokens.Create(s.T.Context(), store.Actor{Name: "test"},
		store.APIToken{
			ID:         id,
			Name:       "t-" + id,
			Scopes:     scopes,
			Secret:     secret,
			SecretHash: certs.HashSecret(secret),
		})
	if err != nil {
		s.T.Fatal(err)
	}
	return secret
}

// Call sends a request to the API with a bearer token; headers are pairs of name and value.
func (s *Member) Call(method, target, token, body string, headers ...string) *httptest.ResponseRecorder {
	s.T.Helper()
	return s.Ask(s.API(), method, target, token, body, headers...)
}

// Certain repeats a request for as long as the member cannot be sure that it leads: on a busy machine its process
// stands still for moments, and must find out afterwards.
func (s *Member) Certain(rt *handlers.Route, ask func() *httptest.ResponseRecorder) (w *httptest.ResponseRecorder) {
	_ = await.Within(await.Limit, func() error {
		w = ask()
		if none := rt.Family.NoLeader; w.Code == http.StatusMisdirectedRequest ||
			w.Code == none.Status && strings.Contains(w.Body.String(), none.Text) {
			return errors.New("it is not sure")
		}
		return nil
	})
	return w
}

// Ask is Call for another listener's handler.
func (s *Member) Ask(h http.Handler, method, target, token, body string, headers ...string) *httptest.ResponseRecorder {
	s.T.Helper()
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

// Serving runs the API on a real listener of this machine without TLS and returns its address.
func (s *Member) Serving() string {
	s.T.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, s.API()) }()
	s.T.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// Query reads rows of the mirror once it has caught up.
func (s *Member) Query(query string) string {
	s.T.Helper()
	await.True(s.T, "the mirror catches up", func() bool {
		if s.Store.Mirror.Revision() < s.Store.Revision() {
			return false // and the query would cost more
		}
		a, err := s.Store.Query(s.T.Context(), "SELECT revision FROM cluster", 1)
		return err == nil && len(a.Rows) == 1 && fmt.Sprint(a.Rows[0][0]) == fmt.Sprint(s.Store.Revision())
	})
	a, err := s.Store.Query(s.T.Context(), query, 1000)
	if err != nil {
		s.T.Fatal(query, err)
	}
	var out []string
	for _, r := range a.Rows {
		out = append(out, strings.Trim(fmt.Sprint(r...), "[]"))
	}
	return strings.Join(out, " ")
}

// Option sets a setting as an operator does.
func (s *Member) Option(name, value string) {
	s.T.Helper()
	if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, fmt.Sprintf(`{%q:%s}`, name, value)); w.Code != 200 {
		s.T.Fatalf("%s: %d %s", name, w.Code, w.Body)
	}
}

// Expiring creates an API token that expires soon, and returns its secret and its expiry.
func (s *Member) Expiring(in time.Duration, scopes ...string) (string, time.Time) {
	s.T.Helper()
	secret, at := certs.NewSecret(), time.Now().Add(in).Truncate(time.Second)
	if _, err := s.Store.APITokens.Create(s.T.Context(), store.Actor{Name: "test"},
		store.APIToken{
			ID:         store.NewID(),
			Name:       "short",
			Scopes:     scopes,
			Secret:     secret,
			SecretHash: certs.HashSecret(secret),
			ExpiresAt:  &at,
		}); err != nil {
		s.T.Fatal(err)
	}
	return secret, at
}

// EnrollKey creates an enrollment token and returns the Authorization header with its key.
func (s *Member) EnrollKey(body string) string {
	s.T.Helper()
	w := s.Call("POST", "/api/v1/cluster/enrollment-tokens", s.Admin, body)
	var out struct{ Result struct{ Token string } }
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 201 {
		s.T.Fatalf("%d %s", w.Code, w.Body)
	}
	t, err := certs.ParseEnrollToken(out.Result.Token)
	if err != nil {
		s.T.Fatal(err)
	}
	return APIKeyHeader(t.Key)
}

// APIKeyHeader returns the Authorization header for an API key (id:secret).
func APIKeyHeader(key string) string {
	return "ApiKey " + base64.StdEncoding.EncodeToString([]byte(key))
}

// Until polls until try succeeds.
func Until(t testing.TB, what string, try func() bool) {
	t.Helper()
	await.True(t, what, try)
}

// Generous is how long tests wait for something that should happen at once.
const Generous = await.Limit

// sealedKey generates a key for a purpose.
func sealedKey(t testing.TB, dek certs.DEK, purpose string) store.SealedKey {
	t.Helper()
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	k := store.SealedKey{Purpose: purpose, KID: hex.EncodeToString(secret[:4])}
	switch purpose {
	case store.KeyJoinSigning, store.KeyJWT:
		public := ed25519.NewKeyFromSeed(secret).Public().(ed25519.PublicKey)
		k.Public, k.KID = public, certs.KeyID(public)
	case store.KeyJoinSecret:
		secret = []byte(hex.EncodeToString(secret))
	}
	var err error
	if k.Sealed, err = dek.Seal(store.KeySecret(purpose, 1), 1, secret); err != nil {
		t.Fatal(err)
	}
	return k
}
