package zlayer_test

import (
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers/internal/sole"
	"muster/store"
)

// TestSignedTokens: the format that stock joiners read, and every way of spelling one differently.
func TestSignedTokens(t *testing.T) {
	t.Parallel()
	u := sole.NewPair(t, beside).Root()
	token := u.JoinToken(`{"format":"zlayer","maxUses":2}`)
	signed, err := certs.ParseSignedToken(token.Token)
	if err != nil {
		t.Fatal(err)
	}
	claims := signed.Claims()
	if claims.APIEndpoint != "127.0.0.1:5001" || claims.RaftEndpoint != "127.0.0.1:7001" ||
		claims.OverlayCIDR != "10.200.0.0/16" || signed.ID() != token.ID ||
		signed.ExpiresAt().Unix() != token.ExpiresAt.Unix() || claims.Iss == "" {
		t.Errorf("the claims are %+v", claims)
	}
	list := spellings(t, token.Token, signed)
	for _, x := range list {
		newMachine(t).refused(t, u, x.token, x.want)
	}
	j := newMachine(t)
	first := j.enter(t, u, token.Token)
	for range 2 {
		if again := j.enter(t, u, " "+token.Token+"\n"); again.NodeID != first.NodeID ||
			again.RaftNodeID != first.RaftNodeID {
			t.Errorf("the same again: %+v", again)
		}
	}
	u.Do("DELETE", "/api/v1/cluster/join-tokens/"+token.ID, "").Expect(t, "revoking", 200,
		`{"result":{"message":"Join token revoked"}}`)
	for range 2 {
		newMachine(t).refused(t, u, token.Token, "Unauthorized: token revoked")
	}
	for _, x := range list[:7] { // another spelling does not bring it back
		newMachine(t).refused(t, u, x.token, malformed)
	}
}

// spelling is a signed token that is not as the cluster has written it.
type spelling struct{ name, token, want string }

const malformed = "Unauthorized: Invalid join token: malformed: …"

// spellings changes a token in every way; the first seven say the same in other characters.
func spellings(t *testing.T, token string, signed *certs.SignedToken) []spelling {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string { return strings.Replace(string(raw), old, new, 1) }
	enc := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	spaced := replaced(`,"claims"`, `, "claims"`)
	// has characters of its own, or not: padded at least
	std := base64.StdEncoding.EncodeToString([]byte(spaced + " "))
	const signature = "Unauthorized: Ed25519 signature verification failed"
	return []spelling{
		{"standard Base64", base64.StdEncoding.EncodeToString(raw) + strings.Repeat("=", 3-(len(raw)+2)%3), malformed},
		{"standard Base64 of another spelling", std, malformed},
		{"padded", token + "=", malformed},
		{"an extra outer field", enc(replaced(`{"v":1,`, `{"v":1,"x":1,`)), malformed},
		{"reordered", enc(`{"kid":"` + signed.KeyID() + `",` +
			strings.TrimPrefix(replaced(`"kid":"`+signed.KeyID()+`",`, ""), "{")), malformed},
		{"white space", enc(spaced), malformed},
		{"an extra claim", enc(replaced(`"claims":{`, `"claims":{"x":1,`)), malformed},
		{"tampered", enc(replaced("10.200.0.0/16", "10.201.0.0/16")), signature},
		{"made to last longer", enc(replaced(signed.Claims().Exp, "2099-01-01T00:00:00+00:00")), signature},
		{"unknown kid", enc(replaced(signed.KeyID(), "00000000")),
			"Unauthorized: signed token kid=00000000 not trusted (unknown kid, expired grace, or never issued)"},
		{"version 2", enc(replaced(`"v":1`, `"v":2`)), "…"},
		{"version 3", enc(replaced(`"v":1`, `"v":3`)),
			"Unauthorized: unsupported signed token version: got v=3, expected v=1 or v=2"},
		{"truncated", token[:len(token)-40], malformed},
	}
}

// TestTokenExpiry: a second before its end a token is good, a second after it is not.
func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	var frozen atomic.Pointer[time.Time] // what the members' clocks show; nil: the time
	s := sole.NewPair(t, beside, func(c *sole.Config) {
		c.Now = func() time.Time {
			if at := frozen.Load(); at != nil {
				return *at
			}
			return time.Now()
		}
	})
	u := s.Root()
	forge := newForger(t, s, u.JoinToken(`{"maxUses":100}`).Token)
	ends := func(in time.Duration) string {
		return forge(func(x *certs.JoinClaims) {
			x.ExpiresAt = time.Now().Add(in).Unix()
			x.IssuedAt = x.ExpiresAt - 600
		})
	}
	newMachine(t).enter(t, u, ends(time.Minute))
	newMachine(t).refused(t, u, ends(-2*time.Second), "Unauthorized: Invalid join token: expired: it was good until …")
	issued := func(in time.Duration) string {
		return forge(func(x *certs.JoinClaims) { x.IssuedAt = time.Now().Add(in).Unix() })
	}
	newMachine(t).refused(t, u, issued(certs.JoinSkew+time.Minute), "Unauthorized: Invalid join token: not yet valid: …")
	newMachine(t).enter(t, u, issued(certs.JoinSkew-5*time.Second))

	token := u.JoinToken(`{"format":"zlayer","ttlSeconds":3600,"maxUses":1000}`)
	accepted := 0
	for _, x := range []struct {
		left time.Duration // until the token ends
		good bool
	}{{time.Minute, true}, {time.Second, true}, {-time.Second, false}, {-time.Hour, false}} {
		at := token.ExpiresAt.Add(-x.left)
		frozen.Store(&at)
		for range 2 {
			if x.good {
				newMachine(t).enter(t, u, token.Token)
				accepted++
			} else {
				newMachine(t).refused(t, u, token.Token,
					"Unauthorized: signed token expired at "+certs.SignedTime(token.ExpiresAt)+" (now …")
			}
		}
	}
	if x := listed(t, u, token.ID); x.Uses != accepted || x.State != "expired" {
		t.Errorf("accepted %d times; the token is %+v", accepted, x)
	}
}

// newForger returns what makes tokens like one that the cluster has made, with changed claims.
func newForger(t *testing.T, s *sole.Member, token string) func(func(*certs.JoinClaims)) string {
	t.Helper()
	parsed, err := certs.ParseJoinToken(token)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.Store.Keys.Active(t.Context(), store.AsLeader, store.KeyJoinHMAC)
	if err != nil {
		t.Fatal(err)
	}
	return func(change func(*certs.JoinClaims)) string {
		t.Helper()
		claims := parsed.Claims()
		change(&claims)
		text, err := certs.MintJoinToken(key.Secret, claims)
		if err != nil {
			t.Fatal(err)
		}
		s.Secret("a join token", text)
		return text
	}
}
