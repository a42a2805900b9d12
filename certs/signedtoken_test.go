package certs

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The vector of reference/zlayer_join.md 2.3.
var (
	signedKey    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	signedPub    = signedKey.Public().(ed25519.PublicKey)
	signedClaims = SignedClaims{
		APIEndpoint:    "10.0.0.1:3669",
		RaftEndpoint:   "10.0.0.1:9000",
		LeaderWGPubkey: "AAAA",
		OverlayCIDR:    "10.200.0.0/16",
		Exp:            "2099-01-01T00:00:00+00:00",
		Iat:            "2026-01-01T00:00:00.123456789+00:00",
		Iss:            "11111111-1111-4111-8111-111111111111",
	}
)

const (
	signedJSON = `{"api_endpoint":"10.0.0.1:3669","raft_endpoint":"10.0.0.1:9000","leader_wg_pubkey":"AAAA",` +
		`"overlay_cidr":"10.200.0.0/16","exp":"2099-01-01T00:00:00+00:00","iat":"2026-01-01T00:00:00.123456789+00:00",` +
		`"iss":"11111111-1111-4111-8111-111111111111"}`
	signedSig  = "DCeOjlx6jn1-W6oyWEUZv0JLdTEu39ExILTzMoeG7JGFysyZ0LMI7EAsnupwjZ3_-BAYlwcySONq_Viv0gM0DQ"
	signedHash = "3aa83c76d05dcd0f9af5ea5652d00672af102730dbd251ca14517fce2c3d9f4d"
)

func TestSignedTokenVector(t *testing.T) {
	if got := base64.RawURLEncoding.EncodeToString(signedPub); got != "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w" {
		t.Error(got)
	}
	if got := KeyID(signedPub); got != "34750f98" {
		t.Error(got)
	}
	if got := string(signedClaims.encode()); got != signedJSON {
		t.Error(got)
	}
	tok := must(MintSignedToken(signedKey, signedClaims))
	want := `{"v":1,"kid":"34750f98","claims":` + signedJSON + `,"sig":"` + signedSig + `"}`
	if raw := must(base64.RawURLEncoding.DecodeString(tok)); string(raw) != want || len(tok) != 498 {
		t.Errorf("%d characters: %s", len(tok), raw)
	}
	for _, in := range []string{tok, " " + tok + "\n", signedHash} {
		if got := Hash(in); got != signedHash {
			t.Error(got)
		}
	}
	p := must(ParseSignedToken(tok))
	if p.Claims() != signedClaims || p.KeyID() != "34750f98" || p.ID() != HashSecret("34750f98."+signedSig) {
		t.Errorf("%+v", p)
	}
	if !p.ExpiresAt().Equal(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)) || SignedTime(p.IssuedAt()) != signedClaims.Iat {
		t.Error(p.IssuedAt(), p.ExpiresAt())
	}
	_, stranger := must2(ed25519.GenerateKey(nil))
	for _, tc := range []struct {
		pub  ed25519.PublicKey
		now  time.Time
		want error
	}{
		{signedPub, testNow, nil},
		{signedPub, p.ExpiresAt().Add(-1), nil},
		{signedPub, p.ExpiresAt(), ErrTokenExpired},
		{stranger.Public().(ed25519.PublicKey), testNow, ErrTokenSignature},
		{nil, testNow, ErrTokenSignature},
	} {
		if err := p.Verify(tc.pub, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%v, want %v", err, tc.want)
		}
	}
}

func TestSignedTokenMalformed(t *testing.T) {
	tok := must(MintSignedToken(signedKey, signedClaims))
	env := string(must(base64.RawURLEncoding.DecodeString(tok)))
	edit := func(old, new string) string {
		out := strings.Replace(env, old, new, 1)
		if out == env {
			t.Fatalf("%s is not there", old)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(out))
	}
	for name, s := range map[string]string{
		"empty": "", "huge": strings.Repeat("A", maxSignedToken+1), "newline": tok + "\n", "padding": tok + "==",
		"cut":      tok[:len(tok)-1],
		"cut more": tok[:len(tok)-2], "no JSON": "AAAA", "null": base64.RawURLEncoding.EncodeToString([]byte("null")),
		"no v": edit(`"v":1,`, ""), "space": edit(",", ", "), "unknown key": edit(`"v":1`, `"v":1,"x":1`),
		"unknown claim": edit(`"iss"`, `"x":1,"iss"`),
		"key case":      edit(`"kid"`, `"KID"`), "duplicate": edit(`"v":1`, `"v":1,"v":1`),
		"kid upper": edit("34750f98", "34750F98"), "kid short": edit("34750f98", "34750f9"),
		"order": edit(`"v":1,"kid":"34750f98"`, `"kid":"34750f98","v":1`), "sig short": edit("DCeO", ""),
		"sig spare bits": edit(`0DQ"`, `0DR"`),
		"exp":            edit("2099-01-01T", "2099-01-01 at "), "iat": edit("2026-", "x"),
		"needless escape": edit("AAAA", `\u0041AAA`),
		"lone surrogate":  edit("AAAA", `\ud800`), "not utf-8": edit("AAAA", "\xff"),
		"trailing": base64.RawURLEncoding.EncodeToString([]byte(env + " ")),
	} {
		if p, err := ParseSignedToken(s); !errors.Is(err, ErrTokenMalformed) || p != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var version *TokenVersionError
	if _, err := ParseSignedToken(edit(`"v":1`, `"v":2`)); !errors.As(err, &version) || version.Got != 2 ||
		!errors.Is(err, ErrTokenMalformed) ||
		err.Error() != "unsupported signed token version: got v=2, expected v=1" {
		t.Error(err)
	}
	if err := must(ParseSignedToken(edit("10.0.0.1", "10.0.0.2"))).Verify(signedPub, testNow); !errors.Is(err,
		ErrTokenSignature) {
		t.Error("changed claim:", err)
	}

	for name, change := range map[string]func(*SignedClaims){
		"exp": func(c *SignedClaims) { c.Exp = "tomorrow" }, "iat": func(c *SignedClaims) { c.Iat = "" },
		"not utf-8": func(c *SignedClaims) { c.Iss = "\xff" }, "huge": func(c *SignedClaims) {
			c.Iss = strings.Repeat("x", maxSignedToken)
		},
	} {
		c := signedClaims
		change(&c)
		if _, err := MintSignedToken(signedKey, c); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("mint %s: %v", name, err)
		}
	}
	if _, err := MintSignedToken(nil, signedClaims); !errors.Is(err, ErrWeakKey) {
		t.Error(err)
	}
}

