package certs

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The vector of reference/ella_members.md 2.1.
var (
	vectorKey    = seq(0, 32)
	vectorClaims = JoinClaims{
		ID:        "00112233445566778899aabbccddeeff",
		NodeID:    3,
		IssuedAt:  1714231800,
		ExpiresAt: 1714233600,
		LCP:       "sha256:" + strings.Repeat("ab", 32),
		ClusterID: testCluster,
	}
	vectorPayload = `{"id":"00112233445566778899aabbccddeeff","node_id":3,"iat":1714231800,"exp":1714233600,` +
		`"lcp":"sha256:` +
		strings.Repeat("ab", 32) + `","cid":"0f5b8c1e-7a2d-4e6f-9b3c-5d8e1f2a3b4c"}`
)

const vectorTag = "4b42bf10c524a927ad10c680b0ec4375bd51ce7d57b8dd4c755332970d235774"

func seq(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(from + i)
	}
	return b
}

// rawToken assembles a token without the checks of MintJoinToken.
func rawToken(key []byte, payload string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("\x01" + payload))
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(payload)))
	return base64.RawURLEncoding.EncodeToString(m.Sum(append(b, payload...)))
}

func TestJoinTokenVector(t *testing.T) {
	tok := must(MintJoinToken(vectorKey, vectorClaims))
	raw := must(base64.RawURLEncoding.DecodeString(tok))
	if got := string(raw[5 : len(raw)-32]); got != vectorPayload || len(got) != 212 {
		t.Errorf("payload of %d bytes: %s", len(got), got)
	}
	if got := hex.EncodeToString(raw[len(raw)-32:]); got != vectorTag {
		t.Errorf("tag %s", got)
	}
	if len(tok) != 332 || !strings.HasPrefix(tok, "AQAAANR7") ||
		!strings.HasSuffix(tok, "ifUtCvxDFJKknrRDGgLDsQ3W9Uc59V7jdTHVTMpcNI1d0") {
		t.Errorf("token of %d characters: %s", len(tok), tok)
	}
	p := must(ParseJoinToken(tok))
	if !reflect.DeepEqual(p.Claims(), vectorClaims) {
		t.Errorf("%+v", p.Claims())
	}
	if err := p.Verify(vectorKey, time.Unix(1714232000, 0)); err != nil {
		t.Error(err)
	}
}

func TestJoinTokenOwnClaims(t *testing.T) {
	c := vectorClaims
	c.CAFingerprint, c.Addresses = c.LCP, []string{"10.0.0.1:5000", "[fd00::1]:5000", "host.example:1"}
	tok := must(MintJoinToken(vectorKey, c))
	raw := must(base64.RawURLEncoding.DecodeString(tok))
	want := strings.TrimSuffix(vectorPayload, "}") + `,"caf":"` + c.LCP +
		`","adr":["10.0.0.1:5000","[fd00::1]:5000","host.example:1"]}`
	if got := string(raw[5 : len(raw)-32]); got != want {
		t.Errorf("payload %s", got)
	}
	p := must(ParseJoinToken(tok))
	got := p.Claims()
	if !reflect.DeepEqual(got, c) {
		t.Errorf("%+v", got)
	}
	got.Addresses[0] = "changed"
	if p.Claims().Addresses[0] != c.Addresses[0] {
		t.Error("Claims hands out its own slice")
	}
}

func TestJoinTokenTime(t *testing.T) {
	p := must(ParseJoinToken(must(MintJoinToken(vectorKey, vectorClaims))))
	iat, exp := vectorClaims.IssuedAt, vectorClaims.ExpiresAt
	for _, tc := range []struct {
		now  time.Time
		want error
	}{
		{time.Unix(iat-61, 0), ErrTokenNotYetValid}, {time.Unix(iat-60, -1), ErrTokenNotYetValid},
		{time.Unix(iat-60, 0), nil},
		{time.Unix(iat, 0), nil}, {time.Unix(exp, 0), nil},
		{time.Unix(exp, 1), ErrTokenExpired}, {time.Unix(exp+1, 0), ErrTokenExpired}, {time.Time{}, ErrTokenNotYetValid},
	} {
		if err := p.Verify(vectorKey, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.now, err, tc.want)
		}
	}
	// The MAC comes first: an expired forgery is a forgery.
	if err := p.Verify(make([]byte, 32), time.Unix(exp+1000, 0)); !errors.Is(err, ErrTokenSignature) {
		t.Error(err)
	}
	if err := p.Verify(vectorKey[:15], time.Unix(exp, 0)); !errors.Is(err, ErrWeakKey) {
		t.Error(err)
	}
	if _, err := MintJoinToken(vectorKey[:15], vectorClaims); !errors.Is(err, ErrWeakKey) {
		t.Error(err)
	}
	must(MintJoinToken(vectorKey[:16], vectorClaims))
}

