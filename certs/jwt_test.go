package certs

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"pgregory.net/rapid"
)

var (
	jwtKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	jwtPub  = jwtKey.Public().(ed25519.PublicKey)
	jwtKID  = KeyID(jwtPub)
	jwtKeys = map[string]ed25519.PublicKey{jwtKID: jwtPub}
	jwtNow  = time.Date(2026, 5, 6, 10, 0, 0, 0, time.UTC)
)

const jwtNode = "11111111-1111-4111-8111-111111111111"

func nodeJWT(t testing.TB) string {
	text, err := MintNodeJWT(jwtKey, jwtKID, testCluster, jwtNode, 7, jwtNow)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// segment decodes one part of a JWT.
func segment(t testing.TB, text string, i int) map[string]any {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func encodeSegment(v any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }

// assemble makes a JWT of any header and claims, signed with jwtKey.
func assemble(header, claims map[string]any) string {
	text := encodeSegment(header) + "." + encodeSegment(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(jwtKey, []byte(text)))
}

func TestNodeJWT(t *testing.T) {
	text := nodeJWT(t)
	header, claims := segment(t, text, 0), segment(t, text, 1)
	if header["alg"] != "EdDSA" || header["kid"] != jwtKID || header["typ"] != "JWT" || len(header) != 3 {
		t.Errorf("header %v", header)
	}
	want := map[string]any{"sub": "node:" + jwtNode, "iss": "muster:" + testCluster, "iat": float64(jwtNow.Unix()),
		"nbf": float64(jwtNow.Unix()),
		"exp": float64(jwtNow.Add(24 * time.Hour).Unix()), "node_id": jwtNode, "raft_node_id": 7.0}
	for name, value := range want {
		if claims[name] != value {
			t.Errorf("%s is %v, want %v", name, claims[name], value)
		}
	}
	if roles, _ := json.Marshal(claims["roles"]); string(roles) != `["node"]` || len(claims) != len(want)+1 {
		t.Errorf("claims %v", claims)
	}
	c, err := VerifyNodeJWT(text, testCluster, jwtKeys, jwtNow)
	if err != nil || c.NodeID != jwtNode || c.RaftNodeID != 7 {
		t.Errorf("%+v %v", c, err)
	}
	if again := nodeJWT(t); again != text {
		t.Error("the same identity of the same second is another text")
	}
}

// TestNodeJWTTime: good from a minute before it was issued to a minute after it ends.
func TestNodeJWTTime(t *testing.T) {
	text := nodeJWT(t)
	for _, test := range []struct {
		after time.Duration
		good  bool
	}{
		{-2 * time.Minute, false}, {-61 * time.Second, false}, {-59 * time.Second, true}, {0, true}, {23 * time.Hour, true},
		{24*time.Hour - time.Second, true}, {24 * time.Hour, true}, {24*time.Hour + time.Second, false},
		{365 * 24 * time.Hour, false},
	} {
		if _, err := VerifyNodeJWT(text, testCluster, jwtKeys, jwtNow.Add(test.after)); (err == nil) != test.good {
			t.Errorf("%v after it was issued: %v", test.after, err)
		}
	}
}

func TestNodeJWTRefused(t *testing.T) {
	good := nodeJWT(t)
	parts := strings.Split(good, ".")
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
	otherKID := KeyID(other.Public().(ed25519.PublicKey))
	header := func(change func(map[string]any)) string {
		h := segment(t, good, 0)
		change(h)
		return assemble(h, segment(t, good, 1))
	}
	claims := func(change func(map[string]any)) string {
		c := segment(t, good, 1)
		change(c)
		return assemble(segment(t, good, 0), c)
	}
	// HS256 with the public key as the HMAC key: the classic confusion.
	hs := encodeSegment(map[string]any{"alg": "HS256", "kid": jwtKID, "typ": "JWT"}) + "." + parts[1]
	mac := hmac.New(sha256.New, jwtPub)
	mac.Write([]byte(hs))
	hs += "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	rs := must(jwt.Signed(must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256,
		Key: jose.JSONWebKey{Key: rsaKey, KeyID: jwtKID}}, nil))).
		Claims(segment(t, good, 1)).Serialize())
	signed := must(jose.ParseSignedCompact(good, []jose.SignatureAlgorithm{jose.EdDSA}))
	for name, text := range map[string]string{
		"empty":            "",
		"not a JWT":        "a.b.c",
		"no signature":     parts[0] + "." + parts[1] + ".",
		"two parts":        parts[0] + "." + parts[1],
		"four parts":       good + "." + parts[2],
		"alg none":         encodeSegment(map[string]any{"alg": "none", "kid": jwtKID}) + "." + parts[1] + ".",
		"alg None, signed": header(func(h map[string]any) { h["alg"] = "None" }),
		"alg HS256":        hs,
		"alg RS256":        rs,
		"alg ES256":        header(func(h map[string]any) { h["alg"] = "ES256" }),
		"no alg":           header(func(h map[string]any) { delete(h, "alg") }),
		"no kid":           header(func(h map[string]any) { delete(h, "kid") }),
		"unknown kid":      header(func(h map[string]any) { h["kid"] = otherKID }),
		"a key of its own": header(func(h map[string]any) {
			delete(h, "kid")
			h["jwk"] = map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(jwtPub)}
		}),
		"a critical header":  header(func(h map[string]any) { h["crit"] = []string{"exp"}; h["exp"] = 1 }),
		"another key":        must(MintNodeJWT(other, jwtKID, testCluster, jwtNode, 7, jwtNow)),
		"another key's kid":  must(MintNodeJWT(other, otherKID, testCluster, jwtNode, 7, jwtNow)),
		"another cluster":    must(MintNodeJWT(jwtKey, jwtKID, "other", jwtNode, 7, jwtNow)),
		"no issuer":          claims(func(c map[string]any) { delete(c, "iss") }),
		"issuer zlayer":      claims(func(c map[string]any) { c["iss"] = "zlayer" }),
		"no node":            claims(func(c map[string]any) { delete(c, "node_id") }),
		"no number":          claims(func(c map[string]any) { delete(c, "raft_node_id") }),
		"a negative number":  claims(func(c map[string]any) { c["raft_node_id"] = -7 }),
		"a number as text":   claims(func(c map[string]any) { c["raft_node_id"] = "7" }),
		"no end":             claims(func(c map[string]any) { delete(c, "exp") }),
		"expired":            claims(func(c map[string]any) { c["exp"] = jwtNow.Unix() - 61 }),
		"not yet valid":      claims(func(c map[string]any) { c["nbf"] = jwtNow.Unix() + 61 }),
		"from the future":    claims(func(c map[string]any) { c["iat"] = jwtNow.Unix() + 61 }),
		"JSON serialisation": signed.FullSerialize(),
		"claims of another": parts[0] + "." +
			encodeSegment(map[string]any{"iss": "muster:" + testCluster, "node_id": jwtNode, "raft_node_id": 8,
				"exp": jwtNow.Unix() + 60}) + "." + parts[2],
		"header of another": encodeSegment(map[string]any{"alg": "EdDSA", "kid": jwtKID, "typ": "JOSE"}) + "." + parts[1] +
			"." + parts[2],
		"a join token's text": "eyJ2IjoxLCJraWQiOiIzNDc1MGY5OCIsImNsYWltcyI6e30sInNpZyI6IkFBQUEifQ",
	} {
		if c, err := VerifyNodeJWT(text, testCluster, jwtKeys, jwtNow); !errors.Is(err, ErrNodeJWT) || c != nil {
			t.Errorf("%s: %+v %v", name, c, err)
		}
	}
	if _, err := VerifyNodeJWT(good, testCluster, nil, jwtNow); !errors.Is(err, ErrNodeJWT) {
		t.Errorf("without keys: %v", err)
	}
	if _, err := VerifyNodeJWT(good, "", jwtKeys, jwtNow); !errors.Is(err, ErrNodeJWT) {
		t.Errorf("for no cluster: %v", err)
	}
}

