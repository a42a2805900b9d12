package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"reflect"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// The fuzz targets of this package are its decoders of foreign bytes. A decoder never panics, returns errors of its own
// classes, and what it accepts it also writes, so that one value has one spelling.

func FuzzParseJoinToken(f *testing.F) {
	f.Add(must(MintJoinToken(vectorKey, vectorClaims)))
	f.Add(rawToken(vectorKey, vectorPayload))
	f.Add(rawToken(vectorKey, `{"id":"","node_id":-1,"iat":1e99}`))
	f.Add("AQAAANR7")
	f.Add("AP____8")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseJoinToken(text)
		if err != nil {
			if !errors.Is(err, ErrTokenMalformed) {
				t.Fatalf("the error is of no known class: %v", err)
			}
			return
		}
		c := tok.Claims()
		if c.ExpiresAt < c.IssuedAt || c.NodeID > MaxNodeID {
			t.Fatalf("accepted %+v", c)
		}
		if err := tok.Verify(seq(1, 32), testNow); err == nil {
			t.Fatal("a token that was made with another key verifies")
		}
	})
}

func FuzzParseSignedToken(f *testing.F) {
	f.Add(must(MintSignedToken(signedKey, signedClaims)))
	f.Add("eyJ2IjoyfQ")
	f.Add("eyJ2IjoxLCJraWQiOiIzNDc1MGY5OCIsImNsYWltcyI6e30sInNpZyI6IiJ9")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseSignedToken(text)
		if err != nil {
			if !errors.Is(err, ErrTokenMalformed) {
				t.Fatalf("the error is of no known class: %v", err)
			}
			return
		}
		if !LooksSigned(text) || tok.encode() != text {
			t.Fatalf("%q has a second spelling %q", text, tok.encode())
		}
	})
}

func FuzzParseEnrollToken(f *testing.F) {
	f.Add(must(EnrollToken{Version: "9.0.0", Addresses: []string{"127.0.0.1:5000"}, Fingerprint: "ab",
		Key: "a:b"}.Encode()))
	f.Add("e30=")
	f.Add("bnVsbA==")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseEnrollToken(text)
		if err != nil {
			return
		}
		again, err := ParseEnrollToken(must(tok.Encode()))
		if err != nil || !reflect.DeepEqual(again, tok) {
			t.Fatalf("%+v comes back as %+v: %v", tok, again, err)
		}
		_, _ = FilterEnrollAddresses(tok.Addresses)
	})
}

func FuzzParseCSR(f *testing.F) {
	f.Add(must(NewCSR(signedKey, "node-1")))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		if err != nil {
			return
		}
		if err := checkPublicKey(csr.PublicKey); err != nil {
			t.Fatalf("accepted a weak key: %v", err)
		}
		if _, err := KeyHash(csr.PublicKey); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParsePEM feeds bundles and keys, as an operator's own authority and a peer's trust bundle are read.
func FuzzParsePEM(f *testing.F) {
	key := must(EncodeKey(signedKey))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), key)
	f.Add([]byte("text\n-----BEGIN "), []byte("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, certificates, key []byte) {
		if list, err := ParseCerts(certificates); err == nil {
			var ders [][]byte
			for _, c := range list {
				ders = append(ders, c.Raw)
			}
			if again, err := ParseCerts(EncodeCert(ders...)); err != nil || len(again) != len(list) {
				t.Fatalf("%d certificates come back as %d: %v", len(list), len(again), err)
			}
		}
		_, _ = ParseKey(key)
		_, _, _ = ParseAuthority(certificates, key, Leaf{}, testNow)
		_, _ = ParseFingerprint(string(key))
	})
}

// FuzzParseBundle feeds trust bundles of other clusters, as a peer sends them.
func FuzzParseBundle(f *testing.F) {
	ca := must(NewCA(Workload, testCluster, testNow))
	bundle := must(NewBundle(testCluster, []*x509.Certificate{ca.Cert},
		map[string]crypto.PublicKey{"k": ca.Cert.PublicKey}, 7))
	f.Add(must(EncodeBundle(bundle)))
	f.Add([]byte(`{"keys":[{"kty":"EC","use":"x509-svid","crv":"P-256","x":"AA","y":"AA","x5c":["AA"]}]}`))
	f.Add([]byte(`{"keys":null,"spiffe_sequence":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(testCluster, data)
		if err != nil {
			return
		}
		text, err := EncodeBundle(b)
		if err != nil {
			t.Fatalf("what was accepted cannot be written: %v", err)
		}
		again, err := ParseBundle(testCluster, text)
		if err != nil || !again.Equal(b) {
			t.Fatalf("it comes back as another: %v", err)
		}
	})
}

// FuzzWorkloadID feeds paths of SPIFFE IDs, as a registration has them.
func FuzzWorkloadID(f *testing.F) {
	for _, path := range []string{"/billing/api", "/", "//", "/a/../b", "/node/1", "/%2e", "/ä", "/a\x00", "/a?b#c"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		id, err := WorkloadID(testCluster, path)
		if err != nil {
			return
		}
		again, err := spiffeid.FromString(id.String())
		if err != nil || again != id || id.Path() != path || len(id.String()) > 2048 {
			t.Fatalf("%q is %v", path, id)
		}
	})
}