// TestJoinTokenDamage flips every bit and cuts at every place.
func TestJoinTokenDamage(t *testing.T) {
	tok := must(MintJoinToken(vectorKey, vectorClaims))
	now := time.Unix(1714232000, 0)
	for i := range len(tok) * 8 {
		b := []byte(tok)
		b[i/8] ^= 1 << (i % 8)
		p, err := ParseJoinToken(string(b))
		if err == nil {
			err = p.Verify(vectorKey, now)
		}
		if !errors.Is(err, ErrTokenMalformed) && !errors.Is(err, ErrTokenSignature) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	for i := range tok {
		if _, err := ParseJoinToken(tok[:i]); !errors.Is(err, ErrTokenMalformed) || i > 0 &&
			!strings.Contains(err.Error(), "truncated") {
			t.Fatalf("cut at %d: %v", i, err)
		}
		if _, err := ParseJoinToken(tok[i+1:]); !errors.Is(err, ErrTokenMalformed) {
			t.Fatalf("first %d gone: %v", i+1, err)
		}
	}
}

func TestJoinTokenMalformed(t *testing.T) {
	tok := must(MintJoinToken(vectorKey, vectorClaims))
	c := vectorClaims
	c.NodeID = 33 // the length is then no multiple of 3, so there are spare bits
	odd := must(MintJoinToken(vectorKey, c))
	raw := must(base64.RawURLEncoding.DecodeString(tok))
	enc := base64.RawURLEncoding.EncodeToString
	with := func(i int, v byte) string { b := bytes.Clone(raw); b[i] = v; return enc(b) }
	lastUp := func(s string) string { // same bytes, other spelling
		const abc = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return s[:len(s)-1] + string(abc[strings.IndexByte(abc, s[len(s)-1])+1])
	}
	if string(must(base64.RawURLEncoding.DecodeString(lastUp(odd)))) != string(
		must(base64.RawURLEncoding.DecodeString(odd))) {
		t.Fatal("the test does not test spare bits")
	}
	edit := func(old, new string) string { return rawToken(vectorKey, strings.Replace(vectorPayload, old, new, 1)) }
	for _, tc := range []struct{ name, token, says string }{
		{"empty", "", "empty"},
		{"huge", strings.Repeat("A", 100_000), "too long"},
		{"newline at the end", tok + "\n", "white space"},
		{"newline inside", tok[:8] + "\r\n" + tok[8:], "white space"},
		{"padding", tok + "=", "padding"},
		{"standard base64", "AQ+/" + tok, "base64url"},
		{"spare bits", lastUp(odd), "canonical"},
		{"version 2", with(0, 2), "version 1"},
		{"length too small", with(4, raw[4]-1), "too many"},
		{"length too big", with(4, raw[4]+1), "truncated"},
		{"length enormous", with(1, 0xff), "64 KiB"},
		{"trailing", enc(append(bytes.Clone(raw), 0)), "too many"},
		{"payload empty", rawToken(vectorKey, ""), "JSON"},
		{"payload null", rawToken(vectorKey, "null"), "JSON"},
		{"payload array", rawToken(vectorKey, "[]"), "JSON"},
		{"payload twice", rawToken(vectorKey, vectorPayload+vectorPayload), "JSON"},
		{"id upper", edit("aabbcc", "AABBCC"), "id must"},
		{"id short", edit("aabbcc", ""), "id must"},
		{"no node_id", edit(`"node_id":3,`, ""), "node_id"},
		{"node_id in other case", edit(`"node_id"`, `"NODE_ID"`), "node_id"},
		{"node_id null", edit(":3,", ":null,"), "node_id"},
		{"node_id text", edit(":3,", `:"3",`), "node_id"},
		{"node_id negative", edit(":3,", ":-3,"), "node_id"},
		{"node_id too big", edit(":3,", ":9007199254740992,"), "node_id"},
		{"iat after exp", edit("1714231800", "1714233601"), "iat <= exp"},
		{"iat negative", edit("1714231800", "-1"), "iat"},
		{"exp beyond 9999", edit("1714233600", "253402300800"), "exp"},
		{"cid", edit("0f5b8c1e-", ""), "cid"},
		{"cid upper", edit("0f5b8c1e-", "0F5B8C1E-"), "cid"},
		{"lcp", edit("sha256:", ""), "lcp"},
		{"caf", edit(`"}`, `","caf":"x"}`), "caf"},
		{"adr type", edit(`"}`, `","adr":"h:1"}`), "adr"},
		{"adr no port", edit(`"}`, `","adr":["h"]}`), "adr"},
		{"adr port 0", edit(`"}`, `","adr":["h:0"]}`), "adr"},
		{"adr port 08", edit(`"}`, `","adr":["h:08"]}`), "adr"},
		{"adr bad host", edit(`"}`, `","adr":["a b:1"]}`), "adr"},
	} {
		p, err := ParseJoinToken(tc.token)
		if !errors.Is(err, ErrTokenMalformed) || !strings.Contains(err.Error(), tc.says) || p != nil {
			t.Errorf("%s: %v, want one that says %q", tc.name, err, tc.says)
		}
	}
	// Claims of a newer member.
	p := must(ParseJoinToken(edit(`"}`, `","new":{"a":1}}`)))
	if err := p.Verify(vectorKey, time.Unix(1714232000, 0)); err != nil {
		t.Error(err)
	}
	bad := vectorClaims
	bad.ID = "x"
	if _, err := MintJoinToken(vectorKey, bad); !errors.Is(err, ErrTokenMalformed) {
		t.Error(err)
	}
	bad = vectorClaims
	for i := range 6000 {
		bad.Addresses = append(bad.Addresses, fmt.Sprintf("10.0.0.1:%d", i+1))
	}
	if _, err := MintJoinToken(vectorKey, bad); !errors.Is(err, ErrTokenMalformed) {
		t.Error("64 KiB cap:", err)
	}
	bad.Addresses = bad.Addresses[:3900]
	must(ParseJoinToken(must(MintJoinToken(vectorKey, bad))))
}

func TestJoinTokenProperty(t *testing.T) {
	hexOf := func(n int) *rapid.Generator[string] { return rapid.StringMatching(fmt.Sprintf("[0-9a-f]{%d}", n)) }
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 16, 64).Draw(t, "key")
		iat := rapid.Int64Range(0, maxUnixTime).Draw(t, "iat")
		c := JoinClaims{
			ID:        hexOf(32).Draw(t, "id"),
			NodeID:    rapid.Uint64Range(0, MaxNodeID).Draw(t, "node"),
			IssuedAt:  iat,
			ExpiresAt: rapid.Int64Range(iat, maxUnixTime).Draw(t, "exp"),
			LCP:       "sha256:" + hexOf(64).Draw(t, "lcp"),
			ClusterID: testCluster,
		}
		if rapid.Bool().Draw(t, "own") {
			c.CAFingerprint = "sha256:" + hexOf(64).Draw(t, "caf")
			c.Addresses = rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,9}:[1-9][0-9]{0,3}`), 1, 4).Draw(t, "adr")
		}
		tok, err := MintJoinToken(key, c)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseJoinToken(tok)
		if err != nil || !reflect.DeepEqual(p.Claims(), c) {
			t.Fatalf("%v: %+v", err, p)
		}
		if err := p.Verify(key, time.Unix(rapid.Int64Range(iat, c.ExpiresAt).Draw(t, "now"), 0)); err != nil {
			t.Fatal(err)
		}
		b := []byte(tok)
		bit := rapid.IntRange(0, len(b)*8-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		if p, err = ParseJoinToken(string(b)); err == nil {
			err = p.Verify(key, time.Unix(iat, 0))
		}
		if !errors.Is(err, ErrTokenMalformed) && !errors.Is(err, ErrTokenSignature) {
			t.Fatalf("flipped bit %d: %v", bit, err)
		}
	})
}

// TestParseNeverPanics: anything at all, then anything in a sound frame.
func TestParseNeverPanics(t *testing.T) {
	value := rapid.SampledFrom([]string{"null", "0", "-1", "1e9", "1.5", `""`, `"x"`, "[]", "[null]", `["a:1"]`, "{}",
		"true", "99999999999999999999", "\xff"})
	key := rapid.SampledFrom([]string{"id", "node_id", "iat", "exp", "lcp", "cid", "caf", "adr", "ID"})
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.String().Draw(t, "payload")
		if rapid.Bool().Draw(t, "object") {
			payload = "{"
			for i := range rapid.IntRange(0, 8).Draw(t, "claims") {
				if i > 0 {
					payload += ","
				}
				payload += fmt.Sprintf("%q:%s", key.Draw(t, "key"), value.Draw(t, "value"))
			}
			payload += "}"
		}
		for _, s := range []string{payload, rawToken(vectorKey, payload),
			base64.RawURLEncoding.EncodeToString([]byte(payload))} {
			if _, err := ParseJoinToken(s); !errors.Is(err, ErrTokenMalformed) {
				t.Fatal(err)
			}
			if _, err := ParseSignedToken(s); !errors.Is(err, ErrTokenMalformed) {
				t.Fatal(err)
			}
			LooksSigned(s)
		}
	})
}