func TestLooksSigned(t *testing.T) {
	tok := must(MintSignedToken(signedKey, signedClaims))
	env := must(base64.RawURLEncoding.DecodeString(tok))
	odd := base64.StdEncoding.EncodeToString([]byte(`{"v":9,"kid":"?","sig":"ÿÿÿ>>>???"}`))
	for s, want := range map[string]bool{
		tok: true, base64.StdEncoding.EncodeToString(env): true, odd: true, tok + "\n": true, "": false, "AAAA": false,
		"a.b.c": false,
		must(MintJoinToken(vectorKey, vectorClaims)):             false,
		base64.StdEncoding.EncodeToString([]byte(`{"v":1}`)):     false,
		strings.Repeat("A", maxSignedToken+1):                    false,
		base64.StdEncoding.EncodeToString([]byte(`["v","kid"]`)): false,
	} {
		if got := LooksSigned(s); got != want {
			t.Errorf("%.20q: %v", s, got)
		}
	}
}

func TestSignedTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("x", 3600))
	for add, want := range map[time.Duration]string{
		0: "2026-01-02T02:04:05+00:00", 120 * time.Millisecond: "2026-01-02T02:04:05.120+00:00",
		1200 * time.Microsecond: "2026-01-02T02:04:05.001200+00:00", 1: "2026-01-02T02:04:05.000000001+00:00",
	} {
		if got := SignedTime(at.Add(add)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestSignedTokenProperty: any text survives, and the string encoder differs
// from encoding/json in U+2028 and U+2029 only.
func TestSignedTokenProperty(t *testing.T) {
	if got, want := string(appendJSONString(nil, "a\u2028\u2029<&>é\"\\\x00\x08\x09\x0a\x0b\x0c\x0d\x1f\x7f")),
		"\"a\u2028\u2029<&>é\\\"\\\\\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\""; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	text := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("\u2028\u2029\\\"<>&\x00\x1f\u007fu2028"))))
	rapid.Check(t, func(t *rapid.T) {
		c := signedClaims
		c.Iss, c.APIEndpoint = text.Draw(t, "iss"), text.Draw(t, "api")
		if len(c.Iss) < 1000 && len(c.APIEndpoint) < 1000 {
			p, err := ParseSignedToken(must(MintSignedToken(signedKey, c)))
			if err != nil || p.Claims() != c {
				t.Fatalf("%v: %+v", err, p)
			}
			if err := p.Verify(signedPub, testNow); err != nil {
				t.Fatal(err)
			}
		}
		plain := strings.NewReplacer("\u2028", "", "\u2029", "").Replace(c.Iss)
		if got, want := appendJSONString(nil, plain), must(compactJSON(plain)); !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s", got, want)
		}
		var back string
		if err := json.Unmarshal(appendJSONString(nil, c.Iss), &back); err != nil || back != c.Iss {
			t.Fatalf("%q, %v", back, err)
		}
	})
}

func TestSignedTokenDamage(t *testing.T) {
	tok := must(MintSignedToken(signedKey, signedClaims))
	for i := range len(tok) * 8 {
		b := []byte(tok)
		b[i/8] ^= 1 << (i % 8)
		p, err := ParseSignedToken(string(b))
		if err == nil {
			err = p.Verify(signedPub, testNow)
		}
		if err == nil {
			t.Fatalf("bit %d: accepted", i)
		}
	}
	for i := range tok {
		if _, err := ParseSignedToken(tok[:i]); !errors.Is(err, ErrTokenMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}