// TestNodeJWTProperties: what one key has signed no other verifies, and no change of a character is overlooked.
func TestNodeJWTProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32)
		key := ed25519.NewKeyFromSeed(seed.Draw(t, "key"))
		pub := key.Public().(ed25519.PublicKey)
		keys := map[string]ed25519.PublicKey{KeyID(pub): pub}
		node, number := rapid.StringMatching(`[0-9a-f-]{1,36}`).Draw(t, "node"), rapid.Uint64Range(1, MaxNodeID).Draw(t,
			"number")
		issued := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "issued"), 0)
		text, err := MintNodeJWT(key, KeyID(pub), testCluster, node, number, issued)
		if err != nil {
			t.Fatal(err)
		}
		at := issued.Add(time.Duration(rapid.Int64Range(0, int64(NodeJWTLifetime/time.Second)).Draw(t,
			"after")) * time.Second)
		c, err := VerifyNodeJWT(text, testCluster, keys, at)
		if err != nil || c.NodeID != node || c.RaftNodeID != number || c.Subject != "node:"+node {
			t.Fatalf("%+v %v", c, err)
		}
		stranger := ed25519.NewKeyFromSeed(seed.Draw(t, "other key")).Public().(ed25519.PublicKey)
		if !stranger.Equal(pub) {
			if _, err := VerifyNodeJWT(text, testCluster, map[string]ed25519.PublicKey{KeyID(pub): stranger}, at); err == nil {
				t.Fatal("another key verifies it")
			}
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
		changed := []byte(text)
		i := rapid.IntRange(0, len(changed)-1).Draw(t, "place")
		changed[i] = alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "character")]
		if sameBytes(string(changed), text) {
			return
		}
		if c, err := VerifyNodeJWT(string(changed), testCluster, keys, at); err == nil {
			t.Fatalf("changed at %d of %d to %q it is good: %+v", i, len(text), changed[i], c)
		}
	})
}

