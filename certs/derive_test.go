package certs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// The vectors of reference/zlayer_join.md 2.3.
func TestDeriveVectors(t *testing.T) {
	if got := InternalBearer("deadbeef"); got != "ec5766dee403569a3a1bb2fc9dafdfa9ebfa51fbffb520fcadc061cb1ae45c57" {
		t.Error(got)
	}
	key := HS256JoinKey("deadbeef")
	if got := hex.EncodeToString(key[:]); got != "7d9988082ae4222bbff13343a3e4cab98aaebd6b69ce24c4e97d3c64817953ce" {
		t.Error(got)
	}
	const jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ6bGF5ZXItY2x1c3RlciIsImF1ZCI6ImNsdXN0ZXIta" +
		"m9pbiIsImp0aSI6IjIyMjIyMjIyLTIyMjItNDIyMi04MjIyLTIyMjIyMjIyMjIyMiIsImV4cCI6NDA3MDkwODgwMCw" +
		"iaWF0IjoxNzY3MjI1NjAwfQ.HhPxGVvqRHo3TXdP1uQgZFR1wgGdko-Ciu71sCJ5aqQ"
	i := strings.LastIndexByte(jwt, '.')
	m := hmac.New(sha256.New, key[:])
	m.Write([]byte(jwt[:i]))
	if got := base64.RawURLEncoding.EncodeToString(m.Sum(nil)); got != jwt[i+1:] {
		t.Error(got)
	}
}

func TestSecrets(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if raw, err := base64.RawURLEncoding.DecodeString(a); len(raw) != 32 || err != nil || a == b {
		t.Error(a, b)
	}
	if got := HashSecret("abc"); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Error(got)
	}
}
