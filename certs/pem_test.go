package certs

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFingerprint(t *testing.T) {
	const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := Fingerprint(nil); got != empty {
		t.Error(got)
	}
	for _, bad := range []string{"", "sha256:", empty[7:], strings.ToUpper(empty), empty + "0", empty[:70], "sha512:" +
		empty[7:],
		"sha256:" + strings.Repeat("g", 64), " " + empty} {
		if _, err := ParseFingerprint(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		der := rapid.SliceOf(rapid.Byte()).Draw(t, "der")
		sum, err := ParseFingerprint(Fingerprint(der))
		if err != nil || Fingerprint(der) != Fingerprint(slices.Clone(der)) || sum == [32]byte{} {
			t.Fatal(err)
		}
	})
}

func TestPEM(t *testing.T) {
	ca := must(NewCA(HTTP, testCluster, testNow))
	key := must(NewKey())
	leaf := must(ca.Sign(key.Public(), testLeaf(HTTP)))
	chain := EncodeCert(leaf, ca.Cert.Raw)
	certs := must(ParseCerts(chain))
	if len(certs) != 2 || !bytes.Equal(certs[0].Raw, leaf) || !bytes.Equal(certs[1].Raw, ca.Cert.Raw) {
		t.Fatal("chain does not round-trip")
	}
	withText := append([]byte("subject: x\n"), chain...)
	if got := must(ParseCerts(withText)); len(got) != 2 {
		t.Error("text between blocks")
	}
	keyPEM := must(EncodeKey(key))
	for name, bad := range map[string][]byte{
		"empty": nil, "key": keyPEM, "chain and key": append(slices.Clone(chain), keyPEM...), "cut": chain[:len(chain)-40],
		"text after": append(slices.Clone(chain), "x"...), "not DER": EncodeCert([]byte("x")),
		"damaged first": bytes.Replace(chain, []byte("-----END CERT"), []byte("-----EDN CERT"), 1),
	} {
		if _, err := ParseCerts(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	back := must(ParseKey(keyPEM))
	if !back.(*ecdsa.PrivateKey).Equal(key) {
		t.Error("key does not round-trip")
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "certificate": chain, "two": append(slices.Clone(keyPEM), keyPEM...),
		"garbage":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hidden secret")}),
		"cannot sign": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: x25519PKCS8()}),
	} {
		if _, err := ParseKey(bad); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := EncodeKey(badSigner{}); err == nil {
		t.Error("encoded a broken key")
	}
}

// x25519PKCS8 is a valid PKCS#8 key that can agree but not sign (RFC 8410).
func x25519PKCS8() []byte {
	head := []byte{0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20}
	return append(head, bytes.Repeat([]byte{1}, 32)...)
}