// sameBytes reports whether two texts decode to the same three parts. The last character of a part has bits that are
// left over; a library may ignore them. Nothing looks an identity up by its text, so the spelling does not matter.
func sameBytes(a, b string) bool {
	p, q := strings.Split(a, "."), strings.Split(b, ".")
	for i := range p {
		if len(p) != len(q) {
			return false
		}
		x, err := base64.RawURLEncoding.DecodeString(p[i])
		y, _ := base64.RawURLEncoding.DecodeString(q[i])
		if err != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

// TestJWKS: the published document verifies with a JOSE library alone, and holds nothing private.
func TestJWKS(t *testing.T) {
	old := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32)).Public().(ed25519.PublicKey)
	keys := map[string]ed25519.PublicKey{jwtKID: jwtPub, KeyID(old): old}
	text := must(json.Marshal(JWKS(keys, []string{jwtKID, KeyID(old)})))
	want := `{"keys":[{"use":"sig","kty":"OKP","kid":"` + jwtKID + `","crv":"Ed25519","alg":"EdDSA","x":"` +
		base64.RawURLEncoding.EncodeToString(jwtPub) + `"},` +
		`{"use":"sig","kty":"OKP","kid":"` + KeyID(old) + `","crv":"Ed25519","alg":"EdDSA","x":"` +
		base64.RawURLEncoding.EncodeToString(old) + `"}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	token := must(jwt.ParseSigned(nodeJWT(t), []jose.SignatureAlgorithm{jose.EdDSA}))
	var c NodeClaims
	if err := token.Claims(set, &c); err != nil || c.NodeID != jwtNode {
		t.Errorf("%+v %v", c, err)
	}
	if text := must(json.Marshal(JWKS(nil, nil))); string(text) != `{"keys":[]}` {
		t.Errorf("no keys: %s", text)
	}
}
